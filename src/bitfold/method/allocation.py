"""Allocation: how many rows each field gets of those that a budget buys."""

from collections.abc import Callable, Sequence

from bitfold.errors import BudgetTooSmall


def allocate(
    sizes: Sequence[int],
    least: Sequence[int],
    most: Sequence[int],
    rows: int,
    exponent: float,
) -> list[int]:
    """Deal `rows` to fields in proportion to `size ** exponent`, within each field's bounds.

    An exponent of 1 gives every field the same ratio; 0 gives every field the same rows, so that
    the small ones become whole. Rows that bounded fields leave go to the others.

    Args:
        sizes: ids of each field.
        least: the fewest rows with which each field works.
        most: the rows beyond which a field has no use for more.
        rows: what the budget buys.
        exponent: between 0 and 1.

    Returns:
        Rows of each field; their sum is `rows`, or less when every field has its most.

    Example:
        >>> allocate([6040, 3706, 2], [1, 1, 1], [6040, 3706, 2], 974, 1.0)
        [603, 370, 1]
        >>> allocate([6040, 3706, 2], [1, 1, 1], [6040, 3706, 2], 974, 0.5)
        [545, 427, 2]
    """
    assert sum(least) <= rows, "the caller checks the minimum"
    weights = [float(size) ** exponent for size in sizes]

    def dealt(level: float) -> list[int]:
        shares = zip(weights, least, most, strict=True)
        return [min(high, max(low, int(level * weight))) for weight, low, high in shares]

    low, high = 0.0, max(high / weight for weight, high in zip(weights, most, strict=True)) + 1
    for _ in range(200):
        middle = (low + high) / 2
        if sum(dealt(middle)) <= rows:
            low = middle
        else:
            high = middle
    out = dealt(low)
    left = rows - sum(out)
    for index in sorted(range(len(out)), key=lambda i: -weights[i]):  # rounding leaves a few
        take = min(left, most[index] - out[index])
        out[index] += take
        left -= take
    return out


def check_minimum(method: str, minimum: int, budget: int, fix: str | None = None) -> None:
    """Raise `BudgetTooSmall` if the least a method needs is above the budget (both in bytes)."""
    if minimum > budget:
        raise BudgetTooSmall(
            f"method {method!r} cannot fit this budget",
            minimum=minimum,
            got=f"{budget:,} bytes",
            fix=fix,
        )


def largest(fits: Callable[[int], bool]) -> int:
    """The largest number that fits, of those that do from 1 on.

    Example:
        >>> largest(lambda n: n * n <= 50)
        7
    """
    low, high = 1, 2
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
