"""The windows of a stream, each prepared when its turn comes."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bitfold.data.config import DataConfig
from bitfold.data.forks import need_polars
from bitfold.data.prepare import prepare
from bitfold.data.prepared import PreparedLog, is_prepared
from bitfold.data.reading import total_bytes
from bitfold.data.schema import Schema
from bitfold.errors import BitfoldError
from bitfold.progress import Progress, reading
from bitfold.streaming.clock import Span
from bitfold.streaming.config import WindowRule
from bitfold.streaming.cutting import Cutter, Source

SPILL = "window.arrow"


@dataclass(frozen=True)
class Window:
    """A window whose turn it is.

    Args:
        span: which one.
        rows: how many rows it has.
        log: its rows, prepared; None where it has none, or is one that was trained on before.
        share: how much of the log is read.
    """

    span: Span
    rows: int
    log: PreparedLog | None
    share: float


class Windows:
    """Cuts a raw log and prepares each window in a folder of its own.

    Args:
        paths: the raw log.
        config: how it is read, with the split of a window.
        rule: how it is cut.
        folder: where windows are prepared.
        progress: told how far reading and preparing are.
    """

    def __init__(
        self, paths: Source, config: DataConfig, rule: WindowRule, folder: Path, progress: Progress
    ) -> None:
        need_polars("stream")
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self._config, self._tell = config, progress
        self._total = total_bytes(paths, config)
        self._cutter = Cutter(paths, config, rule, folder / SPILL)
        self.schema: Schema | None = None

    def after(self, trained: int) -> Iterator[Window]:
        """All windows in order; those that were trained on come without their rows."""

        def wanted(number: int) -> bool:
            return number >= trained and not is_prepared(self.place(number))

        for cut in self._cutter.windows(wanted):
            place, log = self.place(cut.span.number), None
            if cut.rows and cut.span.number >= trained:
                log = self._prepared(cut.span, cut.log, place)
                if log.rows["train"] != cut.rows:
                    raise other_log(f"{cut.rows:,} rows of {cut.span.name}", log.rows["train"])
                self.schema = self.schema or log.schema
            yield Window(cut.span, cut.rows, log, cut.done / max(self._total, 1))

    def place(self, number: int) -> Path:
        """The folder of a window."""
        return self.folder / f"{number:05d}"

    def remove(self, number: int) -> None:
        """Forget a window that was trained on."""
        shutil.rmtree(self.place(number), ignore_errors=True)

    def _prepared(self, span: Span, rows: Source | None, place: Path) -> PreparedLog:
        if rows is None:
            return PreparedLog(place)

        def tell(stage: str, done: int, total: int | None = None, **facts: object) -> None:
            self._tell(f"{span.name}: {stage.partition(': ')[2]}", done, total, **facts)

        shutil.rmtree(place, ignore_errors=True)  # what is left of one that is not whole
        return prepare(
            rows, place, self._config, schema=self.schema, window=True, progress=reading(tell)
        )


def other_log(got: str, expected: object) -> BitfoldError:
    """The error for a log that has changed since the stream began."""
    return BitfoldError(
        "the log is not the one that the stream began with",
        got=got,
        expected=str(expected),
        fix="put the old log back, or begin anew with --force",
    )
