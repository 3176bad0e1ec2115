"""Counts of a field's ids in bounded memory: each slot has an id, how often it came, its size.

Source: Space Saving (Metwally, Agrawal, El Abbadi, ICDT 2005) in buckets of a few slots, as in
`bitfold.embedder.sketch`; here slots keep whole ids, from which keys of any salt follow.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BUCKET = 4
FORGOTTEN = 1 / 16
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
Ids = NDArray[np.int64]


def slots_of(fields: Sequence[tuple[int | None, bool]], total: int) -> list[int]:
    """Slots of fields: what small ones do not need goes to the others.

    Args:
        fields: the ids of each, None where nobody knows, and whether they are dense. A dense field
            that fits has a slot an id; the others have whole buckets, of twice their ids at most.
        total: slots of all fields; each has a bucket at least.

    Example:
        >>> slots_of([(None, False), (10, True), (3, False), (100, True)], 60)
        [24, 10, 4, 20]
    """
    order = sorted(range(len(fields)), key=lambda f: (fields[f][0] is None, fields[f][0] or 0))
    found = [0] * len(fields)
    for rank, number in enumerate(order):
        size, dense = fields[number]
        room = max((total - sum(found)) // (len(fields) - rank), BUCKET)
        if dense and size is not None and size <= room:
            found[number] = size
        else:
            most = room if size is None else min(room, 2 * size)
            found[number] = max(most // BUCKET, 1) * BUCKET
    return found


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
