"""What a budget buys, as tables: a plan's fields with bars, and quotes beside each other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from bitfold.cli.tables import figure, size, table

if TYPE_CHECKING:
    from bitfold.comparison.quotes import Quote
    from bitfold.planning.plan import Plan

BLOCKS = " ▏▎▍▌▋▊▉█"
BAR, NARROW_BAR = 20, 6  # cells that a whole bar takes
COMPACT = 100_000  # numbers from here on are rounded where space is short


def bar(share: float, cells: int = BAR) -> str:
    """A bar of block characters, `cells` long for a share of 1.

    Example:
        >>> bar(0.5, 4), bar(1.0, 3), bar(0.06, 4), bar(0.0, 4)
        ('██', '███', '▎', '')
    """
    eighths = round(min(max(share, 0.0), 1.0) * cells * 8)
    return ("█" * (eighths // 8) + BLOCKS[eighths % 8]).rstrip()


def plan_parts(
    made: "Plan", title: str | None = None, *, narrow: bool = False
) -> list[Table | str]:
    """The plan as a table with a bar a field, and its bytes in words.

    A narrow table leaves out the number of lookups and the bytes, which the radices and the share
    tell too.
    """
    from bitfold.planning.spec import OWN

    name = title or made.method
    left, rest = ("field", "ids", "rows"), ("radices", "ids/row", "vectors")
    columns = (
        (*left, *rest, "share of bytes")
        if narrow
        else (*left, "lookups", *rest, "bytes", "share of bytes")
    )
    rows = made.rows()
    if any(row["width"] != made.embedding_dim for row in rows):
        columns = (*columns[:3], "width", *columns[3:])
    if made.sets > 1:
        columns = ("set", *columns)
    fusions = dict.fromkeys(group.fusion for group in made.groups if group.fusion != OWN)
    sets = "" if made.sets == 1 else f"{made.sets} sets of "
    title = f"{name}, {sets}width {made.embedding_dim}"
    shown = table(f"{title}, {'+'.join(fusions)}" if fusions else title, columns)
    if narrow:
        shown.padding = (0, 1, 0, 0)
    radices = shown.columns[columns.index("radices")]
    radices.no_wrap, radices.overflow = False, "fold"
    shown.columns[-1].justify = "left"
    total = sum(row["bytes"] for row in rows)
    for row in rows:
        ids = "any" if row["ids"] is None else f"{row['ids']:,}" + " hashed" * row["hashed"]
        each = row["ids_per_row"]
        share = row["bytes"] / total
        told = {
            "set": str(row.get("set", 1)),
            "field": row["field"],
            "ids": ids,
            "rows": figure("rows", row["rows"]),
            "width": figure("width", row["width"]),
            "lookups": figure("lookups", row["lookups"]),
            "radices": " x ".join(f"{radix:,}" for radix in row["radices"]),
            "ids/row": "-" if each is None else f"{each:,.1f}",
            "vectors": "-" if row["vectors"] is None else short(row["vectors"]),
            "bytes": figure("bytes", row["bytes"]),
            "share of bytes": f"{share:6.1%} {bar(share, NARROW_BAR if narrow else BAR)}",
        }
        shown.add_row(*(told[column] for column in columns))
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in made.by_kind.items())
    text = f"{made.bytes:,} bytes ({size(made.bytes)}): {kinds}"
    if made.budget is not None:
        text += f"\nof a budget of {made.budget:,} bytes: {made.bytes / made.budget:.2%}"
    if made.ratio is not None:
        which = "the full table" if made.sets == 1 else "one full table of that width"
        text += f"\n{which} is {made.ratio:,.1f} times as large"
    return [shown, text + "\n"]


def quote_tables(quotes: "Sequence[Quote]", *, narrow: bool = False) -> list[Table]:
    """What each method makes of each budget, and what training it takes."""
    maps = any(quote.map_bytes for quote in quotes)
    columns = ["method", "budget", "bytes", *["id map"] * maps, "of budget", "ratio", "rows"]
    columns += ["lookups", "ids/row", "ids/vector"]
    columns = [name for name in columns if not narrow or name not in ("of budget", "rows")]
    serving = table("What each budget buys", columns)
    kinds = ("sgd", "rowwise-adagrad", "adagrad", "lazy-adam")
    training = table("Bytes in training, by optimizer", ("method", "budget", *kinds))
    if narrow:
        serving.padding = training.padding = (0, 1, 0, 0)
    block: str | None = None
    for quote in quotes:
        if block is not None and quote.budget != block:
            serving.add_section()
            training.add_section()
        block = quote.budget
        if quote.plan is None:
            need = f"needs {quote.minimum:,} B"
            serving.add_row(quote.method, quote.budget, need, style="yellow")
            continue
        figures, made = quote.to_json(), quote.plan
        told = {
            "method": quote.method,
            "budget": quote.budget,
            "bytes": size(made.bytes),
            "id map": size(quote.map_bytes) if quote.map_bytes else "-",
            "of budget": "-" if quote.used is None else f"{quote.used:.1%}",
            "ratio": "-" if made.ratio is None else figure("ratio", made.ratio),
            "rows": figure("rows", figures["rows"]),
            "lookups": f"{figures['lookups_per_vector']:.1f}",
            "ids/row": _load(figures["fields"]),
            "ids/vector": _alike(figures["fields"]),
        }
        serving.add_row(*(told[column] for column in columns))
        costs = figures["training_bytes"]
        training.add_row(quote.method, quote.budget, *(size(costs[kind]) for kind in kinds))
    return [serving, training]


def _load(rows: Sequence[dict[str, Any]]) -> str:
    """Ids that read a row, on average over all rows."""
    if any(row["ids_per_row"] is None for row in rows):
        return "-"
    total = sum(row["rows"] for row in rows)
    return f"{sum(row['ids_per_row'] * row['rows'] for row in rows) / total:,.1f}"


def _alike(rows: Sequence[dict[str, Any]]) -> str:
    """Ids a vector that the digits can tell apart, over all fields: 1 where each can have its own.

    Hashing makes some of them meet all the same.
    """
    if any(None in (row["ids"], row["vectors"]) for row in rows):
        return "-"
    vectors = sum(min(row["ids"], row["vectors"]) for row in rows)
    return f"{sum(row['ids'] for row in rows) / vectors:,.1f}"


def short(number: int) -> str:
    """A number in few letters.

    Example:
        >>> short(6040), short(1_234_567), short(2**70)
        ('6,040', '1.2e6', '1.2e21')
    """
    if number < COMPACT:
        return f"{number:,}"
    digits, power = f"{number:.1e}".split("e")
    return f"{digits}e{int(power)}"
