"""A budget to begin with, by a rule that says what it rests on."""

from collections.abc import Mapping, Sequence
from typing import Any

from bitfold.planning.budget import format_bytes
from bitfold.weights.costs import full_size
from bitfold.weights.tables import FoundTable

FIRST, SECOND = 10, 2
"""The ratio that is suggested, and the one where tables are too small for it."""

LOST = {10: 0.0031, 50: 0.0162, 100: 0.0247}
"""The most AUC that `auto` lost against full tables at a ratio: on Frappe, MovieLens-1M and Gowalla
with dense ids, in docs/results.md. A test holds the two to each other."""

UNUSED = 0.05
"""The share of rows that are never read from which on they lower the budget."""


def suggest(
    tables: Sequence[FoundTable], least: int, used: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any] | None:
    """A budget for tables, the line that folds a model to it, and why; None if none would help.

    The rule: a tenth of the full float32 tables, which lost little on our boards. Rows that the log
    never reads need no bytes, so only those that are read count. Tables that no plan of a tenth
    fits get half, or the least that is possible above a tenth of the rows read.

    Args:
        tables: none of them empty.
        least: the fewest bytes of any plan.
        used: how a log reads them, by name (`usage`); empty without a log.
    """
    full = full_size(tables)
    ratio = next((each for each in (FIRST, SECOND) if least * each <= full), None)
    if ratio is None:
        return None
    size = full // ratio
    read = full
    for table in tables:
        if table.name in used:
            unread = table.rows - used[table.name]["rows_read"]
            read -= unread * table.width * 4
    budget: int | str = f"{ratio}x"
    why = [_measured(ratio, size)]
    if read < full * (1 - UNUSED):
        size = budget = max(read // ratio, least)
        why.append(
            f"{1 - read / full:.0%} of the tables' bytes are rows that the log never reads: the "
            f"budget is 1/{ratio} of the others, {format_bytes(size)}, {full / size:.1f}x in all. "
            "This part is arithmetic, and no measurement"
        )
    elif any(table.tensor.dtype != "float32" for table in tables):
        budget = size
    said = f'"{budget}"' if isinstance(budget, str) else str(budget)
    return {
        "budget": budget,
        "bytes": size,
        "code": f"bitfold.fold(model, budget={said})",
        "why": why,
    }


def _measured(ratio: int, size: int) -> str:
    """What our boards say about a ratio."""
    lost = ", ".join(f"{text[1:]} at {each}x" for each, text in _losses().items())
    text = (
        f"{format_bytes(size)} are 1/{ratio} of the tables in float32. Trained at such sizes from "
        f"the start, our boards lost at most {lost} of AUC (docs/results.md). Your model is "
        "another: measure it"
    )
    if ratio != FIRST:
        text = f"the tables are too small for {FIRST}x. {text}"
    return text


def _losses() -> dict[int, str]:
    return {ratio: f"{lost:.4f}" for ratio, lost in LOST.items()}
