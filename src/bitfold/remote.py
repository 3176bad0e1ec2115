"""Paths with a scheme (`s3://`, `gs://`, `https://`, ...): fetched before, sent after, by fsspec.

An input is copied to a temporary folder, whole, and read there; an output is made in a temporary
folder and sent when it is whole, its manifest last. So every command and function takes such paths,
and what is read and written on the disk is checked as ever. `file://` is a plain path.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from bitfold.errors import BitfoldError

_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]+)://")
LAST = ("log.json", "results.json", "manifest.json")
"""Files that say that the others are whole: they are sent last."""


def is_remote(path: object) -> bool:
    """Whether a path has a scheme other than `file://`.

    Example:
        >>> is_remote("s3://logs/day=1/*.csv.gz"), is_remote("file:///tmp/x"), is_remote("x.csv")
        (True, False, False)
    """
    found = _SCHEME.match(path) if isinstance(path, str) else None
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
    if not any(isinstance(path, str) and _SCHEME.match(path) for path in paths):
        yield data
        return
    with contextlib.ExitStack() as stack:
        yield [
            place
            for path in paths
            for place in (
                stack.enter_context(_fetched(path))
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
        with _known_as(place, out):
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
    system, name = _system(out)
    with _told(out):
        if system.exists(name) and not force:
            raise BitfoldError(
                f"{out} exists",
                got="something in the way",
                expected="a new place",
                fix="name another, or say --force to replace it",
            )


_NAMES: list[tuple[str, str]] = []
"""Places on this machine, and the paths that the user knows them by."""


@contextlib.contextmanager
def _known_as(place: Path, path: str) -> Iterator[None]:
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


@contextlib.contextmanager
def changed(out: str) -> Iterator[Path]:
    """A copy of a remote folder; what the block makes or changes in it is sent back."""
    with _fetched(out) as (place, *_):
        before = {file: file.stat().st_mtime_ns for file in place.rglob("*") if file.is_file()}
        yield place
        system, name = _system(out)
        for file in sorted(place.rglob("*")):
            if file.is_file() and before.get(file) != file.stat().st_mtime_ns:
                with _told(out):
                    system.put_file(str(file), f"{name}/{file.relative_to(place).as_posix()}")


def _system(path: str) -> tuple[Any, str]:
    """The file system of a scheme, and the path as it names it."""
    try:
        import fsspec
    except ImportError as error:
        raise BitfoldError(
            f"{path} needs a package that is not installed",
            got=str(error),
            expected="fsspec",
            fix="pip install 'bitfold[remote]'",
        ) from None
    try:
        system, name = fsspec.url_to_fs(path)
    except ImportError as error:
        raise BitfoldError(
            f"{path} needs a package that is not installed",
            got=str(error),
            expected=f"the fsspec package for {path.partition('://')[0]}://",
            fix="install it with pip (s3fs for s3://, gcsfs for gs://, adlfs for abfs://)",
        ) from None
    except ValueError as error:
        raise BitfoldError(
            f"{path} has a scheme that is not known",
            got=str(error),
            expected="a path, or a scheme of fsspec: s3://, gs://, https://, ...",
        ) from None
    return system, str(name)


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """Say which place refused, whatever its package raises."""
    try:
        yield
    except BitfoldError:
        raise
    except FileNotFoundError:
        raise BitfoldError(
            f"{path} does not exist", got="no such file", fix="check the path"
        ) from None
    except NotImplementedError:
        raise BitfoldError(
            f"{path} cannot be written", got="a place that is only read", fix="name another place"
        ) from None
    except Exception as error:  # each package has errors of its own
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BitfoldError(
            f"{path} cannot be reached",
            got=f"{type(error).__name__}: {text}",
            expected="a place that answers, and that you may use",
            fix="check the path, the network and your credentials",
        ) from error


@contextlib.contextmanager
def _fetched(path: str) -> Iterator[list[Path]]:
    """Copies of what a remote path names."""
    system, name = _system(path)
    home = Path(tempfile.gettempdir()) / f"bitfold-{os.getuid()}-fetched"
    folder = home / hashlib.sha256(path.encode()).hexdigest()[:24]
    home.mkdir(mode=0o700, exist_ok=True)
    if home.stat().st_uid != os.getuid():
        raise BitfoldError(f"{home} belongs to somebody else", fix="set TMPDIR to another folder")
    for left in home.glob("*.lock"):  # of processes that were killed
        if left.stem != folder.name:
            with contextlib.suppress(OSError):
                _drop(os.open(left, os.O_RDWR), left)
    lock, places = _held(system, name, folder, path)
    try:
        with contextlib.ExitStack() as names:
            if len(places) == 1:
                names.enter_context(_known_as(places[0], path))
            yield places
    finally:
        _drop(lock, folder.with_suffix(".lock"))


def _drop(lock: int, file: Path) -> None:
    """Let go of copies, and remove them unless somebody still reads them."""
    if _is_free(lock):
        shutil.rmtree(file.with_suffix(""), ignore_errors=True)
        file.unlink(missing_ok=True)
    os.close(lock)


def _held(system: Any, name: str, folder: Path, path: str) -> tuple[int, list[Path]]:
    """A shared lock on the copies of a path, made now or by another process, and their places."""
    file, list_ = folder.with_suffix(".lock"), folder / ".places.json"
    while True:
        lock = os.open(file, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            if _is_free(lock):  # else somebody copies it, or reads a copy
                with _told(path):
                    places = _copy(system, name, folder, path)
                    text = json.dumps([str(place) for place in places])
                    list_.write_text(text, encoding="utf-8")
            fcntl.flock(lock, fcntl.LOCK_SH)
            # Whoever was last may have removed all of it between the two locks.
            same = file.exists() and os.fstat(lock).st_ino == file.stat().st_ino
            if same and list_.is_file():
                found = json.loads(list_.read_text(encoding="utf-8"))
                return lock, [Path(place) for place in found]
        except BaseException:
            _drop(lock, file)
            raise
        os.close(lock)


def _is_free(lock: int) -> bool:
    """Take a lock for this process alone; False if others hold it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _copy(system: Any, name: str, folder: Path, path: str) -> list[Path]:
    if system.isdir(name):
        inside = [str(file) for file in system.find(name)]
        root = name.rstrip("/")
        top = folder / PurePosixPath(root).name
        for file in inside:
            relative = PurePosixPath(file).relative_to(PurePosixPath(root))
            if ".." in relative.parts:
                raise BitfoldError(
                    f"{path} lists a file outside of it", got=file, expected=f"names below {root}"
                )
            _copy_file(system, file, top.joinpath(*relative.parts))
        if not inside:
            raise FileNotFoundError(path)
        return [top]
    names = system.glob(name) if any(sign in name for sign in "*?[") else [name]
    files = [str(file) for file in sorted(names) if system.isfile(file)]
    if not files:
        raise BitfoldError(
            f"no file matches {path}" if name not in names else f"{path} does not exist",
            got="nothing",
            expected="one or more files",
            fix="check the path",
        )
    places = []
    for number, file in enumerate(files):
        at = folder / f"{number:05d}" if len(files) > 1 else folder
        places.append(at / PurePosixPath(file.split("?")[0]).name)
        _copy_file(system, file, places[-1])
    return places


def _copy_file(system: Any, name: str, place: Path) -> None:
    """Copy one file, and give it its source's time."""
    place.parent.mkdir(parents=True, exist_ok=True)
    info = system.info(name)
    made: Any = info.get("mtime") or info.get("LastModified") or info.get("created") or 0
    seconds = float(made.timestamp()) if hasattr(made, "timestamp") else 0.0
    if isinstance(made, int | float):
        seconds = float(made)
    part = place.with_name(f".{place.name}.part")
    system.get_file(name, str(part))
    os.utime(part, (seconds, seconds))
    part.replace(place)


def send(place: Path, out: str) -> None:
    """Send a file, or a folder's files with what names them last."""
    system, name = _system(out)
    files = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]
    files = [file for file in files if not file.name.startswith(".")]
    files.sort(key=lambda file: (file.name in LAST and file.parent == place, str(file)))
    with _told(out):
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
