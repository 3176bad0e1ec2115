"""Results on stdout: tables for people, in colour only on a terminal."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bitfold.board import FULL, Line

FILE_WIDTH = 160  # where no terminal says how wide it is, nothing is cut


def show(*parts: Table | str) -> None:
    """Print tables and texts on stdout, one below the other."""
    out = Console(highlight=False)
    if out.is_terminal:
        for part in parts:
            out.print(part, markup=False)
        return
    out = Console(highlight=False, width=FILE_WIDTH)
    with out.capture() as captured:
        for part in parts:
            out.print(part, markup=False)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def table(title: str, columns: Sequence[str], *, left: int = 1) -> Table:
    """An empty table; its first `left` columns are text, the others numbers."""
    made = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for place, name in enumerate(columns):
        made.add_column(
            name,
            justify="left" if place < left else "right",
            overflow="fold",
            no_wrap=place >= left,
        )
    return made


def metrics_table(title: str, metrics: Mapping[str, object]) -> Table:
    """One figure a line."""
    made = table(title, ("", ""), left=1)
    made.show_header = False
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            for inner, item in value.items():
                made.add_row(f"{name} {inner}".replace("_", " "), figure(inner, item))
        elif value is not None:
            made.add_row(name.replace("_", " "), figure(name, value))
    return made


def figure(name: str, value: object) -> str:
    """A figure in words, by the unit that its name tells.

    Example:
        >>> figure("auc", 0.81234), figure("bytes", 85_094), figure("ratio", 10.0)
        ('0.8123', '85,094', '10.0x')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if name == "ratio":
        return f"{value:,.1f}x"
    if name == "seconds":
        return f"{value:,.1f}"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4f}"


def size(count: float) -> str:
    """A number of bytes for people.

    Example:
        >>> size(850_944), size(512)
        ('831.0 KiB', '512 B')
    """
    for unit, one in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= one:
            return f"{count / one:,.1f} {unit}"
    return f"{count:.0f} B"


def board_table(title: str, rows: Sequence[Line]) -> Table:
    """A comparison: each method's best line at a budget is bold."""
    seeds = max((row.seeds for row in rows), default=1)
    spread = " ± spread" if seeds > 1 else ""
    kept = "of full" if any(row.kept is not None for row in rows) else ""
    names = ["method", "budget", "bytes", "ratio", f"AUC{spread}", kept, "log loss", "GAUC"]
    made = table(title, [*(name for name in names if name), "rows/s"], left=1)
    best: dict[str, float] = {}
    for row in rows:
        if row.method != FULL and "auc" in row.means:
            best[row.budget] = max(best.get(row.budget, 0.0), row.means["auc"])
    budget = None
    for row in sorted(rows, key=lambda row: [line.budget for line in rows].index(row.budget)):
        if budget is not None and row.budget != budget:
            made.add_section()
        budget = row.budget
        if row.refusal is not None:
            made.add_row(row.method, row.budget, Text(row.refusal, style="yellow"))
            continue
        strong = "bold" if row.means.get("auc") == best.get(row.budget) else ""
        texts = [row.method, row.budget, size(row.means["bytes"])]
        texts += [_mean(row, "ratio"), _spread(row, "auc")]
        if kept:
            texts.append(f"{row.kept:.1%}" if row.kept is not None else "")
        texts += [_mean(row, "logloss"), _mean(row, "gauc"), _mean(row, "rows_per_second")]
        made.add_row(*texts, style=strong)
    return made


def _mean(row: Line, name: str) -> str:
    return figure(name, row.means[name]) if name in row.means else "-"


def _spread(row: Line, name: str) -> str:
    spread = row.spreads.get(name)
    return _mean(row, name) + (f" ± {spread:.4f}" if spread is not None else "")
