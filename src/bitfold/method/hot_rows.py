"""Rows of hot ids beside rows that the others share: how many of each, and how they are read."""

from collections.abc import Callable

from bitfold.address import Lookup, Mapped, Mixed
from bitfold.address.compact_map import MOST_IDS, CompactMap
from bitfold.address.mixing import derive_salt, field_salt
from bitfold.address.source import MOST_MISSES
from bitfold.errors import BitfoldError
from bitfold.method.allocation import check_minimum
from bitfold.planning.ask import Ask
from bitfold.planning.spec import Group


def check_share(name: str, share: float) -> None:
    """Raise unless a share lies between 0 and 1."""
    if not 0 < share < 1:
        raise BitfoldError(f"{name} is out of range", got=share, expected="between 0 and 1")


def map_bytes(hot: int) -> int:
    """Bytes of the map of so many ids."""
    return CompactMap(hot, 0).bytes


def split(
    method: str,
    ask: Ask,
    share: float,
    whole: Group | None,
    beside: Callable[[int], int] = map_bytes,
    pieces: int = 1,
) -> tuple[int, int]:
    """How many rows hot ids own, and how many the others share.

    Args:
        method: whose they are, for errors.
        ask: what it was asked for.
        share: of the budget, for rows of hot ids and what is kept of them beside.
        whole: the full table, which may be less than the least of the two.
        beside: what is kept beside the rows of so many hot ids, in bytes.
        pieces: of a vector; a row is one, and an id may own them all.

    Raises:
        BudgetTooSmall: for a row of each kind.
    """
    width = ask.dim // pieces
    unit, fixed = ask.row_bytes(width), ask.fixed_bytes(1, width)

    def taken(hot: int) -> int:
        return hot * unit + beside(hot)

    least = fixed + taken(1) + unit
    least = least if whole is None else min(least, whole.bytes(ask.dim))
    assert ask.budget is not None
    check_minimum(method, least, ask.budget)
    room = ask.budget - fixed
    sizes = [field.size for field in ask.fields]
    most = MOST_IDS if None in sizes else pieces * sum(filter(None, sizes))
    hot = min(most, max(1, int(share * room * 1024 / taken(1024))))
    while hot > 1 and taken(hot) + unit > room:
        hot -= 1
    return hot, min((room - taken(hot)) // unit, MOST_MISSES)


def hot_lookup(ask: Ask, field: str, hot: int, shared: int, k: int, bits: int = 64) -> Lookup:
    """The lookup of a field: a hot id's row, or the `k`-th shared one of another.

    Args:
        ask: with the seed of the salts.
        field: its name. The map of all fields holds ids mixed by it.
        hot: rows of hot ids.
        shared: rows of the others.
        k: which of a cold id's rows; the first follows from what the map knows it by.
        bits: of what the map knows an id by.
    """
    key = Mixed(field_salt(ask.seed, field), 64, bits)
    miss = Mixed(field_salt(ask.seed, field, k), 64, bits) if k else key
    source = Mapped("hot", hot, derive_salt(ask.seed, 0), miss, shared, key)
    return Lookup(source, hot + shared, 0)
