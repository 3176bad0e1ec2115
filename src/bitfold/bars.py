"""Draw progress on stderr: bars on a terminal, sparse plain lines elsewhere.

Both listen as `bitfold.progress.Progress` does: `draw(stage, done, total, **facts)`.
"""

import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from bitfold.progress import Progress as Listener
from bitfold.progress import is_first_process, silent
from bitfold.terminal import printable

QUIET_SECONDS = 15.0  # a file of progress needs a line only now and then
REDRAW_SECONDS = 0.1


@contextmanager
def drawing(
    keep: Collection[str] | None = None, stream: TextIO | None = None
) -> Iterator[Listener]:
    """A listener that draws while the block runs.

    Args:
        keep: the stages whose bars stay once another begins; None keeps all.
        stream: where to draw; stderr if not said.
    """
    if not is_first_process():
        yield silent
        return
    console = Console(file=stream or sys.stderr)
    if not console.is_terminal:
        yield Lines(keep, stream or sys.stderr)
        return
    with Progress(*columns(), console=console, refresh_per_second=5) as bars:
        yield Bars(keep, bars)


def columns() -> tuple[ProgressColumn, ...]:
    """What a bar's line holds: the stage, the bar, the count, the time left, facts."""
    return (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[count]}"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("[dim]{task.fields[facts]}"),
    )


class Bars:
    """The terminal's listener: one bar a stage."""

    def __init__(self, keep: Collection[str] | None, bars: Progress) -> None:
        self._keep = keep
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._drawn = 0.0

    def __call__(self, stage: str, done: int, total: int | None = None, **facts: object) -> None:
        """Move the stage's bar."""
        new = stage not in self._tasks
        if new:
            self._begin(stage, total)
        now = time.monotonic()
        if not new and done != total and now - self._drawn < REDRAW_SECONDS:
            return
        self._drawn = now
        self._bars.update(
            self._tasks[stage],
            completed=done,
            total=total,
            count=count(done, total, facts),
            facts=escape(told(facts)),
        )

    def _begin(self, stage: str, total: int | None) -> None:
        if self._keep is not None and stage not in self._keep:
            for other in [name for name in self._tasks if name not in self._keep]:
                self._bars.remove_task(self._tasks.pop(other))
        self._tasks[stage] = self._bars.add_task(
            escape(printable(stage)), total=total, count="", facts=""
        )


class Lines:
    """The listener where there is no terminal: a line at a stage's end, and now and then."""

    def __init__(self, keep: Collection[str] | None, stream: TextIO) -> None:
        self._keep = keep
        self._stream = stream
        self._last = time.monotonic()
        self._ended: set[tuple[str, int]] = set()

    def __call__(self, stage: str, done: int, total: int | None = None, **facts: object) -> None:
        """Write a line if it is due."""
        now = time.monotonic()
        worth = self._keep is None or stage in self._keep
        ended = worth and (done == total or stage in (self._keep or ()))
        if ended and (stage, done) in self._ended:
            return
        if not ended and now - self._last < QUIET_SECONDS:
            return
        if ended:
            self._ended.add((stage, done))
        self._last = now
        parts = [printable(stage), count(done, total, facts), told(facts)]
        print("  ".join(part for part in parts if part), file=self._stream, flush=True)


def count(done: int, total: int | None, facts: Mapping[str, object] | None = None) -> str:
    """How far, in words; a stage that counts something else says its `rows` among the facts.

    Example:
        >>> count(2048, 1_000_000)
        '2,048/1,000,000'
        >>> count(65_536, 131_072, {"rows": 700})
        '700 rows'
    """
    rows = (facts or {}).get("rows")
    if isinstance(rows, int):
        return f"{rows:,} rows"
    return f"{done:,}" if total is None else f"{done:,}/{total:,}"


def told(facts: Mapping[str, object]) -> str:
    """The facts in one line; `rows_per_second` reads `rows/s`.

    Example:
        >>> told({"loss": 0.43127, "rows_per_second": 81234.5})
        'loss 0.4313  rows/s 81,234'
    """
    parts = []
    for name, value in facts.items():
        if name == "rows":
            continue
        name = name.replace("_per_", "/").replace("/second", "/s").replace("_", " ")
        if isinstance(value, float):
            text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4f}"
        elif isinstance(value, int):
            text = f"{value:,}"
        else:
            text = str(value)
        parts.append(f"{name} {text}")
    return "  ".join(parts)
