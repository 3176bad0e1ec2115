"""An output is never an input, nor inside one, nor around one."""

import glob
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from bitfold.errors import BitfoldError

Identity = tuple[int, int]


def refuse_overlap(out: str | Path, inputs: Iterable[str | Path | None]) -> None:
    """Check that writing `out` touches no input.

    Files are told by what they are, not by their spelling: links, hard links, `..` and other
    mounts of one folder make no difference. `-` is what standard input was redirected from.

    Args:
        out: the output, which need not exist.
        inputs: files, folders and patterns; None is skipped, and what does not exist as well.

    Raises:
        BitfoldError: the two are the same, or one lies inside the other.
    """
    real = Path(os.path.realpath(out))
    mine, above = _identity(real), {_identity(parent) for parent in real.parents}
    for given in inputs:
        for path in () if given is None else _paths(str(given)):
            found, is_folder = _look(path)
            if found is None:
                continue
            if found == mine:
                raise _refused(out, given, "the output is its own input")
            if is_folder and found in above:
                raise _refused(out, given, "the output lies inside an input")
            parents = Path(os.path.realpath(path)).parents
            if mine is not None and mine in {_identity(parent) for parent in parents}:
                raise _refused(out, given, "an input lies inside the output")


def _paths(text: str) -> list[str]:
    if os.path.lexists(text) or not glob.has_magic(text):
        return [text]
    return glob.glob(text, recursive=True)  # noqa: PTH207  (absolute patterns, too)


def _look(path: str) -> tuple[Identity | None, bool]:
    """A path's identity, and whether it is a folder; a pipe or a terminal is nothing to lose."""
    try:
        found = os.fstat(0) if path == "-" else os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None, False
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        return None, False
    return (found.st_dev, found.st_ino), stat.S_ISDIR(found.st_mode)


def _identity(path: Path) -> Identity | None:
    return _look(str(path))[0]


def _refused(out: object, given: object, problem: str) -> BitfoldError:
    return BitfoldError(
        problem,
        got=f"{out}, and the input {given}",
        expected="an output apart from everything that is read",
        fix="name another output",
    )
