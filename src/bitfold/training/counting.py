"""How often the training part holds its ids: statistics of a log, counted in one pass."""

from typing import TYPE_CHECKING

import numpy as np

from bitfold.planning.statistics import Counted, Counts, Ids

if TYPE_CHECKING:
    from collections.abc import Sequence

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
                found[name] = _merged(found[name], waiting[name])
                waiting[name] = []
    return {name: _merged(found[name], waiting[name]) for name in names}


def _merged(found: tuple[Ids, Counts], waiting: "Sequence[Ids]") -> tuple[Ids, Counts]:
    """Counts with more ids counted in."""
    if not waiting:
        return found
    more, times = np.unique(np.concatenate(list(waiting)), return_counts=True)
    ids, place = np.unique(np.concatenate([found[0], more]), return_inverse=True)
    counts = np.zeros(len(ids), np.int64)
    np.add.at(counts, place, np.concatenate([found[1], times]))
    return ids, counts
