"""How a compact map's table is built: pilots that leave every id a place of its own.

The search is compiled by Numba: two million ids take about a second.
"""

import numpy as np
from numpy.typing import NDArray

from bitfold.address.compact_map import MOST_ATTEMPTS, PILOTS_AT, STEP, CompactMap
from bitfold.errors import BitfoldError
from bitfold.kernels.map_search import search


def build_map(shape: CompactMap, ids: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The table of a set of ids: the same for the same ids, in whatever order.

    Args:
        shape: the map.
        ids: int64, in any order, as often as they like; no more distinct ones than
            `shape.capacity`. Places that are left over have a fingerprint like any other.

    Returns:
        uint8 `[bytes]`.

    Raises:
        BitfoldError: for more ids than there are places.
    """
    if ids.dtype != np.int64 or ids.ndim != 1:
        raise BitfoldError(
            "a map is built of ids", got=f"{ids.dtype} {list(ids.shape)}", expected="int64 [n]"
        )
    for attempt in range(MOST_ATTEMPTS):
        hashes = np.sort(shape.hashes(ids, attempt))
        hashes = hashes[np.diff(hashes, prepend=~hashes[:1]) != 0]  # the mixer is one to one
        if len(hashes) > shape.capacity:
            raise BitfoldError(
                "a map has fewer places than there are ids",
                got=f"{len(hashes)} distinct ids",
                expected=f"{shape.capacity} at most",
                fix="plan it for as many ids as the training part has",
            )
        starts = np.searchsorted(shape.bucket_of(hashes), np.arange(shape.buckets + 1))
        order = np.argsort(starts[:-1] - starts[1:], kind="stable")
        pilots = np.zeros(shape.buckets, np.uint8)
        if search()(hashes, starts, order, shape.capacity, pilots, 2 * len(hashes) + 4096):
            return _table(shape, attempt, pilots, hashes)
    raise AssertionError("no salt of 256 had a solution")


def _table(
    shape: CompactMap, attempt: int, pilots: NDArray[np.uint8], hashes: NDArray[np.uint64]
) -> NDArray[np.uint8]:
    table = np.empty(shape.bytes, np.uint8)
    table[0] = attempt
    table[PILOTS_AT : shape.fingerprints_at] = pilots
    # Places that no id has: a byte that is as good as drawn matches one id in 256.
    places = np.arange(shape.capacity, dtype=np.uint64)
    table[shape.fingerprints_at :] = (places * np.uint64(STEP) >> np.uint64(56)).astype(np.uint8)
    at = shape.fingerprints_at + shape.places_of(hashes, pilots)
    table[at] = hashes.astype(np.uint8)
    return table
