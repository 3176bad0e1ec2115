"""One budget over tables of several widths: a plan for each width, a share by size.

A plan's vectors are of one width and one type. Tables that differ in them have plans of their own;
the budget is shared out by the sizes of the full tables, and a plan whose share is too small gets
the least that will do, of the others' shares.
"""

from collections.abc import Sequence
from typing import Any

from bitfold.errors import BudgetTooSmall
from bitfold.method.planner import plan
from bitfold.planning.budget import full_bytes, parse_budget
from bitfold.planning.field import Field
from bitfold.planning.plan import Plan


def shared_out(
    parts: Sequence[tuple[Sequence[Field], int, dict[str, Any]]],
    budget: int | str | None,
    **said: Any,
) -> list[Plan]:
    """A plan for each part within one budget.

    Args:
        parts: fields, their width `D`, and options of `plan` that are the part's own.
        budget: bytes of all parts together, or a ratio to all full float32 tables; None leaves
            each part to its method.
        said: options of `plan` for all parts.

    Raises:
        BudgetTooSmall: if nothing fits; `.minimum` says the least bytes of all parts.

    Example:
        >>> parts = [([Field("item", 1000)], 16, {}), ([Field("day", 7)], 2, {})]
        >>> plans = shared_out(parts, "10x")
        >>> [each.embedding_dim for each in plans], sum(each.bytes for each in plans) <= 6405
        ([16, 2], True)
    """
    if budget is None or len(parts) == 1:
        return [plan(fields, dim, budget=budget, **said, **own) for fields, dim, own in parts]
    sizes = [full_bytes(fields, dim) for fields, dim, _ in parts]
    if str(budget).strip().lower().endswith("x"):
        total = sum(parse_budget(budget, fields, dim) for fields, dim, _ in parts)
    else:
        total = parse_budget(budget, [], 1)
    least: dict[int, int] = {}
    while True:
        rest = total - sum(least.values())
        others = sum(size for p, size in enumerate(sizes) if p not in least)
        plans = []
        for p, (fields, dim, own) in enumerate(parts):
            share = least[p] if p in least else max(rest * sizes[p] // others, 1)
            try:
                plans.append(plan(fields, dim, budget=share, **said, **own))
            except BudgetTooSmall as error:
                least[p] = error.minimum  # the others get less, so they are refused again, too
        if len(plans) == len(parts):
            return plans
        if len(least) == len(parts) and sum(least.values()) > total:
            raise BudgetTooSmall(
                f"method {said.get('method', 'auto')!r} cannot fit these tables",
                got=f"{total} bytes",
                minimum=sum(least.values()),
            )
