"""What a method may ask of a log: how often its ids occur. Who counted them is no matter."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bitfold.errors import BitfoldError

Ids = NDArray[np.int64]
Counts = NDArray[np.int64]


class Statistics(Protocol):
    """Counts of the training part, field by field.

    Ids are those that an embedding is given: dense ones, or hashed ones of 64 bits.
    """

    @property
    def rows(self) -> int | None:
        """How many rows the training part has; None if nobody knows."""

    def top(self, field: str, k: int) -> tuple[Ids, Counts]:
        """The `k` most frequent ids of a field, or all there are, and how often each occurs.

        They come in falling order of their counts, equal ones in the order of the ids.
        """

    def counts(self, field: str, ids: Ids) -> Counts:
        """How often each of these ids occurs; 0 for one that was never met."""

    def distinct(self, field: str) -> int:
        """How many distinct ids a field has."""


class Promised:
    """Statistics that a training will have, for planning before it: nothing is counted yet.

    Args:
        rows: how many rows the training part has, if that is known.
    """

    def __init__(self, rows: int | None = None) -> None:
        self.rows = rows

    def top(self, field: str, k: int) -> tuple[Ids, Counts]:
        """Refused."""
        raise _not_yet(field)

    def counts(self, field: str, ids: Ids) -> Counts:
        """Refused."""
        raise _not_yet(field)

    def distinct(self, field: str) -> int:
        """Refused."""
        raise _not_yet(field)


def _not_yet(field: str) -> BitfoldError:
    return BitfoldError(
        f"the ids of field {field!r} are not counted yet",
        got="a plan made before training",
        expected="a method that plans by the fields' sizes alone",
        fix="train, or give counts: plan(..., stats=Counted(...))",
    )


class Counted:
    """Statistics of counts that are at hand.

    Args:
        counted: for each field its distinct ids, in any order, and how often each occurs.
        rows: how many rows were counted, if that is known.

    Example:
        >>> found = Counted({"user": (np.array([7, 3, 9]), np.array([1, 5, 1]))})
        >>> found.top("user", 2)
        (array([3, 7]), array([5, 1]))
        >>> found.counts("user", np.array([9, 4]))
        array([1, 0])
    """

    def __init__(self, counted: dict[str, tuple[Any, Any]], rows: int | None = None) -> None:
        self.rows = rows
        self._by_id: dict[str, tuple[Ids, Counts]] = {}
        for field, (ids, counts) in counted.items():
            ids, counts = np.asarray(ids, np.int64), np.asarray(counts, np.int64)
            order = np.argsort(ids, kind="stable")
            self._by_id[field] = ids[order], counts[order]

    def top(self, field: str, k: int) -> tuple[Ids, Counts]:
        """The `k` most frequent ids and their counts."""
        ids, counts = self._by_id[field]
        order = np.argsort(-counts, kind="stable")[:k]
        return ids[order], counts[order]

    def counts(self, field: str, ids: Ids) -> Counts:
        """How often each of these ids occurs."""
        known, counts = self._by_id[field]
        if not len(known):
            return np.zeros(len(ids), np.int64)
        place = np.searchsorted(known, ids).clip(max=len(known) - 1)
        return np.where(known[place] == ids, counts[place], 0)

    def distinct(self, field: str) -> int:
        """How many distinct ids a field has."""
        return len(self._by_id[field][0])
