"""The page at `/`: type a row, see its score and the run that gave it.

It is three files of the server's own and nothing from elsewhere, which its policy makes sure of.
"""

from functools import cache
from importlib.resources import files

from bitfold.service.messages import Response

FILES = {
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_ROOT = ("page.html", "text/html; charset=utf-8")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    ("content-security-policy", POLICY),
    ("referrer-policy", "no-referrer"),
    ("x-frame-options", "DENY"),
    ("cache-control", "no-cache"),
)


@cache
def response(path: str) -> Response:
    """The page, or one of its files."""
    name, kind = FILES.get(path, _ROOT)
    return Response(200, (files("bitfold.service") / name).read_bytes(), kind, _HEADERS)
