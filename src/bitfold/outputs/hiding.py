"""The hidden folder beside an output: what it is called, and what its paths become."""

import hashlib
import os
import re
from pathlib import Path

SUFFIX = ".bitfold"
LOCK, MAKING, UNFINISHED, BESIDE = "lock", "making", "unfinished", "beside"
OLD, PLACING = "old", "placing"
_UNFINISHED = re.compile(r"(?<=/)\.([^/]+)\.bitfold/unfinished(?=/|$)")
_LONGEST = 200  # bytes of a name that can bear our prefix and suffix


def hidden(out: Path) -> Path:
    """The hidden folder of an output.

    Example:
        >>> hidden(Path("runs/ads")).as_posix()
        'runs/.ads.bitfold'
    """
    name = out.name
    if len(os.fsencode(name)) > _LONGEST:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return out.with_name(f".{name}{SUFFIX}")


def settled(path: str) -> str:
    """What a path in unfinished work will be called once the work has taken its place.

    Example:
        >>> settled("/a/.board.bitfold/unfinished/log")
        '/a/board/log'
    """
    return _UNFINISHED.sub(r"\1", path)


def unsettled(path: str, within: Path) -> str:
    """The inverse of `settled`, for work that is done in `within`.

    Example:
        >>> unsettled("/a/board/log", Path("/a/.board.bitfold/unfinished/runs/x"))
        '/a/.board.bitfold/unfinished/log'
        >>> unsettled("/a/board/log", Path("/a/board/runs/x"))
        '/a/board/log'
    """
    for folder in (within, *within.parents):
        final = settled(str(folder))
        if folder.name == UNFINISHED and final != str(folder) and path.startswith(final + "/"):
            return str(folder) + path[len(final) :]
    return path
