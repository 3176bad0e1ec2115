"""What a kernel is told: one array of 64-bit words, and the names of their places.

Arrays come as addresses, 0 for one that is not there; whoever calls keeps them alive.
"""

import ctypes
import struct
import threading
from typing import Any

# Every walk over a batch.
THREADS, ROWS, WIDTH, POOL, IMPORTANCE, IDS, OFFSETS, WEIGHTS, PACKED = range(9)
FUSION, POOLING, PADDED, PADDING, TOP, VECTORS, SPACE, ROOM, DIGITS = range(9, 18)
CENTRES, STEPS = range(18, 20)  # of rows of few bits
STORED = 20  # addresses of stored tables, one after another
COMMON = 21
# Forward: whether vectors are written past the caches.
STREAMED = COMMON
# Backward: the pool's gradient, of `SIZE` numbers; what follows is 0 where it is not wanted.
SUMS, OTHERS, SIZE, SCALE_SUMS, WEIGHT_SUMS, SLOTS, FOUND, STRIDE, SHARED = range(
    COMMON, COMMON + 9
)
# Which rows a batch touches: `MARKED` words of eight marks each.
MARKS, MARKED, PLACES, COUNTS, LISTED = range(COMMON, COMMON + 5)
# A move of rows; from `NUMBERS` on, what the optimizer says, as float64.
MOVED_WIDTH, KIND, WEIGHT, LIST, GRAD, ONE, TWO, COUNT, STEP, FREED, FIRST, NUMBERS = range(1, 13)
# The same of rows that are codes; states and gradients are as above.
CODES, LOWEST, OF_CODE, INVERSE, SLICES, SLICE_COUNT, TURN, SPARE, KEPT = range(
    NUMBERS + 6, NUMBERS + 15
)
MOST_WORDS = COMMON + 9

_PACK = [struct.Struct(f"{count}q").pack_into for count in range(MOST_WORDS + 1)]
_local = threading.local()


def tell(*words: int) -> int:
    """Write what the next kernel of this thread is told; returns the address."""
    told: tuple[Any, int] | None = getattr(_local, "told", None)
    if told is None:
        buffer = ctypes.create_string_buffer(8 * MOST_WORDS)
        told = _local.told = buffer, ctypes.addressof(buffer)
    _PACK[len(words)](told[0], 0, *words)
    return told[1]
