"""Columns that follow from the item: each item has one value there, however often it comes.

A genre belongs to the item. Left with the context, it would stay when another item takes the
item's place: a model would learn that drawn negatives have genres that are not theirs.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from bitfold.data.hashing import mix
from bitfold.data.table import Bags
from bitfold.errors import BitfoldError

Ints = npt.NDArray[np.int64]

CHANCE = 1e-6
"""A column is said to follow if so many equal values would come by chance less often than this."""

_SALT = 0xF011


class Follows:
    """Watches columns while a log is read; a column that does not follow costs nothing more.

    Memory: 8 bytes an item, and 8 more for each column that may still follow.

    Example:
        >>> watch = Follows(["genre", "hour"])
        >>> items = np.repeat(np.arange(30), 2)
        >>> watch.add(items, {"genre": items % 5, "hour": np.arange(60)})
        >>> watch.found()
        ['genre']
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = list(names)
        self._ids: Ints = np.zeros(0, np.int64)
        self._values: dict[str, Ints] = {name: np.zeros(0, np.int64) for name in self.names}
        self._rows = 0

    def add(self, ids: Ints, columns: Mapping[str, Ints]) -> None:
        """Take in rows: the items `[n]`, and a number `[n]` for each value of a column."""
        if not self._values:
            return
        keys, first, row = np.unique(ids, return_index=True, return_inverse=True)
        self._rows += len(ids)
        place = np.searchsorted(self._ids, keys)
        known = np.zeros(len(keys), bool)
        inside = place < len(self._ids)
        known[inside] = self._ids[place[inside]] == keys[inside]
        new = place[~known]
        for name, values in list(self._values.items()):
            mine = columns[name][first]
            same = (mine[row] == columns[name]).all() and (
                values[place[known]] == mine[known]
            ).all()
            if same:
                self._values[name] = np.insert(values, new, mine[~known])
            else:
                del self._values[name]
        self._ids = np.insert(self._ids, new, keys[~known])

    def found(self) -> list[str]:
        """The columns that follow from the item, by more than chance."""
        repeats = self._rows - len(self._ids)
        out = []
        for name, values in self._values.items():
            _, counts = np.unique(values, return_counts=True)
            alike = float(((counts / max(len(values), 1)) ** 2).sum())
            if alike < 1 and repeats * math.log(alike) < math.log(CHANCE):
                out.append(name)
        return out


def row_keys(column: npt.NDArray[np.generic] | Bags) -> Ints:
    """A 64-bit number for each row of a column, equal where the rows are."""
    if not isinstance(column, Bags):
        if column.dtype == np.float32:
            return column.view(np.int32).astype(np.int64)
        if column.dtype == np.float64:
            return column.view(np.int64)
        return column.astype(np.int64, copy=False)
    lengths = np.diff(column.offsets)
    place = np.arange(len(column.values)) - np.repeat(column.offsets[:-1], lengths)
    keys = mix(column.values ^ mix(place, _SALT).view(np.int64), _SALT)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(keys, dtype=np.uint64)])
    found: Ints = (sums[column.offsets[1:]] - sums[column.offsets[:-1]]).view(np.int64) ^ lengths
    return found


def refuse_following(names: Sequence[str], item: str) -> None:
    """Raise if columns follow from the item that are not said to belong to it."""
    if names:
        raise BitfoldError(
            f"{names[0]!r} belongs to {item!r}: each {item} has one value there",
            got=f"{', '.join(names)} not among the item's columns",
            expected=f"columns of their own for items, so that another {item} brings its own",
            fix=f"prepare the log with --item {item} --item-fields {','.join(names)}",
        )
