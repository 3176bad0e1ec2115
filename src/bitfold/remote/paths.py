"""Paths with a scheme, and what their copies are called."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from bitfold.errors import BitfoldError

SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]+)://")


def is_remote(path: object) -> bool:
    """Whether a path has a scheme other than `file://`.

    Example:
        >>> is_remote("s3://logs/day=1/*.csv.gz"), is_remote("file:///tmp/x"), is_remote("x.csv")
        (True, False, False)
    """
    found = SCHEME.match(path) if isinstance(path, str) else None
    return found is not None and found[1].lower() != "file"


def local_path(path: str) -> str:
    """The plain path of a `file://` URL; other texts stay.

    Example:
        >>> local_path("file:///data/a%20b.csv"), local_path("data/a%20b.csv")
        ('/data/a b.csv', 'data/a%20b.csv')
    """
    if not path.lower().startswith("file://"):
        return path
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(path)
    if parts.netloc not in ("", "localhost"):
        raise BitfoldError(
            "a file:// path names a machine",
            got=path,
            expected="file:///FOLDER/FILE, a path on this machine",
        )
    return unquote(parts.path)


_NAMES: list[tuple[str, str]] = []
"""Places on this machine, and the paths that the user knows them by."""


@contextlib.contextmanager
def known_as(place: Path, path: str) -> Iterator[None]:
    """While the block runs, messages call a place on this machine as the user called it."""
    _NAMES.append((str(place), path))
    try:
        yield
    finally:
        _NAMES.remove((str(place), path))


def named(text: str) -> str:
    """The text with the places of copies called as the user called them."""
    for place, path in _NAMES:
        text = text.replace(place, path)
    return text
