"""How often the training part holds its ids, and where: statistics of a log, in one pass each."""

from typing import TYPE_CHECKING

import numpy as np

from bitfold.data.table import Bags
from bitfold.planning.statistics import AT_ONCE, Counted, Counts, Ids, Occurrences

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bitfold.planning.statistics import Part
    from bitfold.training.rows import TrainingRows

_WAITING = 1 << 22  # ids that wait to be counted together


class LogStatistics:
    """The statistics of a training part; the log is read when they are first asked for.

    Ids are those that the model is given: mapped to dense ones where there is a map.

    Args:
        rows: the log, and the map to dense ids if there is one.
    """

    def __init__(self, rows: "TrainingRows") -> None:
        self._rows = rows
        self._counted: Counted | None = None
        self.rows = rows.count("train")

    def top(self, field: str, k: int) -> tuple[Ids, Counts]:
        """The `k` most frequent ids and their counts."""
        return self._all().top(field, k)

    def counts(self, field: str, ids: Ids) -> Counts:
        """How often each of these ids occurs."""
        return self._all().counts(field, ids)

    def distinct(self, field: str) -> int:
        """How many distinct ids a field has."""
        return self._all().distinct(field)

    def occurrences(self) -> "Iterator[Part]":
        """The rows in their order, read from the log as they are asked for."""
        first = 0
        for shard in self._rows.log.columns("train", [f"id:{name}" for name in self._names]):
            columns = [shard[f"id:{name}"] for name in self._names]
            length = min(map(len, columns))
            for begin in range(0, length, AT_ONCE):
                end = min(begin + AT_ONCE, length)
                yield {
                    name: self._placed(number, column, begin, end, first)
                    for number, (name, column) in enumerate(zip(self._names, columns, strict=True))
                }
            first += length

    @property
    def _names(self) -> "Sequence[str]":
        return self._rows.log.schema.field_names

    def _placed(
        self, number: int, column: "Ids | Bags", begin: int, end: int, first: int
    ) -> Occurrences:
        """Some rows of a shard whose rows are numbered from `first` on."""
        rows = first + np.arange(begin, end)
        if isinstance(column, Bags):
            bags = column.cut(begin, end)
            rows, ids = np.repeat(rows, np.diff(bags.offsets)), bags.values
        else:
            ids = column[begin:end]
        return Occurrences(self._rows.dense_ids(number, ids), rows)

    def _all(self) -> Counted:
        if self._counted is None:
            self._counted = Counted(_count(self._rows))
        return self._counted


def _count(rows: "TrainingRows") -> dict[str, tuple[Ids, Counts]]:
    names = rows.log.schema.field_names
    found = {name: (np.empty(0, np.int64), np.empty(0, np.int64)) for name in names}
    waiting: dict[str, list[Ids]] = {name: [] for name in names}
    for columns in rows.log.id_columns("train"):
        for number, (name, ids) in enumerate(zip(names, columns, strict=True)):
            waiting[name].append(rows.dense_ids(number, ids))
            if sum(map(len, waiting[name])) >= _WAITING:
                found[name] = merged(found[name], waiting[name])
                waiting[name] = []
    return {name: merged(found[name], waiting[name]) for name in names}


def merged(found: tuple[Ids, Counts], waiting: "Sequence[Ids]") -> tuple[Ids, Counts]:
    """Counts with more ids counted in."""
    if not waiting:
        return found
    more, times = np.unique(np.concatenate(list(waiting)), return_counts=True)
    ids, place = np.unique(np.concatenate([found[0], more]), return_inverse=True)
    counts = np.zeros(len(ids), np.int64)
    np.add.at(counts, place, np.concatenate([found[1], times]))
    return ids, counts
