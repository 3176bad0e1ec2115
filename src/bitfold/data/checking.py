"""Rows in memory: whether they are dictionaries of the columns that are wanted."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

from bitfold.errors import BitfoldError

NEAR = 0.75
MOST_LOOKED_AT, MOST_SHOWN = 256, 32  # names of one row that nobody asked for


def check_row(row: Any, wanted: Sequence[str], index: int) -> None:
    """Refuse what is no dictionary, or a name that is none of the columns but nearly one.

    A key that a row lacks is a missing value. A row is judged by itself: which keys the other
    rows have changes nothing.
    """
    if not isinstance(row, Mapping):
        raise BitfoldError(
            f"row {index + 1} is no dictionary",
            got=f"a {type(row).__name__}",
            expected="a value by column name, such as {'user': 5}",
        )
    lacking = [name for name in wanted if name not in row]
    if not lacking:
        return
    known = set(wanted)
    others = [
        str(name) for name in islice((key for key in row if key not in known), MOST_LOOKED_AT)
    ]
    for name in lacking:
        # A name of quite another length is not near, and nothing to keep in a cache.
        sized = [other for other in others if len(name) < 2 * len(other) < 4 * len(name)]
        near = [other for other in sized if _is_near(name, other)]
        if near or len(lacking) == len(wanted):
            best = difflib.get_close_matches(name, near, n=1, cutoff=NEAR)
            meant = f"did you mean {best[0]!r}?" if best else None
            raise BitfoldError(
                f"row {index + 1} has no column {name!r}",
                got=_listed(row) or "an empty row",
                expected=", ".join(wanted),
                fix=meant or "give the row's values by column name",
            )


@lru_cache(maxsize=16_384)
def _is_near(name: str, other: str) -> bool:
    """Whether one is likely meant by the other: asked for each row that lacks a column."""
    return bool(difflib.get_close_matches(name, [other], n=1, cutoff=NEAR))


def _listed(row: Mapping[Any, Any]) -> str:
    """The names in a row; the first of very many, and the beginnings of very long ones."""
    names = [str(name) for name in islice(row, MOST_SHOWN)]
    shown = [name if len(name) <= 60 else f"{name[:57]}..." for name in names]
    return ", ".join([*shown, *["..."] * (len(row) > MOST_SHOWN)])


def rows_of(rows: Any) -> Sequence[Any]:
    """Several rows as a sequence; the rows themselves are looked at by `check_row`.

    Raises:
        BitfoldError: it is one row, columns by name, or nothing that has rows.
    """
    if isinstance(rows, list | tuple):
        return rows
    if isinstance(rows, Mapping | str | bytes) or not isinstance(rows, Iterable):
        raise BitfoldError(
            "these are no rows",
            got=f"a {type(rows).__name__}",
            expected="a list of dictionaries, one a row",
            fix="give one row to score(), columns by name or a frame to scores_of()",
        )
    return list(rows)
