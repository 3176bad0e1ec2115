"""Results on stdout: tables for people, in colour only on a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bitfold.comparison.board import NO_BUDGET, Line, ranking_columns
from bitfold.files import without_nan
from bitfold.progress import is_first_process
from bitfold.remote import named
from bitfold.terminal import printable

BOARD_WIDTH = 132  # columns that a whole board takes
FILE_WIDTH = 160  # where no terminal says how wide it is, nothing is cut


def is_narrow() -> bool:
    """Whether stdout is a terminal too narrow for the whole board."""
    out = Console()
    return out.is_terminal and out.width < BOARD_WIDTH


def show(*parts: Table | str) -> None:
    """Print tables and texts on stdout, one below the other."""
    if not is_first_process():
        return
    for part in parts:
        if isinstance(part, Table) and isinstance(part.title, str):
            part.title = named(part.title)
    parts = tuple(named(part) if isinstance(part, str) else part for part in parts)
    out = Console(highlight=False, markup=False, emoji=False)
    if out.is_terminal:
        for part in parts:
            out.print(_shown(part))
        return
    out = Console(highlight=False, markup=False, emoji=False, width=FILE_WIDTH)
    with out.capture() as captured:
        for part in parts:
            out.print(_shown(part))
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _shown(part: Table | str) -> Table | str:
    return printable(part, lines=True) if isinstance(part, str) else part


class SafeTable(Table):
    """A table of values and names that come from logs and files: none of them may be obeyed."""

    def add_row(self, *renderables: Any, **words: Any) -> None:
        """Add a row; what a terminal would obey in its texts is spelt out."""
        super().add_row(
            *(printable(each) if isinstance(each, str) else each for each in renderables), **words
        )


def table(title: str, columns: Sequence[str], *, left: int = 1) -> Table:
    """An empty table; its first `left` columns are text, the others numbers."""
    made = SafeTable(
        title=printable(title, lines=True),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
    )
    for place, name in enumerate(columns):
        made.add_column(
            printable(name),
            justify="left" if place < left else "right",
            overflow="fold",
            no_wrap=place >= left,
        )
    return made


def metrics_table(title: str, metrics: Mapping[str, object]) -> Table:
    """One figure a line; what could not be computed (None, NaN) is left out."""
    made = table(title, ("", ""), left=1)
    made.show_header = False
    for name, value in without_nan(metrics).items():
        if isinstance(value, Mapping):
            for inner, item in value.items():
                if item is not None:
                    made.add_row(f"{name} {inner}".replace("_", " "), figure(inner, item))
        elif value is not None:
            made.add_row(name.replace("_", " "), figure(name, value))
    return made


def cold_figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """How many cold ids lean on prototypes, and the bytes of these, where a run has such."""
    found = metrics.get("cold")
    return {} if found is None else {"cold": {name: found[name] for name in ("ids", "bytes")}}


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
    if isinstance(value, int) or name == "rows_per_second" or abs(value) >= 1000:
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


def board_table(title: str, rows: Sequence[Line], *, narrow: bool = False) -> Table:
    """A comparison, a budget a block; the best line of each is bold. References come last.

    The map from values to dense ids, which full tables need for raw values, has a column of its
    own where there is one. `of full` is the share of the full table's AUC, `of lift` that of its
    AUC over .5. Rankings have columns where something was ranked. A narrow table leaves out the
    lift, the log loss, GAUC, speed, and of a ranking all but the recall.
    """
    spread = " ± spread" if any(row.seeds > 1 for row in rows) else ""
    maps = any(row.means.get("map_bytes") for row in rows)
    whole = any(row.kept is not None for row in rows)
    names = ["method", "budget", "bytes", *["id map"] * maps, "ratio", f"AUC{spread}"]
    ranked = ranking_columns(rows)
    more = {} if narrow else {"logloss": "log loss", "gauc": "GAUC", "rows_per_second": "rows/s"}
    more = dict(list(ranked.items())[:1] if narrow else ranked.items()) | more
    shares = [] if not whole else ["of full"] if narrow else ["of full", "of lift"]
    made = table(title, [*names, *shares, *more.values()], left=1)
    blocks: dict[str, list[Line]] = {}
    for row in rows:
        blocks.setdefault(row.budget, []).append(row)
    for block in blocks.values():
        best = max((row.means["auc"] for row in block if "auc" in row.means), default=None)
        for row in block:
            if row.minimum is not None:
                made.add_row(row.method, row.budget, f"needs {row.minimum:,} B", style="yellow")
                continue
            weight = row.means.get("bytes")
            texts = [row.method, row.budget, "-" if weight is None else size(weight)]
            if maps:
                count = row.means.get("map_bytes")
                texts.append(size(count) if count else "-")
            texts += [_mean(row, "ratio"), _spread(row, "auc")]
            for share in (row.kept, row.lift)[: len(shares)]:
                texts.append("-" if share is None else f"{share:.1%}")
            texts += [_mean(row, name) for name in more]
            strong = len(block) > 1 and row.budget != NO_BUDGET and row.means.get("auc") == best
            made.add_row(*texts, style="bold" if strong else "")
        made.add_section()
    return made


def _mean(row: Line, name: str) -> str:
    return figure(name, row.means[name]) if name in row.means else "-"


def _spread(row: Line, name: str) -> str:
    spread = row.spreads.get(name)
    return _mean(row, name) + (f" ± {spread:.4f}" if spread is not None else "")
