"""What the system refuses, told before or after: paths, places and disks that cannot be."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from bitfold.errors import BitfoldError
from bitfold.files import cannot_write
from bitfold.outputs.hiding import hidden


def check_text(out: str | Path) -> None:
    """Raise unless the libraries that write can spell the output's path: it must be UTF-8."""
    try:
        str(out).encode()
    except UnicodeEncodeError:
        raise BitfoldError(
            f"the path {out} is no UTF-8, so it cannot be written to",
            got=str(out),
            expected="a path in UTF-8",
            fix="name another output, or change into its folder and name it from there",
        ) from None


def check_movable(out: Path) -> None:
    """Check that a folder can take the place of `out`.

    Raises:
        BitfoldError: a mount point never changes places, and a process that stands in a folder
            would stand nowhere.
    """
    here = Path.cwd()
    if out.is_mount():
        problem, got = f"{out} is a mount point, so no folder can take its place", "a mount point"
    elif out in (here, *here.parents):
        problem, got = f"the output {out} is the working directory, or holds it", f"{here}"
    else:
        return
    raise BitfoldError(
        problem,
        got=got,
        expected="a folder that can be made in one step",
        fix=f"name a folder in it, such as {out / 'out'}",
    )


@contextlib.contextmanager
def refusals(out: str | Path) -> Iterator[None]:
    """Tell a system's refusal to write `out` in one message; others (of an input) pass.

    Raises:
        BitfoldError: no room, no permission, no such folder.
    """
    try:
        yield
    except OSError as error:
        if not _concerns(error, Path(os.path.realpath(out))):
            raise
        raise cannot_write(out, error) from error


def _concerns(error: OSError, out: Path) -> bool:
    """Whether an error is about writing `out`: its place, a folder above it, or no name at all."""
    if not isinstance(error.filename, str | bytes | os.PathLike):
        return True
    path = Path(os.path.realpath(os.fsdecode(error.filename)))
    mine = (out, hidden(out))
    return path in (*mine, *out.parents) or any(each in path.parents for each in mine)
