"""Counts of ids in bounded memory: distinct ids, and the most frequent ones."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bitfold.data.hashing import mix

EXACT_CAP = 1 << 22
"""Distinct ids of one field that are counted exactly; beyond it they are sampled."""

TOTAL_CAP = 1 << 24
"""Ids that are kept for all fields together: 256 MiB."""

_SALT = 0x5EED
_HOT = 1 << 12

Ids = npt.NDArray[np.int64]


class IdCounter:
    """Counts the ids of one field.

    Up to `cap` distinct ids all are kept, and everything is exact. Beyond it only ids whose mixed
    hash begins with `level` zero bits are kept, and the number of distinct ids is estimated as
    `kept * 2**level`, with a relative standard error of `1 / sqrt(kept)` (adaptive sampling:
    Flajolet 1990). The ids that were most frequent when sampling began stay counted exactly;
    since rows come in random order, they are the frequent ones of the whole log.

    Args:
        cap: distinct ids to keep, or None to keep all.

    Example:
        >>> counter = IdCounter()
        >>> counter.add(np.array([5, 5, -1]))
        >>> counter.distinct, counter.exact, counter.head(1)
        (2, True, [(5, 2)])
    """

    def __init__(self, cap: int | None = EXACT_CAP) -> None:
        self.cap = cap
        self.level = 0
        self._keys: Ids = np.empty(0, np.int64)
        self._counts: Ids = np.empty(0, np.int64)
        self._pending: list[tuple[Ids, Ids]] = []
        self._waiting = 0
        self._hot: Ids = np.empty(0, np.int64)
        self._hot_counts: Ids = np.empty(0, np.int64)

    def add(self, ids: Ids) -> None:
        """Count some ids."""
        keys, counts = np.unique(ids, return_counts=True)
        if self.level:
            self._count_hot(keys, counts)
            keys, counts = self._sample(keys, counts)
        self._pending.append((keys, counts))
        self._waiting += len(keys)
        # Merging costs the size of what is kept, so it waits until half as much has come.
        if self._waiting > max(len(self._keys) // 2, 1 << 16):
            self._merge()

    def _merge(self) -> None:
        if not self._pending:
            return
        keys, counts = _summed(self._pending)
        self._pending, self._waiting = [], 0
        # What is kept may be large: known ids are counted in place, and only new ones make a copy.
        place = np.searchsorted(self._keys, keys)
        known = np.zeros(len(keys), bool)
        inside = place < len(self._keys)
        known[inside] = self._keys[place[inside]] == keys[inside]
        self._counts[place[known]] += counts[known]
        if not known.all():
            new = place[~known]
            self._keys = np.insert(self._keys, new, keys[~known])
            self._counts = np.insert(self._counts, new, counts[~known])
        self._thin()

    def _thin(self) -> None:
        while self.cap is not None and len(self._keys) > self.cap:
            if self.level == 0:
                hot = np.sort(np.argsort(-self._counts, kind="stable")[:_HOT])
                self._hot, self._hot_counts = self._keys[hot], self._counts[hot].copy()
            self.level += 1
            self._keys, self._counts = self._sample(self._keys, self._counts)

    @property
    def kept(self) -> int:
        """Ids held in memory; each takes 16 bytes."""
        return len(self._keys) + self._waiting

    def halve(self) -> None:
        """Lower the cap so that at most half of the ids stay."""
        self._merge()
        self.cap = max(len(self._keys) // 2, 1 << 12)
        self._thin()

    def sampled(self, keys: Ids, counts: Ids) -> tuple[Ids, Ids]:
        """Those of some ids that would be kept."""
        return self._sample(keys, counts) if self.level else (keys, counts)

    def _sample(self, keys: Ids, counts: Ids) -> tuple[Ids, Ids]:
        kept = mix(keys, _SALT) >> np.uint64(64 - self.level) == 0
        return keys[kept], counts[kept]

    def _count_hot(self, keys: Ids, counts: Ids) -> None:
        place = np.searchsorted(self._hot, keys)
        place[place == len(self._hot)] = 0
        met = self._hot[place] == keys
        self._hot_counts[place[met]] += counts[met]

    @property
    def distinct(self) -> int:
        """Distinct ids met; an estimate unless `exact`."""
        self._merge()
        return len(self._keys) << self.level

    @property
    def exact(self) -> bool:
        """Whether nothing was sampled."""
        self._merge()
        return self.level == 0

    @property
    def standard_error(self) -> float:
        """The standard error of `distinct`, in ids."""
        self._merge()
        if self.level == 0:
            return 0.0
        return self.distinct / math.sqrt(max(len(self._keys), 1))

    def counts(self) -> tuple[Ids, Ids]:
        """The sorted ids kept, and how often each was met."""
        self._merge()
        return self._keys, self._counts

    def head(self, length: int) -> list[tuple[int, int]]:
        """The most frequent ids with their counts, falling."""
        self._merge()
        keys, counts = self._keys, self._counts
        if self.level:
            keys, counts = self._hot, self._hot_counts
        order = np.lexsort((keys, -counts))[:length]
        return [(int(keys[i]), int(counts[i])) for i in order]


def _summed(pairs: list[tuple[Ids, Ids]]) -> tuple[Ids, Ids]:
    """Sorted ids and their counts, out of several such pairs."""
    if len(pairs) == 1:
        return pairs[0]
    keys = np.concatenate([keys for keys, _ in pairs])
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    counts = np.concatenate([counts for _, counts in pairs])[order]
    if len(keys):
        starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        keys, counts = keys[starts], np.add.reduceat(counts, starts)
    return keys, counts


def hold_to(counters: Sequence[IdCounter], total: int) -> None:
    """Keep at most `total` ids in all capped counters: the largest give way first."""
    capped = [counter for counter in counters if counter.cap is not None]
    while sum(counter.kept for counter in capped) > total:
        largest = max(capped, key=lambda counter: counter.kept)
        before = largest.kept
        largest.halve()
        if largest.kept >= before:
            return


LARGEST = 1e100
"""Numbers beyond it count as it, in means and deviations: their squares must stay finite."""

_ROUNDING = 64 * 2.0**-52


class Moments:
    """Count, mean and deviation of a stream of numbers (Chan, Golub, LeVeque 1979).

    Example:
        >>> moments = Moments()
        >>> for chunk in ([0.1, 0.1], [0.1]):
        ...     moments.add(np.array(chunk))
        >>> moments.deviation  # all are equal: not the 1e-17 that rounding leaves
        1.0
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self._squares = 0.0
        self._largest = 0.0

    def add(self, values: npt.NDArray[np.float64]) -> None:
        """Take in some numbers without NaN."""
        if not len(values):
            return
        values = np.clip(values, -LARGEST, LARGEST)
        mean = float(values.mean())
        squares = float(((values - mean) ** 2).sum())
        total = self.count + len(values)
        apart = mean - self.mean
        self._squares += squares + apart * apart * self.count * len(values) / total
        self.mean += apart * len(values) / total
        self.count = total
        self._largest = max(self._largest, float(np.abs(values).max()))

    @property
    def deviation(self) -> float:
        """The standard deviation; 1 where all numbers are equal, so that it can divide.

        Numbers that differ by no more than rounding count as equal: means and logarithms are off
        by a few units in the last place of the largest number.
        """
        spread = math.sqrt(self._squares / self.count) if self.count else 0.0
        return spread if spread > _ROUNDING * self._largest else 1.0


class Sample:
    """A uniform sample of a stream of numbers, kept by a hash of their row: seeded, not random.

    Up to `cap` numbers all are kept, and quantiles are exact.
    """

    def __init__(self, cap: int = 1 << 21) -> None:
        self.cap = cap
        self.level = 0
        self._values: list[npt.NDArray[np.float64]] = []
        self._marks: list[npt.NDArray[np.uint64]] = []
        self._held = 0

    def add(self, values: npt.NDArray[np.float64], marks: npt.NDArray[np.uint64]) -> None:
        """Take in numbers, with a uniform 64-bit mark for each row."""
        kept = self._under(marks)
        self._values.append(values[kept])
        self._marks.append(marks[kept])
        self._held += int(kept.sum())
        while self._held > self.cap:
            self.level += 1
            all_values, all_marks = np.concatenate(self._values), np.concatenate(self._marks)
            kept = self._under(all_marks)
            self._values, self._marks = [all_values[kept]], [all_marks[kept]]
            self._held = int(kept.sum())

    def _under(self, marks: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        if self.level == 0:
            return np.ones(len(marks), bool)
        kept: npt.NDArray[np.bool_] = marks >> np.uint64(64 - self.level) == 0
        return kept

    def sorted(self) -> npt.NDArray[np.float64]:
        """The numbers kept, in order."""
        return np.sort(np.concatenate(self._values)) if self._values else np.empty(0)
