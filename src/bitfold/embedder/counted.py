"""Counts of a field's ids in bounded memory: each slot has an id, how often it came, its size.

Source: Space Saving (Metwally, Agrawal, El Abbadi, ICDT 2005) in buckets of a few slots, as in
`bitfold.embedder.sketch`; here slots keep whole ids, from which keys of any salt follow.
"""

import numpy as np
from numpy.typing import NDArray

BUCKET = 4
FORGOTTEN = 1 / 16
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
Ids = NDArray[np.int64]


def slots_of(size: int | None, room: int) -> int:
    """Slots of a field of so many dense ids, or of hashed ones: a slot an id, or whole buckets.

    Example:
        >>> slots_of(10, 16), slots_of(100, 18), slots_of(None, 1)
        (10, 16, 4)
    """
    if size is not None and size <= room:
        return size
    return max(room // BUCKET, 1) * BUCKET


class Counted:
    """The counts of one field; a newcomer takes the slot of the least count, and that count.

    Args:
        ids: int64 `[slots]`.
        counts: float32 `[slots]`; 0 where a slot is empty.
        sizes: uint8 `[slots]`, what the id has; 0 for a newcomer.
        exact: whether ids are numbers of slots.

    Example:
        >>> counted = Counted(np.zeros(4, np.int64), np.zeros(4, np.float32), np.zeros(4, np.uint8))
        >>> counted.add(np.array([-7, 9]), np.array([2, 1]))
        >>> counted.add(np.array([9]), np.array([5]))
        >>> sorted(zip(counted.ids[counted.known].tolist(), counted.counts[counted.known].tolist()))
        [(-7, 2.0), (9, 6.0)]
    """

    def __init__(
        self,
        ids: Ids,
        counts: NDArray[np.float32],
        sizes: NDArray[np.uint8],
        exact: bool = False,
    ) -> None:
        self.ids, self.counts, self.sizes, self.exact = ids, counts, sizes, exact

    @property
    def known(self) -> Ids:
        """The slots that have an id."""
        return np.flatnonzero(self.counts > 0)

    def fade(self, decay: float) -> None:
        """Multiply all counts; an id whose count is next to nothing is forgotten."""
        self.counts *= np.float32(decay)
        self.counts[self.counts < FORGOTTEN] = 0

    def add(self, ids: Ids, times: NDArray[np.int64]) -> None:
        """Count distinct ids; of newcomers a bucket takes the most frequent, one a slot at most."""
        if self.exact:
            inside = (ids >= 0) & (ids < len(self.ids))
            at = ids[inside]
            self.ids[at] = at
            self.counts[at] += times[inside].astype(np.float32)
            return
        counts, names = self.counts.reshape(-1, BUCKET), self.ids.reshape(-1, BUCKET)
        sizes = self.sizes.reshape(-1, BUCKET)
        spread = ids.astype(np.uint64) * _SPREAD >> np.uint64(32)
        bucket = (spread * np.uint64(len(names)) >> np.uint64(32)).astype(np.int64)
        same = (names[bucket] == ids[:, None]) & (counts[bucket] > 0)
        known = same.any(1)
        counts[bucket[known], same[known].argmax(1)] += times[known].astype(np.float32)
        new = np.flatnonzero(~known)
        new = new[np.argsort(-times[new], kind="stable")]
        for _ in range(BUCKET):
            _, first = np.unique(bucket[new], return_index=True)
            at, which = bucket[new[first]], new[first]
            slot = counts[at].argmin(1)
            counts[at, slot] += times[which].astype(np.float32)
            names[at, slot] = ids[which]
            sizes[at, slot] = 0
            new = np.delete(new, first)
