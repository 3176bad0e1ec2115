"""Copies of remote files on this machine, shared by the processes that read them."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from bitfold.errors import BitfoldError
from bitfold.remote.paths import known_as
from bitfold.remote.systems import system_of, told


@contextlib.contextmanager
def copied(path: str) -> Iterator[list[Path]]:
    """Copies of what a remote path names."""
    system, name = system_of(path)
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
                names.enter_context(known_as(places[0], path))
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
                with told(path):
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
