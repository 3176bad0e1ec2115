"""Radices: how many rows each digit of an id's code gets.

An id below `V` is written in `M` digits with radices `r_1..r_M`. The tuple of digits is unique
when `prod r_m >= V` (positional digits), or when moreover the radices are pairwise coprime
(residues: the Chinese remainder theorem). A budget fixes the sum of the radices, the rows.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

MOST_BLOCKS = 40  # 3**40 > 2**63: more digits than this never lower the number of rows


def _root(value: int, degree: int) -> int:
    """The largest `b` with `b**degree <= value`, in integers."""
    if degree == 1:
        return value
    guess: int = round(float(value) ** (1.0 / degree))
    while guess**degree > value:
        guess -= 1
    while (guess + 1) ** degree <= value:
        guess += 1
    return int(guess)


@lru_cache(maxsize=4096)
def least_radices(size: int, blocks: int) -> tuple[int, ...]:
    """The `blocks` radices of least sum whose product is at least `size`, largest first.

    Example:
        >>> least_radices(6040, 2)
        (78, 78)
        >>> least_radices(10, 2)
        (4, 3)
    """
    base = max(1, _root(size, blocks))
    raised = 0
    while base ** (blocks - raised) * (base + 1) ** raised < size:
        raised += 1
    return (base + 1,) * raised + (base,) * (blocks - raised)


@lru_cache(maxsize=4096)
def least_rows(size: int, most_blocks: int = MOST_BLOCKS) -> int:
    """The fewest rows with which `size` ids have unique digits, over all numbers of blocks.

    Example:
        >>> least_rows(6040)
        24
    """
    return min(sum(least_radices(size, m)) for m in range(1, most_blocks + 1))


def fewest_blocks(size: int, rows: int, most_blocks: int = MOST_BLOCKS) -> int | None:
    """The fewest digits that tell `size` ids apart within `rows` rows, or None if none do.

    Example:
        >>> fewest_blocks(6040, 604), fewest_blocks(6040, 100), fewest_blocks(6040, 10)
        (2, 3, None)
    """
    for blocks in range(1, most_blocks + 1):
        if sum(least_radices(size, blocks)) <= rows:
            return blocks
    return None


def fit_radices(size: int, blocks: int, rows: int, balance: float) -> tuple[int, ...] | None:
    """Radices with sum `rows` and product at least `size`, or None if there are none.

    The first radix is the large one, the others are equal. `balance` 0 makes them as small as
    uniqueness allows (few ids share a row of the large block), 1 makes all blocks equal.

    Example:
        >>> fit_radices(6040, 2, 604, balance=0)
        (593, 11)
        >>> fit_radices(6040, 2, 604, balance=1)
        (302, 302)
    """
    if blocks == 1:
        return (rows,) if rows >= size else None
    even = rows // blocks
    if even < 1:
        return None

    def product(small: int) -> int:
        return int(small ** (blocks - 1)) * (rows - (blocks - 1) * small)

    if product(even) < size:
        least = least_radices(size, blocks)
        spare = rows - sum(least)
        return (least[0] + spare, *least[1:]) if spare >= 0 else None
    low, high = 1, even  # the product grows with `small` up to even radices
    while low < high:
        middle = (low + high) // 2
        if product(middle) >= size:
            high = middle
        else:
            low = middle + 1
    small = max(low, min(even, round(low ** (1 - balance) * even**balance)))
    return (rows - (blocks - 1) * small,) + (small,) * (blocks - 1)


def coprime_radices(size: int, blocks: int, rows: int, balance: float) -> tuple[int, ...] | None:
    """Pairwise coprime radices with sum at most `rows` and product at least `size`, or None.

    Example:
        >>> coprime_radices(6040, 2, 604, balance=1)
        (301, 302)
    """
    if blocks == 1:
        return (rows,) if rows >= size else None
    start = fit_radices(size, blocks, rows, balance)
    if start is None:
        return None
    best: tuple[int, ...] | None = None
    for raise_by in range(64):  # a few tries: larger small radices where the product falls short
        chosen: list[int] = []
        for radix in start[1:]:
            candidate = radix + raise_by
            while candidate > 1 and any(math.gcd(candidate, other) != 1 for other in chosen):
                candidate -= 1
            chosen.append(candidate)
        largest = rows - sum(chosen)
        while largest > 1 and any(math.gcd(largest, other) != 1 for other in chosen):
            largest -= 1
        if largest < 1:
            break
        found = (largest, *chosen)
        if math.prod(found) >= size and (best is None or sum(found) > sum(best)):
            best = found
            if rows - sum(found) <= 1:
                break
    return best


def divisors(radices: Sequence[int]) -> tuple[int, ...]:
    """The divisor of each positional digit: the product of the radices before it.

    Example:
        >>> divisors((593, 11))
        (1, 593)
    """
    out, product = [], 1
    for radix in radices:
        out.append(product)
        product *= radix
    return tuple(out)
