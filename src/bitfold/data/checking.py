"""Rows in memory: whether they are dictionaries of the columns that are wanted."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bitfold.errors import BitfoldError


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
    others = [str(name) for name in row if name not in wanted]
    for name in lacking:
        near = difflib.get_close_matches(name, others, n=1, cutoff=0.75)
        if near or len(lacking) == len(wanted):
            raise BitfoldError(
                f"row {index + 1} has no column {name!r}",
                got=", ".join(str(key) for key in row) or "an empty row",
                expected=", ".join(wanted),
                fix=f"did you mean {near[0]!r}?"
                if near
                else "give the row's values by column name",
            )


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
