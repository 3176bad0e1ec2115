"""Work that can be interrupted and resumed: a training, a comparison.

Where nothing stands, it is done in its own place, where it can be watched: the folder is born with
what `begin` writes, so it is never without the file that tells what it is. Where `--force` has
it replace something, it is done in the hidden folder (`place.Place.unfinished`), and takes the
place of the old one when it is whole; until then it can be resumed there.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from bitfold.errors import BitfoldError
from bitfold.outputs.hiding import UNFINISHED, hidden
from bitfold.outputs.kinds import Kind
from bitfold.outputs.making import check_kind, is_free
from bitfold.outputs.place import Place, hold, settle
from bitfold.outputs.refusals import check_movable, refusals


class Work:
    """One piece of work that this process holds.

    Attributes:
        folder: where it is done.
        fresh: whether it has just begun.
        discarded: whether it came to nothing.
    """

    def __init__(self, place: Place, kind: Kind, folder: Path, *, fresh: bool) -> None:
        self._place = place
        self._kind = kind
        self.folder = folder
        self.fresh = fresh
        self.discarded = False

    @property
    def hidden(self) -> bool:
        """Whether it will replace something, and is done out of sight."""
        return self.folder == self._place.unfinished

    def finish(self) -> None:
        """It is whole: let it take its place."""
        if self.hidden:
            with refusals(self._place.out):
                self._place.put(self._kind, source=self.folder)

    def discard(self) -> None:
        """It came to nothing: remove what it made. What it would have replaced stays."""
        self.discarded = True
        if self.hidden:
            self._place.keep = False
        elif self._kind.foreign(self.folder):
            self._kind.remove(self.folder)
        else:
            self._place.take_away()


@contextlib.contextmanager
def work(
    out: str | Path,
    kind: Kind,
    begin: Callable[[Path], object],
    *,
    resume: bool = False,
    force: bool = False,
    ended: Callable[[Path], bool] = lambda folder: False,
) -> Iterator[Work]:
    """Hold `out`, and begin work there or go on with it.

    Args:
        out: the folder.
        kind: what it will be.
        begin: writes into a new folder what makes it one of this kind.
        resume: go on with what was begun; begin if there is nothing.
        force: begin anew; what is there is replaced when the new one is whole.
        ended: whether a folder of this kind is finished (for the message).

    Raises:
        BitfoldError: there is something else, or work and neither `resume` nor `force` is said;
            another process works there; the system refuses.
    """
    with refusals(out), hold(out) as place:
        yield _entered(place, kind, begin, resume, force, ended)


def under_way(out: str | Path, kind: Kind, *, tidy: bool = True) -> Path | None:
    """The folder of work on `out` that `resume` would go on with; None if there is none.

    A finished one counts: there is just nothing left to do. With `tidy`, what a dead process left
    is put in order first.
    """
    if tidy:
        settle(out)
    real = Path(out).resolve()
    folders = (hidden(real) / UNFINISHED, real)
    return next((folder for folder in folders if kind.begun(folder)), None)


def _entered(
    place: Place,
    kind: Kind,
    begin: Callable[[Path], object],
    resume: bool,
    force: bool,
    ended: Callable[[Path], bool],
) -> Work:
    out, free = place.out, is_free(place.out)
    if not free:
        check_kind(out, kind)
    pending = kind.begun(place.unfinished)
    if resume and (pending or not free):
        return Work(place, kind, place.unfinished if pending else out, fresh=False)
    if not force and (pending or not free):
        raise _stands(out, kind, pending, not free and ended(out))
    if not free:
        kind.check_no_foreign(out)
    check_movable(out)
    place.making.mkdir()
    begin(place.making)
    if free:
        place.keep = False
        place.put(force=False)
        return Work(place, kind, out, fresh=True)
    if pending:
        place.give_up()
    place.making.rename(place.unfinished)
    return Work(place, kind, place.unfinished, fresh=True)


def _stands(out: Path, kind: Kind, pending: bool, ended: bool) -> BitfoldError:
    finished = f"a finished {kind.what}" if ended else f"a {kind.what} that has not ended"
    if pending:
        return BitfoldError(
            f"{out} has a {kind.what} under way that has not ended",
            got=f"one that --force began beside {finished}",
            expected="to go on with it, or to begin anew",
            fix="say --resume to go on, or --force to begin anew",
        )
    return BitfoldError(
        f"{out} exists already",
        got=finished,
        expected="a new folder",
        fix="say --force to replace it"
        if ended
        else "say --resume to go on, or --force to replace it",
    )
