"""What a section is made of: sentences, charts that are drawn when they are wanted, tables."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bitfold.report.look import Look, Spec
from bitfold.report.reading import Board, text_of


@dataclass(frozen=True)
class Table:
    """A table of texts; the first `left` columns are words, the others numbers."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1


@dataclass(frozen=True)
class Chart:
    """A chart of a section.

    Args:
        name: of its PNG.
        title: what a slide calls it.
        about: what it shows, for those who do not see it.
        draw: makes its specification.
        keyed: whether the key of methods belongs above it.
    """

    name: str
    title: str
    about: str
    draw: Callable[[Look], Spec]
    keyed: bool = True


@dataclass(frozen=True)
class Part:
    """A chart, if there is one to draw, and the table of its figures.

    Args:
        table: the figures.
        chart: what is drawn of them.
        open: whether the table is shown at once.
        said: what has to be known to read the table.
    """

    table: Table
    chart: Chart | None = None
    open: bool = False
    said: str = ""


@dataclass(frozen=True)
class Section:
    """A section: a title, sentences, and its parts."""

    id: str
    title: str
    said: Sequence[str]
    parts: Sequence[Part] = field(default=())


def chart_of(
    board: Board, draw: Callable[[Board, Look], Spec | None], name: str, title: str, about: str,
    keyed: bool = True,
) -> Chart | None:  # fmt: skip
    """The chart, or None where there is nothing to draw."""
    if draw(board, Look(740)) is None:
        return None

    def drawn(look: Look) -> Spec:
        spec = draw(board, look)
        assert spec is not None
        return spec

    return Chart(name, title, about, drawn, keyed)


def table_of(caption: str, found: Sequence[dict[str, Any]]) -> Table:
    """A table of rows whose names are not known beforehand."""
    columns = list(dict.fromkeys(name for row in found for name in row))
    rows = [[_cell(row.get(name)) for name in columns] for row in found]
    return Table(caption, [name.replace("_", " ") for name in columns], rows, left=2)


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else text_of(value)
