"""The place of one output: held by a lock, filled in one step.

Whatever bitfold writes is made in a hidden folder beside its place and takes it by a rename:

    .NAME.bitfold/lock         held (flock) by the process that works on NAME
    .NAME.bitfold/making       the output while it is made; worthless if its process dies
    .NAME.bitfold/unfinished   work that can be resumed: the training of `train --force`
    .NAME.bitfold/beside       a small file that goes with it, such as the report of `synth`
    .NAME.bitfold/old          what was replaced, or given up: about to be removed
    .NAME.bitfold/placing      which of these is taking the place of NAME right now

What a killed process leaves there is put in order by the next one that works on NAME; a lock
that is held keeps all others away. If NAME is a symbolic link, all this happens where it points.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from bitfold.errors import BitfoldError
from bitfold.files import remove_parts, sync_folder, write_json
from bitfold.outputs.hiding import BESIDE, LOCK, MAKING, OLD, PLACING, SUFFIX, UNFINISHED, hidden
from bitfold.outputs.kinds import Kind
from bitfold.outputs.refusals import check_text
from bitfold.outputs.renames import exchange, rename_new


class Place:
    """Where one output goes, while this process holds it.

    Attributes:
        out: the output, links followed.
        making: where to make it.
        unfinished: where unfinished work is kept.
        beside: where to make a file that goes beside the output.
        keep: whether what is in `unfinished` outlives this process.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = hidden(out)
        self.making = self.folder / MAKING
        self.unfinished = self.folder / UNFINISHED
        self.beside = self.folder / BESIDE
        self.keep = True
        self._old = self.folder / OLD
        self._placing = self.folder / PLACING

    def put(
        self,
        kind: Kind | None = None,
        *,
        source: Path | None = None,
        beside: str | None = None,
        force: bool = True,
    ) -> None:
        """Let what was made take its place; what stands there leaves it in the same step.

        Args:
            kind: for a folder, what may be replaced: one with foreign files may not.
            source: what was made, if not `making`.
            beside: the name for the file in `beside`, if there is one. It follows the output; a
                process that dies in between leaves it to the next.
            force: whether something may stand there.

        Raises:
            BitfoldError: a folder stands where a file should be, or the other way round, or there
                are foreign files, or `force` is not said and something has come to stand there.
            OSError: the system refuses; the old output is as it was.
        """
        source = source or self.making
        there = os.path.lexists(self.out)
        if there and (not force or self.out.is_dir() != source.is_dir()) and not self._empty():
            raise _in_the_way(self.out)
        if there and kind is not None and source.is_dir():
            kind.check_no_foreign(self.out)
        if beside is not None or (force and source.is_dir() and there):
            self._write_journal(source, beside)
        try:
            if not force or not there:
                rename_new(source, self.out)
            elif source.is_dir():
                self._change_places(source)
            else:
                source.replace(self.out)
        except OSError as error:
            if there and not os.path.lexists(self.out):
                self._old.rename(self.out)
            self._placing.unlink(missing_ok=True)
            if isinstance(error, FileExistsError):
                raise _in_the_way(self.out) from None
            raise
        if kind is not None and source.is_dir():
            self._bring_back(kind, source)
        if beside is not None:
            self.beside.replace(self.out.with_name(beside))
        self._sync()

    def _empty(self) -> bool:
        return self.out.is_dir() and not any(self.out.iterdir())

    def give_up(self) -> None:
        """Give up the unfinished work, in one step; it is removed afterwards."""
        self.unfinished.rename(self._old)

    def take_away(self) -> None:
        """Take the folder at `out` out of its place in one step; it is removed afterwards."""
        self.out.rename(self._old)

    def settle(self) -> None:
        """Put in order what was interrupted: complete a change of places, remove leftovers."""
        journal = self._read_journal()
        if journal is not None:
            source, number, beside = journal
            if _number(self.out) != number and _number(source) == number:
                self._change_places(source)
            if beside is not None and self.beside.exists():
                self.beside.replace(self.out.with_name(beside))
            _remove(source)  # the new one stands in its place: this is what it replaced
            self._placing.unlink()
        for left in (self.making, self.beside, self._old):
            _remove(left)
        if not self.keep:
            _remove(self.unfinished)
        remove_parts(self.folder)

    def _bring_back(self, kind: Kind, replaced: Path) -> None:
        """Save foreign files that came into the old folder in the moment before it was replaced."""
        for name in kind.foreign(replaced):
            target = self.out / name
            target.parent.mkdir(parents=True, exist_ok=True)
            rename_new(replaced / name, target)

    def _change_places(self, source: Path) -> None:
        if os.path.lexists(self.out) and not exchange(source, self.out):
            # Two renames. A process that dies in between leaves `placing`, which says how the
            # next one completes them.
            self.out.rename(self._old)
        if _number(self.out) is None:
            source.rename(self.out)

    def _write_journal(self, source: Path, beside: str | None) -> None:
        journal = {"source": source.name, "number": _number(source), "beside": beside}
        write_json(self._placing, journal)

    def _read_journal(self) -> tuple[Path, int, str | None] | None:
        try:
            journal = json.loads(self._placing.read_text(encoding="utf-8"))
            source, number, beside = (journal[name] for name in ("source", "number", "beside"))
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return (self.folder / source, number, beside) if source in (MAKING, UNFINISHED) else None

    def _sync(self) -> None:
        sync_folder(self.out.parent)


@contextlib.contextmanager
def hold(out: str | Path, *, wait: bool = False) -> Iterator[Place]:
    """Hold the place of an output: nobody else can, until the block ends.

    Args:
        out: the output. Folders above it are made, and removed again if nothing came of it.
        wait: wait for another process that holds it.

    Raises:
        BitfoldError: another process holds it.
        OSError: the system refuses.
    """
    check_text(out)
    place = Place(Path(os.path.realpath(out)))
    made = _make_parents(place.out.parent)
    try:
        lock = _lock(place, wait)
        try:
            place.settle()
            yield place
        finally:
            try:
                place.settle()
            finally:
                _unlock(place, lock)
    finally:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def sweep(folder: Path) -> None:
    """Put in order what dead processes left beside the outputs in `folder`."""
    for found in folder.glob(f".*{SUFFIX}"):
        with contextlib.suppress(BitfoldError, OSError), hold(_output_of(found)):
            pass


def settle(out: str | Path) -> None:
    """Put in order what a dead process left beside `out`; a living one is left alone."""
    if hidden(Path(os.path.realpath(out))).is_dir():
        with contextlib.suppress(BitfoldError, OSError), hold(out):
            pass


def _output_of(folder: Path) -> Path:
    return folder.with_name(folder.name[1 : -len(SUFFIX)])


def _lock(place: Place, wait: bool) -> int:
    path = place.folder / LOCK
    while True:
        try:
            place.folder.mkdir(exist_ok=True)
            lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        except FileNotFoundError:  # its last holder has just removed the folder
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _number(path) == os.fstat(lock).st_ino:
                os.truncate(lock, 0)
                os.write(lock, str(os.getpid()).encode())
                return lock
        except BlockingIOError:
            owner = os.read(lock, 32).decode(errors="replace")
            os.close(lock)
            raise BitfoldError(
                f"another process is writing {place.out}",
                got=f"process {owner}" if owner.isdigit() else None,
                expected="one at a time",
                fix="wait until it has ended, or name another output",
            ) from None
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _unlock(place: Place, lock: int) -> None:
    """Let go. The lock is removed while it is held, so that nobody holds a removed one."""
    try:
        if not os.path.lexists(place.unfinished):
            (place.folder / LOCK).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                place.folder.rmdir()
    finally:
        os.close(lock)


def _number(path: Path) -> int | None:
    """What tells a file or folder from any other under the same name; None if there is none."""
    try:
        return path.lstat().st_ino
    except OSError:
        return None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _make_parents(folder: Path) -> list[Path]:
    """Make a folder and those above it; returns the new ones, the innermost first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
    return missing


def _in_the_way(out: Path) -> BitfoldError:
    return BitfoldError(
        f"something else has come to stand at {out} meanwhile, so it is left alone",
        got="a folder" if out.is_dir() else "a file",
        fix="move it, or name another output",
    )
