"""What walks over a batch have in common: a thread's share, the program, a block of ids.

A walk goes over rows of the batch, block by block and field by field: which ids and where their
vectors lie (`fill_ids`, `fill_bags`), the pool rows they read (`digits.read_rows`), then the
floats (`forward.py`, `backward.py`). Threads take rows of their own and share no sum, so a result
depends on the number of threads but never on their timing.

Shapes: B rows, F fields, T ids, L lookups, C chunks, K terms of a chunk, w width of a piece,
D = C * w. Floats are the pool's, or uint16 for bfloat16.
"""

import numpy as np

from bitfold.kernels.call import (
    FUSION,
    IDS,
    IMPORTANCE,
    OFFSETS,
    PACKED,
    PADDED,
    PADDING,
    POOLING,
    ROOM,
    ROWS,
    SPACE,
    STORED,
    THREADS,
    WEIGHTS,
)
from bitfold.kernels.packing import (
    AHEAD,
    BLOCK,
    CHUNKS,
    COLUMNS,
    FIELDS,
    HEAD,
    LOOKUPS,
    MOST,
    SCRATCH,
)
from bitfold.kernels.vectors import after, get, inner, pointer, put

SUM, MEAN, PRODUCT, WEIGHTED = range(4)  # fusions; concat is a sum of one term
# Poolings; ONE: single ids, FIRST: no vectors, but which id of a bag is the first at its maximum.
ONE, POOL_SUM, POOL_MEAN, POOL_MAX, FIRST = range(5)
READ = 5  # single ids whose padding id is read; `lookup` alone knows it, kernels are told ONE


@inner
def program_of(told):
    """F, C, and the addresses of a packed program's starts, limits, words and tables."""
    packed = pointer(get(told, PACKED), np.int64(0))
    fields = get(packed, FIELDS)
    starts = after(packed, HEAD)
    limits = after(starts, fields + 1)
    at = HEAD + fields + 1 + fields
    words = after(pointer(get(told, PACKED), np.uint64(0)), at)
    tables = after(words, get(packed, LOOKUPS) * COLUMNS)
    return fields, get(packed, CHUNKS), starts, limits, words, tables


@inner
def lookups_of(told):
    """L, of a packed program."""
    return get(pointer(get(told, PACKED), np.int64(0)), LOOKUPS)


@inner
def stored_of(told):
    """The addresses of the stored tables that the program reads."""
    return pointer(get(told, STORED), np.uint64(0))


@inner
def share(told, t):
    """The rows of the batch that thread `t` takes: `lo..hi-1`."""
    rows, threads = get(told, ROWS), get(told, THREADS)
    return rows * t // threads, rows * (t + 1) // threads


@inner
def share_of_bags(told, t):
    """As `share`; bags of one field are dealt by how many ids they have."""
    rows, threads = get(told, ROWS), get(told, THREADS)
    fields = get(pointer(get(told, PACKED), np.int64(0)), FIELDS)
    if fields > 1 or get(told, POOLING) == ONE:
        return share(told, t)
    offsets = pointer(get(told, OFFSETS), np.int64(0))
    return _bag_at(offsets, rows, threads, t), _bag_at(offsets, rows, threads, t + 1)


@inner
def _bag_at(offsets, rows, threads, t):
    if t == threads:
        return rows
    lo, hi, target = 0, rows, get(offsets, rows) * t // threads
    while lo < hi:
        middle = (lo + hi) // 2
        if get(offsets, middle) < target:
            lo = middle + 1
        else:
            hi = middle
    return lo


@inner
def blocks_of(told, t):
    """A thread's blocks of scratch: ids, codes, their places, where vectors go; then pool rows."""
    raw = pointer(get(told, SPACE) + 8 * get(told, ROOM) * t, np.uint64(0))
    code, place = after(raw, BLOCK), after(raw, 2 * BLOCK)
    return raw, code, place, after(raw, 3 * BLOCK), after(raw, 4 * BLOCK)


@inner
def floats_of(told, t, one):
    """The floats of a thread's scratch: what each id of a block counts; then the factors.

    A lookup's factor is 1 for a sum, 1/K for a mean, the learned one; what follows them is free.
    """
    packed = pointer(get(told, PACKED), np.int64(0))
    fields, chunks, fusion = get(packed, FIELDS), get(packed, CHUNKS), get(told, FUSION)
    blocks = (SCRATCH + get(packed, MOST)) * BLOCK + AHEAD
    floats = pointer(get(told, SPACE) + 8 * (get(told, ROOM) * t + blocks), one)
    learned = pointer(get(told, IMPORTANCE), one)
    scales = after(floats, BLOCK)
    for f in range(fields):
        first, end = get(packed, HEAD + f), get(packed, HEAD + f + 1)
        for m in range(first, end):
            scale = one
            if fusion == MEAN:
                scale = type(one)(chunks / (end - first))
            elif fusion == WEIGHTED:
                scale = get(learned, m)
            put(scales, m, scale)
    return floats, scales, after(scales, get(packed, LOOKUPS))


@inner
def fill_ids(ids, fields, dim, f, begin, count, raw, to):
    """Single ids of field `f`, of `count` rows from row `begin` on, and where their vectors go."""
    start = begin * fields + f
    if fields == 1:
        for i in range(count):
            put(raw, i, np.uint64(get(ids, start + i)))
    else:
        for i in range(count):
            put(raw, i, np.uint64(get(ids, start + i * fields)))
    for i in range(count):
        put(to, i, np.uint64((start + i * fields) * dim))


@inner
def fill_bags(told, fields, dim, f, b, at, end, raw, place, to, weight, one):
    """The next ids of field `f` from row `b` on, at position `at` of its bag, up to row `end`.

    Writes the ids, where each stands, where its vector goes and what it counts; of a maximum, which
    of its bag's ids it is, from 0 on. An id equal to the padding is left out. Single ids are bags
    of one id each, without offsets.

    Returns:
        How many ids, at most `BLOCK`, and the row and position to go on from.
    """
    ids, offsets = pointer(get(told, IDS), np.int64(0)), pointer(get(told, OFFSETS), np.int64(0))
    weights, weighted = pointer(get(told, WEIGHTS), one), get(told, WEIGHTS) != 0
    padded, padding, pooling = get(told, PADDED) != 0, get(told, PADDING), get(told, POOLING)
    total_rows, ordinal = get(told, ROWS), pooling >= POOL_MAX
    count = 0
    while b < end and count < BLOCK:
        start = b * fields + f
        stop = start + 1
        if pooling != ONE:
            start = get(offsets, f * total_rows + b)
            stop = get(offsets, f * total_rows + b + 1)
        if at < 0:
            at = start
        counts = one
        if pooling == POOL_MEAN:
            real = stop - start
            if padded:
                for position in range(start, stop):
                    real -= get(ids, position) == padding
            counts = one / type(one)(max(real, 1))
        if padded:
            while at < stop and count < BLOCK:
                if get(ids, at) != padding:
                    put(raw, count, np.uint64(get(ids, at)))
                    put(place, count, np.uint64(at))
                    put(to, count, np.uint64((b * fields + f) * dim))
                    if ordinal:
                        put(weight, count, type(one)(at - start))
                    else:
                        put(weight, count, get(weights, at) if weighted else counts)
                    count += 1
                at += 1
        else:
            more = min(stop - at, BLOCK - count)
            for i in range(more):
                put(raw, count + i, np.uint64(get(ids, at + i)))
                put(place, count + i, np.uint64(at + i))
                put(to, count + i, np.uint64((b * fields + f) * dim))
                if ordinal:
                    put(weight, count + i, type(one)(at + i - start))
                else:
                    put(weight, count + i, get(weights, at + i) if weighted else counts)
            count, at = count + more, at + more
        if at == stop:
            b, at = b + 1, np.int64(-1)
    return count, b, at
