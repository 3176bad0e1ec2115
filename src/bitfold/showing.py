"""Small tables for a prompt and a notebook: rows of figures as text and as HTML."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

Records = Sequence[Mapping[str, Any]]


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
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4f}"
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
    printable = [[_one_line(cell) for cell in row] for row in [names, *rows]]
    widths = [max(map(len, column)) for column in zip(*printable, strict=True)]
    lines = []
    for row in printable:
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


def _one_line(text: str) -> str:
    """A text without control characters, which a terminal would obey."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
