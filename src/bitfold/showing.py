"""Small tables for a prompt and a notebook: rows of figures as text and as HTML."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import import_module
from typing import Any

from bitfold.errors import BitfoldError
from bitfold.terminal import printable

Records = Sequence[Mapping[str, Any]]
MOST_ROWS = 60
"""Rows that are shown; a frame has them all."""


class Shown:
    """What has rows of figures to show: a short text, an HTML table and a frame."""

    def records(self) -> list[dict[str, Any]]:
        """Rows of figures by name, as plain values."""
        raise NotImplementedError

    def _title(self) -> str:
        """One line that says what this is."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{printable(self._title())}\n{plain_table(self.records()[:MOST_ROWS])}"

    def _repr_html_(self) -> str:
        return html_table(self.records()[:MOST_ROWS], caption=self._title())

    def to_frame(self) -> Any:
        """The rows of `records` as a Polars frame; as a pandas one where Polars is not installed.

        Raises:
            BitfoldError: neither is installed.
        """
        for name in ("polars", "pandas"):
            try:
                module = import_module(name)
            except ModuleNotFoundError:
                continue
            more = {"infer_schema_length": None} if name == "polars" else {}
            return module.DataFrame(self.records(), **more)
        raise BitfoldError(
            "a frame needs Polars or pandas",
            got="neither is installed",
            fix="pip install 'bitfold[data]'",
        )


@dataclass(frozen=True, repr=False)
class Figures(Shown, Mapping[str, Any]):
    """Figures by name that are also shown as a table.

    Args:
        figures: plain JSON values.
    """

    figures: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.figures[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.figures)

    def __len__(self) -> int:
        return len(self.figures)


def figure_text(value: Any) -> str:
    """A figure in a table: four digits of a fraction, thousands with commas, a dash for none.

    Example:
        >>> figure_text(0.81234), figure_text(85094), figure_text(None)
        ('0.8123', '85,094', '-')
    """
    if value is None or value != value:
        return "-"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        whole = abs(value) >= 1000 or (value.is_integer() and abs(value) > 1)
        return f"{value:,.0f}" if whole else f"{value:.4f}"
    if isinstance(value, list | tuple):
        return ", ".join(map(figure_text, value))
    return str(value)


def _cells(records: Records) -> tuple[list[str], list[list[str]]]:
    """The names of the columns that hold something, and the texts of all rows."""
    names = list(dict.fromkeys(name for row in records for name in row))
    names = [name for name in names if any(row.get(name) is not None for row in records)]
    return names, [[figure_text(row.get(name)) for name in names] for row in records]


def plain_table(records: Records) -> str:
    """Rows as lines of text, columns aligned.

    Example:
        >>> print(plain_table([{"method": "hash", "auc": 0.75}]))
        method     auc
        hash    0.7500
    """
    names, rows = _cells(records)
    shown = [[printable(cell) for cell in row] for row in [names, *rows]]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = []
    for row in shown:
        cells = [
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def html_table(records: Records, caption: str) -> str:
    """Rows as an HTML table; every text is escaped."""
    names, rows = _cells(records)
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f"<table><caption>{escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )
