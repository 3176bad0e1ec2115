"""The pool rows that a batch reads, each once and in order, for sparse gradients."""

from functools import lru_cache

import numpy as np

from bitfold.kernels.backward import own
from bitfold.kernels.call import (
    COUNTS,
    DIGITS,
    LISTED,
    MARKED,
    MARKS,
    PLACES,
    ROWS,
    THREADS,
)
from bitfold.kernels.compiled import STAMP, Kernel, kernel
from bitfold.kernels.digits import read_rows
from bitfold.kernels.packing import BLOCK, COLUMNS
from bitfold.kernels.vectors import after, get, inner, pointer, put
from bitfold.kernels.walk import (
    blocks_of,
    fill_bags,
    floats_of,
    program_of,
    stored_of,
)

_ONES, _TOP = np.uint64(0x0101010101010101), np.uint64(56)  # adds the bytes of a word up


@lru_cache(maxsize=1)
def mark() -> Kernel:
    """Mark the rows that the batch reads and this thread owns, and count a part of the marks.

    `MARKS`, uint8, one for each row and then up to `MARKED` words, are zero before.
    """
    stamp = STAMP

    @kernel
    def walk(address, t):
        told, one = pointer(address, np.int64(stamp)), np.float32(1)
        fields, _, starts, limits, words, tables = program_of(told)
        raw, code, place, to, rows = blocks_of(told, t)
        weight, _, _ = floats_of(told, t, one)
        marks, threads = pointer(get(told, MARKS), np.uint8(0)), get(told, THREADS)
        for begin in range(0, get(told, ROWS), BLOCK):
            stop = min(begin + BLOCK, get(told, ROWS))
            for f in range(fields):
                first = get(starts, f)
                lookups = get(starts, f + 1) - first
                b, at = begin, np.int64(-1)
                while b < stop:
                    count, b, at = fill_bags(
                        told, fields, 1, f, b, at, stop, raw, place, to, weight, one
                    )
                    read_rows(
                        get(told, DIGITS), raw, count, after(words, first * COLUMNS), lookups,
                        get(limits, f), tables, stored_of(told), code, rows,
                    )  # fmt: skip
                    picked = after(rows, lookups * BLOCK)
                    places = after(picked, BLOCK)
                    for m in range(lookups):
                        mine = own(after(rows, m * BLOCK), count, threads, t, picked)
                        for j in range(mine):
                            put(marks, np.int64(get(places, j)), np.uint8(1))

    return walk


@inner
def _part(told, t):
    """The words of marks that a thread counts and numbers."""
    size, threads = get(told, MARKED), get(told, THREADS)
    return size * t // threads, size * (t + 1) // threads


@lru_cache(maxsize=1)
def count() -> Kernel:
    """How many rows of a thread's part are marked, into `COUNTS[t]`."""
    stamp = STAMP

    @kernel
    def walk(address, t):
        told = pointer(address, np.int64(stamp))
        eights, (lo, hi) = pointer(get(told, MARKS), _ONES), _part(told, t)
        found = np.uint64(0)
        for word in range(lo, hi):
            found += (get(eights, word) * _ONES) >> _TOP
        put(pointer(get(told, COUNTS), np.int64(0)), t, np.int64(found))

    return walk


@lru_cache(maxsize=1)
def number() -> Kernel:
    """List the marked rows in order, tell each its place, and unmark them.

    `COUNTS[t]` is how many come before a thread's part, `LISTED` the list, `PLACES`, int32 `[R]`,
    where each row stands in it.
    """
    stamp = STAMP

    @kernel
    def walk(address, t):
        number = np.int64(stamp)
        told = pointer(address, number)
        marks, eights = pointer(get(told, MARKS), np.uint8(0)), pointer(get(told, MARKS), _ONES)
        places, listed = pointer(get(told, PLACES), np.int32(0)), pointer(get(told, LISTED), number)
        place, (lo, hi) = get(pointer(get(told, COUNTS), number), t), _part(told, t)
        for word in range(lo, hi):
            if get(eights, word) != 0:
                for row in range(8 * word, 8 * word + 8):
                    if get(marks, row):
                        put(places, row, np.int32(place))
                        put(listed, place, row)
                        place += 1
                put(eights, word, np.uint64(0))

    return walk
