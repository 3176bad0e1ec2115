"""A request, an answer, and a refusal: what was got, what was expected, how to mend it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec

from bitfold.errors import BitfoldError

JSON = "application/json"
_LONGEST = 500  # of a text in an error: it may hold what the client sent


@dataclass(slots=True)
class Request:
    """A request whose body is whole.

    Args:
        method: such as `POST`.
        path: without what follows a question mark.
        headers: by their lower-case names.
        body: what was sent.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def route_method(self) -> str:
        """The method whose route answers: HEAD is a GET whose body is left out."""
        return "GET" if self.method == "HEAD" else self.method

    @property
    def content_type(self) -> str:
        """The type of the body without its parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(slots=True)
class Response:
    """An answer."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


Reply: TypeAlias = Callable[[Response], None]
"""Takes the one answer of a request, now or later, in the server's thread."""


class Refused(Exception):
    """A request that gets no scores.

    Args:
        status: of HTTP, 400 to 599.
        error: what was got, expected, and how to mend it.
        headers: more headers of the answer.
    """

    def __init__(self, status: int, error: BitfoldError, *headers: tuple[str, str]) -> None:
        self.status, self.error, self.headers = status, error, headers
        super().__init__(str(error))

    def response(self) -> Response:
        """The refusal as an answer."""
        return Response(self.status, error_body(self.status, self.error), JSON, self.headers)


def refused(
    status: int,
    problem: str,
    *headers: tuple[str, str],
    got: object = None,
    expected: object = None,
    fix: str | None = None,
) -> Refused:
    """A refusal in the house's form."""
    return Refused(status, BitfoldError(problem, got=got, expected=expected, fix=fix), *headers)


def json_response(value: Any, status: int = 200) -> Response:
    """JSON as an answer."""
    return Response(status, msgspec.json.encode(value))


def error_body(status: int, error: BitfoldError) -> bytes:
    """`{"error": {...}}` of a mistake.

    Example:
        >>> error_body(413, BitfoldError("too large", got=9, expected="8 at most"))
        b'{"error":{"status":413,"problem":"too large","got":"9","expected":"8 at most"}}'
    """
    told: dict[str, Any] = {"status": status, "problem": _cut(error.problem)}
    parts = (("got", error.got), ("expected", error.expected), ("fix", error.fix))
    told |= {name: _cut(text) for name, text in parts if text is not None}
    return msgspec.json.encode({"error": told})


def _cut(text: object) -> str:
    """A text that can be encoded, and is not long."""
    plain = str(text).encode("utf-8", "backslashreplace").decode()
    return plain if len(plain) <= _LONGEST else plain[: _LONGEST - 3] + "..."


_PATH = re.compile(r"(?:[A-Za-z]:|[^\s'\"/\\:,]+)?[/\\](?:[^\s'\"/\\:,]+[/\\])*([^\s'\"/\\:,]*)")


def without_paths(error: BitfoldError, *known: str) -> BitfoldError:
    """The same error, its paths cut to their last part: a client need not know where files lie.

    Args:
        error: of loading a model.
        known: paths that may have blanks in them.

    Example:
        >>> print(without_paths(BitfoldError("/srv/runs/new/plan.json is damaged")))
        plan.json is damaged
    """

    def cut(text: object) -> str | None:
        if text is None:
            return None
        said = str(text)
        for path in sorted(filter(None, known), key=len, reverse=True):
            said = re.sub(re.escape(path) + r"[/\\]", "", said)
            said = said.replace(path, re.split(r"[/\\]", path.rstrip("/\\"))[-1])
        return _PATH.sub(lambda match: match[1], said)

    problem = cut(error.problem) or ""
    return BitfoldError(
        problem, got=cut(error.got), expected=cut(error.expected), fix=cut(error.fix)
    )
