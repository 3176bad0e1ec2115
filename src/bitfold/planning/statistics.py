"""What a method may ask of a log: how often its ids occur, and in which rows. Who read it is no
matter.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bitfold.errors import BitfoldError

Ids = NDArray[np.int64]
Counts = NDArray[np.int64]
AT_ONCE = 1 << 16  # rows of a part


class Occurrences(NamedTuple):
    """Where ids of a field occur: one entry for each id of each row.

    Args:
        ids: int64 `[T]`.
        rows: the number of each one's row, int64 `[T]`, in ascending order; rows of a field of
            bags may have several ids, or none.
    """

    ids: Ids
    rows: NDArray[np.int64]


Part = Mapping[str, Occurrences]
"""Some neighbouring rows of a log, by field."""


class Statistics(Protocol):
    """Counts of the training part, field by field, and its rows.

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

    def occurrences(self) -> Iterator[Part] | None:
        """The rows in their order, up to `AT_ONCE` at a time; each row comes once.

        Returns:
            None where ids were counted and rows are not at hand.
        """


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

    def occurrences(self) -> Iterator[Part] | None:
        """Refused."""
        raise _not_yet("(any)")


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

    _columns: dict[str, Occurrences] | None = None

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

    @classmethod
    def of_rows(cls, columns: Mapping[str, Any]) -> "Counted":
        """Statistics of rows that are at hand, which methods may also read one by one.

        Args:
            columns: for each field its ids `[N]`, one a row; or, of bags, a pair of all ids `[T]`
                and the number of each one's row, 0 to N - 1, in ascending order.

        Raises:
            BitfoldError: columns of several lengths, or rows that do not ascend from 0.

        Example:
            >>> found = Counted.of_rows({"user": [7, 3, 7], "tags": ([1, 2, 1], [0, 0, 2])})
            >>> found.rows, found.counts("user", np.array([7, 3])).tolist()
            (3, [2, 1])
            >>> [part["tags"].rows.tolist() for part in found.occurrences()]
            [[0, 0, 2]]
        """
        found, lengths = {}, {}
        for name, column in columns.items():
            pair = isinstance(column, tuple)
            ids = np.asarray(column[0] if pair else column, np.int64)
            rows = np.asarray(column[1], np.int64) if pair else np.arange(len(ids))
            if rows.shape != ids.shape or ids.ndim != 1 or (pair and _strays(rows)):
                raise BitfoldError(
                    f"the rows of field {name!r} are not told",
                    got=f"ids {list(ids.shape)}, rows {list(rows.shape)}",
                    expected="ids [N]; or ids [T] and the row of each, ascending from 0 on",
                )
            if not pair:
                lengths[name] = len(ids)
            found[name] = Occurrences(ids, rows)
        ends = [int(each.rows[-1]) + 1 for each in found.values() if len(each.rows)]
        count = max([*lengths.values(), *ends], default=0)
        if set(lengths.values()) - {count}:
            raise BitfoldError(
                "columns are not of the same rows",
                got=", ".join(f"{name}: {length}" for name, length in lengths.items()),
                expected=f"{count} rows each",
            )
        counts = {name: np.unique(each.ids, return_counts=True) for name, each in found.items()}
        made = cls(counts, count)
        made._columns = found
        return made

    def occurrences(self) -> Iterator[Part] | None:
        """The rows, where `of_rows` was given them."""
        return None if self._columns is None else self._parts(self._columns)

    def _parts(self, columns: dict[str, Occurrences]) -> Iterator[Part]:
        for first in range(0, self.rows or 0, AT_ONCE):
            part = {}
            for name, each in columns.items():
                begin, end = np.searchsorted(each.rows, [first, first + AT_ONCE])
                part[name] = Occurrences(each.ids[begin:end], each.rows[begin:end])
            yield part


def _strays(rows: NDArray[np.int64]) -> bool:
    """Whether numbers of rows do not ascend from 0 on."""
    return bool(len(rows)) and bool(rows[0] < 0 or np.any(np.diff(rows) < 0))
