"""Plans of few bits: how many bytes the centres and steps of a program turn out to take.

Rows are bought before a program is made, and how many slices of them have steps of their own is
known when it is. So a method reserves bytes for the most that there can be; what it did not need
buys rows in a second plan. Where that leaves much, or the most do not fit at all, what is reserved
is searched.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from bitfold.errors import BudgetTooSmall
from bitfold.planning.ask import Ask
from bitfold.planning.spec import Group, steps_bytes

Planner = Callable[[Ask], Group]
TRIES = 12  # halvings of what is reserved
UNUSED = 0.05  # the share of a budget from which on it is worth a search


def settled(plan: Planner, ask: Ask) -> Group:
    """The plan of what was asked for; of few bits the best use of the budget.

    Raises:
        BudgetTooSmall: if nothing fits; it names the least that does.
    """
    if not ask.packed or ask.budget is None or ask.reserved is not None:
        return plan(ask)
    try:
        found = plan(ask)
    except BudgetTooSmall as refusal:
        return _tight(plan, ask, ask.budget, refusal)
    with suppress(BudgetTooSmall):
        again = plan(replace(ask, reserved=_steps(found)))
        if found.bytes(ask.dim) < again.bytes(ask.dim) <= ask.budget:
            found = again
    unused = ask.budget - found.bytes(ask.dim)
    if unused > UNUSED * ask.budget:
        searched = _searched(plan, ask, ask.budget, _steps(found) + unused) or found
        found = max(found, searched, key=lambda each: each.bytes(ask.dim))
    return found


def _tight(plan: Planner, ask: Ask, budget: int, refusal: BudgetTooSmall) -> Group:
    """A plan within a budget that the most steps there can be do not fit.

    Raises:
        BudgetTooSmall: if nothing fits; it names the least that does.
    """
    low, high = _without_steps(plan, ask), refusal.minimum
    most = max(0, high - low)  # what the method reserved
    if found := _searched(plan, ask, budget, most):
        return found
    fits: Group | None = None
    while low < high:
        middle = (low + high) // 2
        if found := _searched(plan, ask, middle, most):
            high, fits = middle, found
        else:
            low = middle + 1
    if fits is None or high > budget:
        raise refusal.with_minimum(high) from None
    return fits  # what fits need not fit with a few bytes more


def _steps(group: Group) -> int:
    """Bytes of a group's centres and steps, but for those that lie with each row."""
    return sum(
        steps_bytes(len(pool.slices), 0, pool.width, pool.scale)
        for pool in group.pools
        if pool.packed
    )


def _searched(plan: Planner, ask: Ask, budget: int, most: int) -> Group | None:
    """The fullest plan within a budget that halving finds of those that reserve up to `most`."""
    low, high, best = 0, most + 1, None
    for _ in range(TRIES):
        reserved = (low + high) // 2
        try:
            found = plan(replace(ask, budget=budget, reserved=reserved))
        except BudgetTooSmall:
            high = reserved
        else:
            if found.bytes(ask.dim) > budget:
                low = reserved + 1
            else:
                high = reserved
                if best is None or found.bytes(ask.dim) > best.bytes(ask.dim):
                    best = found
        if low >= high:
            break
    return best


def _without_steps(plan: Planner, ask: Ask) -> int:
    """The least bytes that a method needs beside centres and steps."""
    try:
        plan(replace(ask, budget=1, reserved=0))
    except BudgetTooSmall as error:
        return error.minimum
    return 1
