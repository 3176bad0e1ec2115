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

MAP = "hot"  # the name of the map of hot ids
SHARED = 8  # without a budget, rows of hot ids for each row that the others share


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
    *,
    slices: int = 1,
    least: int = 1,
    rows: int | None = None,
    pieces: int = 1,
) -> tuple[int, int]:
    """How many rows hot ids own, and how many the others share.

    Args:
        method: whose they are, for errors.
        ask: what it was asked for.
        share: of the budget, for rows of hot ids and what is kept of them beside.
        whole: the full table, which may be less than the least of the two.
        beside: what is kept beside the rows of so many hot ids, in bytes.
        slices: slices of rows that have steps of their own.
        least: the fewest rows that the others can share.
        rows: how many hot ids own, where that is said; without a budget it must be.
        pieces: of a vector; a row is one, and an id may own them all.

    Raises:
        BudgetTooSmall: for the fewest rows of each kind.
    """
    if ask.budget is None:
        assert rows is not None
        return rows, max(least, rows // SHARED)
    width = ask.dim // pieces
    unit, fixed = ask.row_bytes(width), ask.fixed_bytes(slices, width)

    def taken(hot: int) -> int:
        return hot * unit + beside(hot)

    minimum = fixed + taken(rows or 1) + least * unit
    minimum = minimum if whole is None else min(minimum, whole.bytes(ask.dim))
    check_minimum(method, minimum, ask.budget)
    room = ask.budget - fixed
    sizes = [field.size for field in ask.fields]
    most = MOST_IDS if None in sizes else pieces * sum(filter(None, sizes))
    hot = rows or min(most, max(1, int(share * room * 1024 / taken(1024))))
    while rows is None and hot > 1 and taken(hot) + least * unit > room:
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
    source = Mapped(MAP, hot, derive_salt(ask.seed, 0), miss, shared, key)
    return Lookup(source, hot + shared, 0)
