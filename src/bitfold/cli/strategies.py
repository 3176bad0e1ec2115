"""The part of `bitfold stream` that goes through a log with several strategies."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from bitfold.bars import drawing
from bitfold.cli.tables import show, size, table
from bitfold.data.config import DataConfig
from bitfold.errors import BitfoldError
from bitfold.runs.options import TrainConfig
from bitfold.streaming.config import StreamConfig
from bitfold.streaming.record import Course, Line


def run_strategies(
    names: Sequence[str],
    data: Sequence[str],
    words: tuple[DataConfig, TrainConfig, StreamConfig],
    out: str,
    **how: Any,
) -> None:
    """Run them, write the page of all, and show a column a strategy."""
    from bitfold.report import missing, stream_page_of
    from bitfold.report.stream_page import write_streams_page
    from bitfold.streaming.several import streams

    with drawing(keep=("windows",)) as progress:
        found = streams(
            names, list(data), *words, out, progress=progress, page=stream_page_of, **how
        )
    courses = {Path(each.path).name: each.course for each in found}
    page = None if missing() else write_streams_page([each.path for each in found], Path(out))
    show(
        auc_table(f"{out}: AUC by window", courses),
        kinds_table("bytes at the end, by kind", courses),
        *([f"page: {page}"] if page else []),
        f"next: bitfold report {out}",
    )


def auc_table(title: str, courses: dict[str, Course]) -> Table:
    """A line a window, a column a strategy; their means are last."""
    made = table(title, ["window", "rows", *courses], left=1)
    for lines in zip(*(course.lines for course in courses.values()), strict=True):
        first = lines[0]
        made.add_row(first.window, f"{first.rows:,}", *(_auc(line.auc) for line in lines))
    made.add_row("mean", "", *(_auc(course.auc) for course in courses.values()))
    return made


def kinds_table(title: str, courses: dict[str, Course]) -> Table:
    """A line a strategy: what it keeps, and what of it the budget bounds."""
    made = table(
        title, ["strategy", "tables", "network", "copies", "rows", "counted", "budget"], left=1
    )
    for name, course in courses.items():
        line = _last(course)
        if line is None:
            continue
        kinds = (line.bytes, line.network_bytes, line.copy_bytes, line.row_bytes)
        texts = [size(each or 0) for each in (*kinds, course.most_bytes)]
        budget = "-" if course.budget_bytes is None else size(course.budget_bytes)
        made.add_row(name, *texts, budget)
    return made


def names_of(text: str, said: str | None) -> list[str]:
    """The strategies of `--strategies`.

    Args:
        text: names with commas between them.
        said: what `--strategy` says.

    Raises:
        BitfoldError: both are said, or a name is none of a strategy.
    """
    from bitfold.streaming.several import check_strategies

    if said is not None:
        raise BitfoldError(
            "--strategy and --strategies are both said",
            got=f"--strategy {said}",
            expected="one of them",
            fix="leave one out",
        )
    return check_strategies([name.strip() for name in text.split(",") if name.strip()])


def _auc(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _last(course: Course) -> Line | None:
    return next((line for line in reversed(course.lines) if line.bytes is not None), None)
