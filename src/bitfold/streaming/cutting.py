"""The raw rows of a log, window by window: one window is on the disk, one chunk in memory."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitfold.data.columns import Encoder
from bitfold.data.config import DataConfig
from bitfold.data.files import find_files
from bitfold.data.memory_log import MemoryLog
from bitfold.data.reading import read_chunks
from bitfold.data.rows import Rows
from bitfold.data.spill import append_frame, each_frame
from bitfold.errors import BitfoldError
from bitfold.streaming.clock import Clock, Seconds, Span, number_of, span_of
from bitfold.streaming.config import WindowRule
from bitfold.terminal import printable

MOST_EMPTY = 1000
"""Windows without a row between two that have some; more, and the window is a wrong one."""

Numbers = npt.NDArray[np.int64]
Source = Sequence[str | Path] | MemoryLog


class WindowLog(MemoryLog):
    """The rows of one window, in a file of raw pieces that know which rows of the log they are."""

    def __init__(self, path: Path) -> None:
        super().__init__(None, 0, self._none, lambda columns, size: None)
        self._path = path
        self._pieces: list[tuple[Path, int, bool]] = []

    def add(self, rows: Rows) -> None:
        """Take in some rows of the log."""
        append_frame(self._path, rows.frame)
        self._pieces.append((rows.path, rows.first, rows.text))
        self._rows = self.rows + rows.height

    def read(
        self,
        config: DataConfig,
        required: Sequence[str],
        optional: Sequence[str] = (),
        chunk_rows: int = 0,
    ) -> Iterator[Rows]:
        """The rows in order, as they came."""
        done = 0
        for frame, (path, first, text) in zip(each_frame(self._path), self._pieces, strict=True):
            done += frame.height
            yield Rows(frame, path, first, text, done)

    def fingerprint(self, config: DataConfig) -> str:
        """Which rows they are."""
        path, first, _ = self._pieces[0]
        return f"{self.rows} rows from row {first + 1} of {printable(path.name)}"

    @staticmethod
    def _none(*given: Any) -> Iterator[Any]:
        return iter(())


@dataclass(frozen=True)
class Cut:
    """A window that has been read.

    Args:
        span: which one.
        rows: how many rows it has.
        log: its rows; None where it is empty, or nobody wanted them.
        done: how far the log is read, in the unit of `total_bytes`.
    """

    span: Span
    rows: int
    log: WindowLog | None
    done: int


class Cutter:
    """Cuts a log that is in time order.

    Args:
        paths: the log.
        config: how it is read.
        rule: how it is cut.
        spill: a file for the rows of one window at a time.
    """

    def __init__(self, paths: Source, config: DataConfig, rule: WindowRule, spill: Path) -> None:
        self._paths, self._config, self._rule, self._spill = paths, config, rule, spill
        self._clock = None if config.time is None else Clock(config.time)
        self._files: dict[Path, int] = {}
        if rule.kind == "file":
            self._files = _numbered(paths, config)
        self._titles = _titles(list(self._files))
        self._first: int | None = None
        self._row = 0  # of the whole log
        self._latest = -np.inf  # of the windows before this one
        self._highest = -np.inf

    def windows(self, wanted: Callable[[int], bool]) -> Iterator[Cut]:
        """The windows in order, empty ones included; each is to be used before the next is read.

        Args:
            wanted: whether the rows of a window of this number are wanted.

        Raises:
            BitfoldError: rows of an earlier window come after those of a later one; or whatever
                cannot be read.
        """
        required = Encoder(self._config).required
        if self._config.time is not None and self._config.time not in required:
            required = [*required, self._config.time]
        open_number, rows, log, done = -1, 0, None, 0
        for chunk in read_chunks(self._paths, self._config, required):
            numbers, times = self._numbers(chunk)
            self._check_order(numbers, open_number, chunk)
            for number, low, high in _runs(numbers):
                if number != open_number:
                    if open_number >= 0:
                        yield Cut(self._span(open_number), rows, log, done)
                        yield from self._empty(open_number, number, done)
                    self._spill.unlink(missing_ok=True)
                    open_number, rows, self._latest = number, 0, self._highest
                    log = WindowLog(self._spill) if wanted(number) else None
                part = Rows(
                    chunk.frame[low:high], chunk.path, chunk.first + low, chunk.text, chunk.done
                )
                self._check_time(times, low, high, chunk)
                rows += high - low
                if log is not None:
                    log.add(part)
            done = chunk.done
        if open_number < 0:
            raise BitfoldError("the log has no rows", got="no window", expected="at least one row")
        yield Cut(self._span(open_number), rows, log, done)
        yield from self._empty(open_number, self._end(open_number), done)
        self._spill.unlink(missing_ok=True)

    def _numbers(self, chunk: Rows) -> tuple[Numbers, Seconds | None]:
        """The window of each row, from 0 on, and its time."""
        times = None if self._clock is None else self._clock.read(chunk)
        if self._rule.kind == "file":
            number = self._files[chunk.path]
            found = np.full(chunk.height, number)
        elif self._rule.kind == "rows":
            found = (self._row + np.arange(chunk.height)) // int(self._rule.size)
        else:
            assert times is not None, "the time column is read"
            if self._rule.origin is None:
                self._rule = replace(self._rule, origin=float(times[0]))
            found = number_of(times, self._rule)
        self._row += chunk.height
        if self._first is None:
            self._first = int(found[0])
        return found - self._first, times

    def _check_order(self, numbers: Numbers, before: int, chunk: Rows) -> None:
        """Refuse a row of a window that is over."""
        latest = np.maximum.accumulate(np.maximum(numbers, before))
        if bool((numbers == latest).all()):
            return
        index = int((numbers != latest).argmax())
        raise self._late(chunk, index, self._name(int(numbers[index])), int(latest[index]))

    def _check_time(self, times: Seconds | None, low: int, high: int, chunk: Rows) -> None:
        """Refuse a row that is earlier than a window before its own; and see how late it grew."""
        if times is None or self._rule.kind == "time":
            return
        early = times[low:high] < self._latest
        if bool(early.any()):
            raise self._late(chunk, low + int(early.argmax()), "an earlier window", None)
        self._highest = max(self._highest, float(times[low:high].max()))

    def _late(self, chunk: Rows, index: int, where: str, after: int | None) -> BitfoldError:
        time = self._config.time
        value = "" if time is None else f", {time} {chunk.frame[time][index]!r}"
        then = "" if after is None else f" after rows of {self._name(after)}"
        return BitfoldError(
            "the log is not in time order",
            got=f"row {chunk.first + index + 1:,} of {chunk.path}{value}: of {where}{then}",
            expected="windows one after another; within a window rows come in any order",
            fix="sort the log by its time, name the files in order, or take a longer --window",
        )

    def _name(self, number: int) -> str:
        return self._span(number).name

    def _span(self, number: int) -> Span:
        if self._rule.kind == "time":
            first = self._first or 0
            return span_of(number + first, first, self._rule)
        if self._rule.kind == "rows":
            size = int(self._rule.size)
            return Span(number, f"rows {number * size + 1:,} to {(number + 1) * size:,}")
        at = number + (self._first or 0)
        return Span(number, self._titles[at])

    def _empty(self, last: int, following: int, done: int) -> Iterator[Cut]:
        """The windows without a row between two others."""
        if following - last - 1 > MOST_EMPTY:
            raise BitfoldError(
                "the window is too short for this log",
                got=f"{following - last - 1:,} windows without a row after {self._name(last)}",
                expected=f"at most {MOST_EMPTY:,}",
                fix="take a longer --window, or check the time column",
            )
        for number in range(last + 1, following):
            yield Cut(self._span(number), 0, None, done)

    def _end(self, last: int) -> int:
        """The number after the last window: files without a row count."""
        return len(self._files) - (self._first or 0) if self._files else last + 1


def _titles(files: Sequence[Path]) -> list[str]:
    """What the windows of files are called: their names, or paths where names repeat.

    Example:
        >>> _titles([Path("log/a.csv"), Path("log/b.csv")])
        ['a.csv', 'b.csv']
        >>> _titles([Path("log/day=1/part.csv"), Path("log/day=2/part.csv")])
        ['day=1/part.csv', 'day=2/part.csv']
    """
    names = [path.name for path in files]
    if len(set(names)) < len(names):
        above = Path(os.path.commonpath([path.parent for path in files]))
        names = [str(path.relative_to(above)) for path in files]
    return [printable(name) for name in names]


def _runs(numbers: Numbers) -> list[tuple[int, int, int]]:
    """Where numbers that do not fall stay the same: `(number, first, end)`.

    Example:
        >>> _runs(np.array([4, 4, 7]))
        [(4, 0, 2), (7, 2, 3)]
    """
    ends = [*(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
    starts = [0, *ends[:-1]]
    return [(int(numbers[low]), low, high) for low, high in zip(starts, ends, strict=True)]


def _numbered(paths: Source, config: DataConfig) -> dict[Path, int]:
    if isinstance(paths, MemoryLog):
        raise BitfoldError(
            "rows in memory have no files",
            got="window file",
            expected="a span of time, or rows such as 500000r",
        )
    files = find_files(paths, config)
    found = {file.path: number for number, file in enumerate(files)}
    if len(found) < len(files):
        raise BitfoldError(
            "a file is named twice",
            got=", ".join(str(file.path) for file in files)[:200],
            expected="each file once: it is a window",
        )
    return found
