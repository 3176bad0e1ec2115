"""One way to write an output: it appears when it is whole, and what it replaces stays till then."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from bitfold.errors import BitfoldError
from bitfold.files import whole
from bitfold.outputs.kinds import Kind
from bitfold.outputs.overlap import refuse_overlap
from bitfold.outputs.place import hold
from bitfold.outputs.refusals import check_movable, refusals

Inputs = Iterable[str | Path | None]


@contextlib.contextmanager
def new_file(
    out: str | Path, *, force: bool = False, inputs: Inputs = (), wait: bool = False
) -> Iterator[Path]:
    """Give a path to write; on leaving without an error it becomes `out`.

    Args:
        out: the file. A symbolic link stays, and the file that it points to is written.
        force: replace a file that is there.
        inputs: what is read for it: none of them may be `out`.
        wait: wait for another process that writes `out`, instead of raising.

    Raises:
        BitfoldError: `out` is there, is a folder, is an input, or cannot be written. Whatever
            is raised, what stood at `out` is as it was, and nothing is left behind.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with new_file(Path(folder, "scores.csv")) as path:
        ...         _ = path.write_text("score")
        ...     [file.name for file in Path(folder).iterdir()]
        ['scores.csv']
    """
    with refusals(out), hold(out, wait=wait) as place:
        if place.out.is_dir():
            raise BitfoldError(f"{out} is a folder", got="a folder", expected="a file's name")
        refuse_overlap(out, inputs)
        if os.path.lexists(place.out) and not force:
            raise _exists(out, "a file in the way")
        with whole(place.making):
            yield place.making
        place.put(force=force)


@contextlib.contextmanager
def new_folder(
    out: str | Path, kind: Kind, *, force: bool = False, inputs: Inputs = ()
) -> Iterator[Path]:
    """Give an empty folder to fill; on leaving without an error it becomes `out`.

    Args:
        out: the folder. A symbolic link stays, and the folder that it points to is written.
        kind: what it will be, and what may be replaced.
        force: replace a folder of this kind that is there.
        inputs: what is read for it: none may be `out`, lie inside it, or around it.

    Raises:
        BitfoldError: `out` is there, is something else, overlaps an input, or cannot be written.
            Whatever is raised, what stood at `out` is as it was, and nothing is left behind.
    """
    with refusals(out), hold(out) as place:
        check_free(place.out, kind, force=force)
        check_movable(place.out)
        refuse_overlap(out, inputs)
        place.making.mkdir()
        yield place.making
        place.put(kind, force=force)


def check_free(out: Path, kind: Kind, *, force: bool) -> None:
    """Check that a folder may be written at `out`.

    Raises:
        BitfoldError: something else is there, or one of this kind and `force` is not said, or one
            with foreign files in it.
    """
    if is_free(out):
        return
    check_kind(out, kind)
    if not force:
        raise _exists(out, f"a {kind.what}")
    kind.check_no_foreign(out)


def is_free(out: Path) -> bool:
    """Whether nothing is there, or an empty folder."""
    return not os.path.lexists(out) or (out.is_dir() and not any(out.iterdir()))


def check_kind(out: Path, kind: Kind) -> None:
    """Check that what is at `out` is of this kind.

    Raises:
        BitfoldError: it is something else.
    """
    if out.is_dir() and kind.begun(out):
        return
    held = ", ".join(sorted(file.name for file in out.iterdir())[:5]) if out.is_dir() else ""
    raise BitfoldError(
        f"{out} exists and is no {kind.what}, so it is left alone",
        got=f"a folder with {held}" if held else "a file",
        expected="a new or empty folder",
        fix="name another output",
    )


def _exists(out: str | Path, got: str) -> BitfoldError:
    return BitfoldError(
        f"{out} exists already",
        got=got,
        expected="a name that is free",
        fix="say --force to replace it, or name another output",
    )
