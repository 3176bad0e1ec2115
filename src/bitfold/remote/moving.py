"""What is fetched before work and sent after it."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from bitfold.errors import BitfoldError
from bitfold.remote.copies import copied
from bitfold.remote.paths import SCHEME, is_remote, known_as, local_path
from bitfold.remote.systems import system_of, told

LAST = ("log.json", "results.json", "manifest.json")
"""Files that say that the others are whole: they are sent last."""


@contextlib.contextmanager
def fetched(data: Any) -> Iterator[Any]:
    """What is to be read, on this machine: paths with a scheme are copied until the block ends.

    Patterns are matched there; a folder comes with all that is in it. A copy lies in the same place
    each time and has the time of its source, so that work that is resumed knows it again.

    Args:
        data: a path or pattern, or a list of them; whatever else there is to read.

    Yields:
        The list of paths if any of them has a scheme; else `data` as it is.

    Raises:
        BitfoldError: the package of a scheme is missing, or the place refuses or has no such file.

    Example:
        >>> with fetched("file:///data/a.csv") as places:
        ...     places
        ['/data/a.csv']
    """
    paths = data if isinstance(data, list | tuple) else [data]
    if not any(isinstance(path, str) and SCHEME.match(path) for path in paths):
        yield data
        return
    with contextlib.ExitStack() as stack:
        yield [
            place
            for path in paths
            for place in (
                stack.enter_context(copied(path))
                if is_remote(path)
                else [local_path(path) if isinstance(path, str) else path]
            )
        ]


@contextlib.contextmanager
def sent(out: str, *, force: bool = False, resume: bool = False) -> Iterator[Path]:
    """A place on this machine whose file or folder is sent to `out` when the block ends well.

    Raises:
        BitfoldError: something is there and `force` was not said, or the place refuses.
    """
    check_free(out, force=force, resume=resume)
    with tempfile.TemporaryDirectory(prefix="bitfold-") as folder:
        place = Path(folder) / PurePosixPath(out.rstrip("/")).name
        with known_as(place, out):
            yield place
            if place.exists():
                send(place, out)


def check_free(out: str, *, force: bool = False, resume: bool = False) -> None:
    """Raise unless `out` can be made: nothing is there, or `force` was said."""
    if resume:
        raise BitfoldError(
            "resume needs a folder on this machine",
            got=out,
            expected="the folder that the work was stopped in",
            fix="work there, and copy what is finished",
        )
    system, name = system_of(out)
    with told(out):
        if system.exists(name) and not force:
            raise BitfoldError(
                f"{out} exists",
                got="something in the way",
                expected="a new place",
                fix="name another, or say --force to replace it",
            )


@contextlib.contextmanager
def changed(out: str) -> Iterator[Path]:
    """A copy of a remote folder; what the block makes or changes in it is sent back."""
    with copied(out) as (place, *_):
        before = {file: file.stat().st_mtime_ns for file in place.rglob("*") if file.is_file()}
        yield place
        system, name = system_of(out)
        for file in sorted(place.rglob("*")):
            if file.is_file() and before.get(file) != file.stat().st_mtime_ns:
                with told(out):
                    system.put_file(str(file), f"{name}/{file.relative_to(place).as_posix()}")


def send(place: Path, out: str) -> None:
    """Send a file, or a folder's files with what names them last."""
    system, name = system_of(out)
    files = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]
    files = [file for file in files if not file.name.startswith(".")]
    files.sort(key=lambda file: (file.name in LAST and file.parent == place, str(file)))
    with told(out):
        if place.is_dir():
            for last in LAST:  # a half replaced folder is never taken for a whole one
                if system.exists(f"{name.rstrip('/')}/{last}"):
                    system.rm_file(f"{name.rstrip('/')}/{last}")
        for file in files:
            at = name
            if file != place:
                at = f"{name.rstrip('/')}/{file.relative_to(place).as_posix()}"
            with contextlib.suppress(NotImplementedError):
                system.makedirs(at.rpartition("/")[0], exist_ok=True)
            system.put_file(str(file), at)
