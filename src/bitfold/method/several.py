"""Several plans under one budget: shares by size, where those that are too small get the least."""

from collections.abc import Callable, Sequence

from bitfold.errors import BudgetTooSmall
from bitfold.planning.plan import Plan


def plans_within(
    asks: Sequence[Callable[[int], Plan]], sizes: Sequence[int], total: int, what: str
) -> list[Plan]:
    """A plan from each of `asks`, together within a budget.

    Args:
        asks: make a plan of so many bytes.
        sizes: how much of the budget each should have, in proportion: its full bytes.
        total: the budget.
        what: what an error says of all of them.

    Raises:
        BudgetTooSmall: their least sizes are above the budget together; `.minimum` is that sum.
    """
    least: dict[int, int] = {}
    while True:
        rest = total - sum(least.values())
        others = sum(size for number, size in enumerate(sizes) if number not in least)
        plans = []
        for number, ask in enumerate(asks):
            share = least[number] if number in least else max(rest * sizes[number] // others, 1)
            try:
                plans.append(ask(share))
            except BudgetTooSmall as error:
                least[number] = error.minimum
                break
        else:
            return plans
        if len(least) == len(sizes) and sum(least.values()) > total:
            raise BudgetTooSmall(
                f"{what} cannot fit", got=f"{total} bytes", minimum=sum(least.values())
            )
