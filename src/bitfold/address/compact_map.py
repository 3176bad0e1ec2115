"""A compact map: where the ids of a set lie, in about 10.5 bits an id, and nothing of the ids.

    h = mix(id, salt + attempt * _STEP)                 64 bits
    bucket = skewed(upper half of h) * buckets >> 32    few large buckets, many small ones
    place = upper half of ((h ^ pilot[bucket] * _STEP) * _SPREAD) * capacity >> 32
    the id is one of the set if fingerprint[place] = the lowest byte of h

A minimal perfect hash: each bucket's pilot, a byte, was sought so that no two ids of the set have
one place. Buckets were placed from the largest on; where no pilot leaves all ids of a bucket alone,
the one that costs least drives out others, which are placed again (`kernels/map_building.py`).
Source: Groot Koerkamp, "PtrHash", SEA 2025 (arXiv 2502.15539), with all places filled.

An id that is not of the set finds the fingerprint of another: one in 256 is taken for one of the
set. The table, uint8 `[bytes]`, is one byte for the attempt (another salt where the first ones had
no solution), then the pilots, then the fingerprints: its size follows from the capacity alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitfold.address.mixing import WORD, mix_int, mix_numpy, mix_torch, signed
from bitfold.address.words import Word, down, run_of
from bitfold.errors import BitfoldError

MAP_VERSION = 1
MOST_IDS = 1 << 31
MOST_ATTEMPTS = 256
PILOTS_AT = 1  # the first byte of the pilots
STEP, SPREAD = 0x9E3779B97F4A7C15, 0xA0761D6478BD642F
_HALF = 0xFFFFFFFF
_SIGNED_STEP, _SIGNED_SPREAD = signed(STEP), signed(SPREAD)


@dataclass(frozen=True)
class CompactMap:
    """The shape of a map; what it holds is its table.

    Args:
        capacity: how many ids there are at most, and how many places: 1 to 2**31.
        salt: what ids are mixed with.

    Example:
        >>> from bitfold.kernels.map_building import build_map
        >>> shape = CompactMap(3, salt=7)
        >>> table = build_map(shape, np.array([50, -4, 9]))
        >>> sorted(shape.place_int(table.tolist(), value) for value in (50, -4, 9))
        [0, 1, 2]
        >>> shape.bytes, CompactMap(1_000_000, salt=7).bytes
        (5, 1312501)
    """

    capacity: int
    salt: int

    def __post_init__(self) -> None:
        if not 1 <= self.capacity <= MOST_IDS:
            raise BitfoldError(
                "a map cannot be of that size", got=self.capacity, expected="1 to 2**31 ids"
            )

    @property
    def buckets(self) -> int:
        """How many buckets there are: 3.2 ids in each, on average."""
        return -(-self.capacity * 5 // 16)

    @property
    def fingerprints_at(self) -> int:
        """The first byte of the fingerprints."""
        return PILOTS_AT + self.buckets

    @property
    def bytes(self) -> int:
        """The table's bytes."""
        return self.fingerprints_at + self.capacity

    def place_int(self, table: Sequence[int], value: int) -> int | None:
        """The place of one id, None where it is not of the set: the definition."""
        h = mix_int(value & WORD, (self.salt + int(table[0]) * STEP) & WORD)
        pilot = int(table[PILOTS_AT + (_skewed(h >> 32) * self.buckets >> 32)])
        spread = (h ^ (pilot * STEP & WORD)) * SPREAD & WORD
        place = (spread >> 32) * self.capacity >> 32
        return place if table[self.fingerprints_at + place] == h & 255 else None

    def places(self, table: NDArray[np.uint8], ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The places of an array of ids; -1 for those that are not of the set."""
        h = self.hashes(ids, int(table[0]))
        place = self.places_of(h, table[PILOTS_AT : self.fingerprints_at])
        hit = table[self.fingerprints_at + place] == (h & np.uint64(255)).astype(np.uint8)
        return np.where(hit, place, -1)

    def places_torch(self, table: Tensor, ids: Tensor) -> Tensor:
        """The places of int64 ids of any shape, on any device; -1 for those not of the set."""
        salt = table[0].long() * _SIGNED_STEP + signed(self.salt)
        h = mix_torch(ids, salt, 32, -1, _HALF)
        bucket = down(_skewed(run_of(h, 32, _HALF)) * self.buckets, 32)
        pilot = table[PILOTS_AT + bucket].long()
        spread = (h ^ pilot * _SIGNED_STEP) * _SIGNED_SPREAD
        place = down(run_of(spread, 32, _HALF) * self.capacity, 32)
        hit = table[self.fingerprints_at + place] == (h & 255)
        return torch.where(hit, place, -1)

    def hashes(self, ids: NDArray[np.int64], attempt: int) -> NDArray[np.uint64]:
        """The 64 bits that decide each id's place."""
        return mix_numpy(ids, (self.salt + attempt * STEP) & WORD)

    def places_of(self, hashes: NDArray[np.uint64], pilots: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The place of each hash, whether it is of the set or not."""
        pilot, word = pilots[self.bucket_of(hashes)].astype(np.uint64), np.uint64(32)
        spread = (hashes ^ pilot * np.uint64(STEP)) * np.uint64(SPREAD)
        places: NDArray[np.uint64] = (spread >> word) * np.uint64(self.capacity) >> word
        return places.astype(np.int64)

    def bucket_of(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The bucket of each hash; it never falls as the hash grows."""
        word = np.uint64(32)
        x = hashes >> word
        square = x * x >> word
        y = square + (square * x >> word) >> np.uint64(1)
        y = y - (y >> np.uint64(8)) + (x >> np.uint64(8))
        buckets: NDArray[np.int64] = (y * np.uint64(self.buckets) >> word).astype(np.int64)
        return buckets


def _skewed(x: Word) -> Word:
    """(x**2 + x**3) / 2 of a fraction of 2**32, but for a 256th of x itself."""
    square = run_of(x * x, 32, _HALF)
    y = down(square + run_of(square * x, 32, _HALF), 1)
    return y - down(y, 8) + down(x, 8)
