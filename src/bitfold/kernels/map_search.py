"""The search for a compact map's pilots, compiled: see `bitfold.address.compact_map`.

Arrays: `hashes` in order, each once; `starts`, where each bucket begins among them, and the end;
`owner`, the bucket that has a place, or -1; `taken`, a bit a place.
"""

from functools import lru_cache
from typing import Any

import numba
import numpy as np

from bitfold.address.compact_map import SPREAD, STEP
from bitfold.kernels.compiled import kept

_PILOTS = 256
_RECENT = 16  # buckets that were just placed are not driven out again
_NEVER = 1 << 60  # what a pilot costs that cannot be had
_STEP, _SPREAD, _WORD, _ONE = np.uint64(STEP), np.uint64(SPREAD), np.uint64(32), np.uint64(1)
_SIX, _LOWEST = np.uint64(6), np.uint64(63)
# A generator of pseudo-random words: Knuth's, MMIX.
_FACTOR, _TERM, _TOP = (np.uint64(n) for n in (6364136223846793005, 1442695040888963407, 56))
_once: Any = numba.njit(inline="always")


@_once
def _place_of(value, pilot, capacity):
    spread = (value ^ np.uint64(pilot) * _STEP) * _SPREAD
    return np.int64((spread >> _WORD) * np.uint64(capacity) >> _WORD)


@_once
def _free_pilot(hashes, start, end, begin, capacity, taken, places):
    """The first pilot from `begin` on whose places are all free, or -1; `places` are its."""
    for tried in range(_PILOTS):
        pilot, count = (begin + tried) % _PILOTS, 0
        for i in range(start, end):
            at = _place_of(hashes[i], pilot, capacity)
            if taken[at >> 6] >> (np.uint64(at) & _LOWEST) & _ONE:
                break
            places[count] = at
            count += 1
        if count == end - start and _differ(places, count):
            return pilot
    return np.int64(-1)


@_once
def _differ(places, count):
    for i in range(count):
        for j in range(i):
            if places[i] == places[j]:
                return False
    return True


@_once
def _cheapest_pilot(hashes, starts, bucket, begin, capacity, owner, recent, places):
    """The pilot whose places belong to the smallest buckets, or -1.

    Such buckets are driven out; sizes count squared, since large ones are hard to place again.
    """
    start, end = starts[bucket], starts[bucket + 1]
    least, found = _NEVER, np.int64(-1)
    for tried in range(_PILOTS):
        pilot, cost = (begin + tried) % _PILOTS, 0
        for i in range(start, end):
            at = _place_of(hashes[i], pilot, capacity)
            places[i - start], other = at, owner[at]
            if other >= 0:
                cost += (starts[other + 1] - starts[other]) ** 2
            if cost >= least:
                break
        if cost >= least or not _differ(places, end - start):
            continue
        for i in range(end - start):
            for k in range(_RECENT):
                if owner[places[i]] == recent[k] >= 0:
                    cost = _NEVER
        if cost < least:
            least, found = cost, pilot
            if cost == 1:
                break
    for i in range(start, end):
        places[i - start] = _place_of(hashes[i], found, capacity)
    return found


@lru_cache(maxsize=1)
def search() -> Any:
    """The compiled search."""

    @kept(
        numba.njit,
        "boolean(uint64[::1], int64[::1], int64[::1], int64, uint8[::1], int64)",
        nogil=True,
    )
    def found(hashes, starts, order, capacity, pilots, most):
        """Find pilots, or give up after `most` buckets that were driven out.

        Args:
            hashes, starts: as above.
            order: the buckets from the largest on.
            capacity: how many places there are.
            pilots: the result, a byte for each bucket.
            most: how many buckets may be driven out.
        """
        owner = np.full(capacity, -1, np.int32)
        taken = np.zeros((capacity >> 6) + 1, np.uint64)
        largest = starts[order[0] + 1] - starts[order[0]]
        # Buckets that wait for a place: a list for each size.
        heads = np.full(largest + 1, -1, np.int32)
        following = np.full(len(pilots), -1, np.int32)
        places, recent = np.empty(largest, np.int64), np.empty(_RECENT, np.int32)
        draw, turn, driven = _ONE, 0, 0
        for first in order:
            waiting = starts[first + 1] - starts[first]
            heads[waiting], recent[:] = first, -1
            while waiting > 0:
                bucket = heads[waiting]
                if bucket < 0:
                    waiting -= 1
                    continue
                heads[waiting] = following[bucket]
                start, end = starts[bucket], starts[bucket + 1]
                draw = draw * _FACTOR + _TERM
                begin = np.int64(draw >> _TOP)
                pilot = _free_pilot(hashes, start, end, begin, capacity, taken, places)
                if pilot < 0:
                    pilot = _cheapest_pilot(
                        hashes, starts, bucket, begin, capacity, owner, recent, places
                    )
                    if pilot < 0 or driven > most:
                        return False
                    for i in range(end - start):
                        other = owner[places[i]]
                        if other < 0:
                            continue
                        driven += 1
                        size = starts[other + 1] - starts[other]
                        for j in range(starts[other], starts[other + 1]):
                            at = _place_of(hashes[j], pilots[other], capacity)
                            owner[at] = -1
                            taken[at >> 6] &= ~(_ONE << (np.uint64(at) & _LOWEST))
                        following[other], heads[size] = heads[size], other
                        waiting = max(waiting, size)
                pilots[bucket] = pilot
                for i in range(end - start):
                    at = places[i]
                    owner[at] = bucket
                    taken[at >> 6] |= _ONE << (np.uint64(at) & _LOWEST)
                recent[turn] = bucket
                turn = (turn + 1) % _RECENT
        return True

    return found
