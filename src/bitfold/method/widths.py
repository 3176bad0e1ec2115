"""Widths: a row for every id, narrower than `D`, and for each field a matrix that lifts it."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from bitfold.method.allocation import check_minimum
from bitfold.method.base import Method, dense_only
from bitfold.method.hash import field_sizes
from bitfold.planning.ask import Ask
from bitfold.planning.spec import Group, PoolSpec, dtype_size

STEPS = 64  # halvings of an interval


def groups_of_widths(
    method: Method, ask: Ask, wanted: Callable[[float], Sequence[float]]
) -> tuple[Group, ...]:
    """Groups of fields of one width each, together as wide as the budget allows.

    A field is whole where that weighs no more than narrower rows with their matrix. What is left
    widens, number by number, the fields that whole numbers have taken most from.

    Args:
        method: whose groups they are.
        ask: what it was asked for.
        wanted: the fields' widths at a scale, from 0 at 0 to `D` or more at 1; at least 1 is given.

    Raises:
        BudgetTooSmall: for less than a number an id.
    """
    sizes = field_sizes(method.name, ask.fields, ask.budget)
    dense_only(method.name, ask.fields)
    assert ask.budget is not None

    def useful(size: int, width: float) -> int:
        narrow = max(1, min(ask.dim, int(width)))
        return ask.dim if _bytes(ask, size, ask.dim) <= _bytes(ask, size, narrow) else narrow

    def at(scale: float) -> list[int]:
        return [useful(*pair) for pair in zip(sizes, wanted(scale), strict=True)]

    def weight(widths: Sequence[int]) -> int:
        return sum(group.bytes(ask.dim) for group in _groups(method, ask, widths))

    check_minimum(method.name, weight(at(0.0)), ask.budget)
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if weight(at(middle)) <= ask.budget else (low, middle)
    scale = 1.0 if weight(at(1.0)) <= ask.budget else low
    found, ideal = at(scale), wanted(scale)
    spare = True
    while spare:
        spare = False
        for f in sorted(range(len(sizes)), key=lambda f: (found[f] - ideal[f], -sizes[f])):
            wider = [*found[:f], useful(sizes[f], found[f] + 1), *found[f + 1 :]]
            if found[f] < ask.dim and weight(wider) <= ask.budget:
                found, spare = wider, True
                break
    return _groups(method, ask, found)


def _groups(method: Method, ask: Ask, widths: Sequence[int]) -> tuple[Group, ...]:
    found = []
    for width in sorted(set(widths)):
        fields = tuple(number for number, each in enumerate(widths) if each == width)
        part = replace(ask, fields=tuple(ask.fields[number] for number in fields))
        group = method.whole(part, width)
        assert group is not None, "ids are dense"
        found.append(replace(group, fields=fields))
    return tuple(found)


def _bytes(ask: Ask, size: int, width: int) -> int:
    """What a field of that many ids weighs by itself."""
    slices = (0,) if ask.packed else ()
    scale = ask.scale if ask.packed else "slice"
    rows = PoolSpec("pool", size, width, ask.numbers, slices=slices, scale=scale).bytes
    return rows + (width < ask.dim) * width * ask.dim * dtype_size(ask.dtype)
