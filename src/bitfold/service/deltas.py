"""`POST /delta`: the run that answers becomes the next one, of a small file that a client sends.

The new run is made in a folder of such runs, found to be the right one to the byte, loaded and
warmed while the old one answers. Whatever is wrong with a delta, nothing of it is left.
"""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bitfold.errors import BitfoldError
from bitfold.service.models import Scorer
from bitfold.service.sources import Source

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass
class Deltas:
    """Runs made of deltas.

    Args:
        folder: where they are kept, each by its digest; made if it is not there.
        served: the folder of the run that answers; it is the base of the next delta.
    """

    folder: Path
    served: Path
    _made: Path | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BitfoldError(
                "the folder of --deltas cannot be made", got=f"{self.folder}: {error.strerror}"
            ) from None

    def loading(self, delta: bytes, current: Scorer | None) -> Callable[[], Scorer]:
        """What makes the next run and loads it; it gives `current` back where that is the run."""

        def load() -> Scorer:
            from bitfold.runs.delta import applied
            from bitfold.runs.delta_file import read_delta

            path = self.folder / f".incoming-{os.getpid()}.delta"
            try:
                path.write_bytes(delta)
                if current is not None and read_delta(path).result == current.digest:
                    return current
                self._made = applied(self.served, path, self.folder)
            finally:
                path.unlink(missing_ok=True)
            return Source(self._made).loading()()

        return load

    def settle(self, path: Path | None, *, answers: bool) -> None:
        """After a swap: remember what answers, and remove a run of deltas that does no more.

        Args:
            path: the folder that was to answer; None for the run that was made last.
            answers: whether it does.
        """
        new, self._made = (self._made, None) if path is None else (path, None)
        gone = new
        if answers and new is not None:
            gone, self.served = self.served, new
        if (
            gone is not None
            and gone != self.served
            and gone.parent == self.folder
            and _DIGEST.fullmatch(gone.name)
        ):
            shutil.rmtree(gone, ignore_errors=True)
