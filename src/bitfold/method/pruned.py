"""Tables of which some numbers are kept: how many a budget buys, whoever finds out which."""

from dataclasses import replace

from bitfold.method.allocation import check_minimum
from bitfold.method.base import Method, Traits, dense_only
from bitfold.method.full import Full
from bitfold.method.hash import field_sizes
from bitfold.planning.ask import Ask
from bitfold.planning.spec import Group, PoolSpec

PRUNED = Traits(
    hashed_ids=False,
    narrow=False,
    why_wide="numbers are kept one by one with an index each, and the index outweighs few bits",
)
"""The traits of methods that keep single numbers."""


def pruned(method: Method, ask: Ask) -> Group:
    """A row for every id, of which as many numbers are kept as a budget buys with their index.

    Args:
        method: whose plan it is.
        ask: what it was asked for.

    Raises:
        BudgetTooSmall: for less than one number.
    """
    field_sizes(method.name, ask.fields, ask.budget)
    dense_only(method.name, ask.fields)
    program = Full().plan(replace(ask, budget=None)).program
    assert program is not None, "a table has one"
    assert ask.budget is not None, "it was asked for"
    whole = method.finish(ask, program, "sum")
    if whole.bytes(ask.dim) <= ask.budget:
        return whole
    pool = whole.pools[0]
    least = replace(whole, pools=(replace(pool, kept=1),))
    check_minimum(method.name, min(least.bytes(ask.dim), whole.bytes(ask.dim)), ask.budget)
    return replace(whole, pools=(replace(pool, kept=_most(pool, ask.budget)),))


def _most(pool: PoolSpec, budget: int) -> int:
    """The most numbers of a pool that fit; each more takes more bytes."""
    low, high = 1, pool.rows * pool.width
    while low < high:
        middle = (low + high + 1) // 2
        if replace(pool, kept=middle).bytes <= budget:
            low = middle
        else:
            high = middle - 1
    return low
