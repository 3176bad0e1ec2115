"""What a ratio costs: what `auto` would keep of the tables, and the least that can be.

Tables of one width and type share a plan, as in `TableCollection`; ratios are to the full float32
tables, as everywhere.
"""

from collections.abc import Sequence
from typing import Any

from bitfold.errors import BudgetTooSmall
from bitfold.planning.field import Field
from bitfold.planning.spec import BITS, FLOATS
from bitfold.weights.tables import FoundTable

RATIOS = (2, 10, 50, 100, 1000)


def full_size(tables: Sequence[FoundTable]) -> int:
    """Bytes of the tables in float32."""
    return sum(table.rows * table.width * 4 for table in tables)


def quote(tables: Sequence[FoundTable], budget: int) -> dict[str, Any]:
    """What a number of bytes would keep of the tables.

    Args:
        tables: none of them empty.
        budget: bytes of all of them together.

    Returns:
        `budget`, and the plans' `bytes`, their `bits` and `widths`, the share of ids that have a
        row of their `own`, and for each table what is `kept` of it; or the `least` bytes that
        would do.
    """
    from bitfold.method.shares import shared_out

    grouped: dict[tuple[int, str], list[int]] = {}
    for number, table in enumerate(tables):
        dtype = table.tensor.dtype if table.tensor.dtype in FLOATS else "float32"
        grouped.setdefault((table.width, dtype), []).append(number)
    parts: list[tuple[list[Field], int, dict[str, Any]]] = [
        ([Field(str(number), tables[number].rows) for number in group], width, {"dtype": dtype})
        for (width, dtype), group in grouped.items()
    ]
    try:
        plans = shared_out(parts, budget)
    except BudgetTooSmall as error:
        return {"budget": budget, "bytes": None, "least": error.minimum}
    kept: dict[int, dict[str, Any]] = {}
    for plan, group in zip(plans, grouped.values(), strict=True):
        for number, row in zip(group, plan.rows(), strict=True):
            own = row["lookups"] == 1 and row["rows"] >= row["ids"]
            kept[number] = {
                "own": own,
                "bits": BITS[row["numbers"]],
                "width": row["width"],
                "rows": row["rows"],
            }
    ids = sum(table.rows for table in tables)
    whole = sum(table.rows for number, table in enumerate(tables) if kept[number]["own"])
    return {
        "budget": budget,
        "bytes": sum(plan.bytes for plan in plans),
        "bits": sorted({each["bits"] for each in kept.values()}),
        "widths": sorted({each["width"] for each in kept.values()}),
        "own": whole / ids,
        "kept": [kept[number] for number in range(len(tables))],
    }


def least_size(tables: Sequence[FoundTable]) -> int:
    """The fewest bytes for which there is a plan."""
    found = quote(tables, 1)
    while found["bytes"] is None:
        again = quote(tables, found["least"])
        if again["bytes"] is None and again["least"] <= found["least"]:
            return int(again["least"])
        found = again
    return int(found["bytes"])
