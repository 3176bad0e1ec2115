"""The walks compiled for a width and a type, on one thread or on several.

Numba compiles a function when it is first called and keeps the result on disk, under the
function's own code and constants but not those of what it calls: so every function here that is
kept holds `STAMP`, a digest of the kernels' source. Arguments are numbers alone - arrays come as
addresses, 0 for one that is not there - since unpacking an array costs as much as a short lookup.

Threads are OpenMP's, through Numba. OpenMP does not survive a fork: a forked child runs on one.
"""

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any
from zlib import crc32

import numba
import numpy as np

from bitfold.kernels import walk
from bitfold.kernels.vectors import after, get, inner, pointer, put, store, zero
from bitfold.kernels.words import (
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

STAMP = crc32(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))))

_children = {"forked": False}
os.register_at_fork(after_in_child=lambda: _children.update(forked=True))

_ONES, _TOP = np.uint64(0x0101010101010101), np.uint64(56)  # adds the bytes of a word up

Both = tuple[Callable[..., Any], Callable[..., Any]]


def kept(*, parallel: bool = False) -> Callable[[Any], Any]:
    """Numba's decorator, with the result kept on disk where there is a place to keep it."""

    def compiled(function: Any) -> Any:
        try:
            return numba.njit(nogil=True, cache=True, parallel=parallel)(function)
        except RuntimeError:  # nowhere to write: compiled anew by each process
            return numba.njit(nogil=True, parallel=parallel)(function)

    return compiled


def forked() -> bool:
    """Whether this process is a forked child."""
    return _children["forked"]


@inner
def _floats(scratch, fusion, importance, packed, item):
    """The floats of a thread's scratch: a block of ones for the weights of ids, then the factors.

    A lookup's factor is 1 for a sum, 1/K for a mean, the learned one; what follows them is free.
    """
    fields, chunks = get(packed, FIELDS), get(packed, CHUNKS)
    blocks = (SCRATCH + get(packed, MOST)) * BLOCK + AHEAD
    floats = pointer(scratch + 8 * blocks, item)
    for i in range(BLOCK):
        put(floats, i, item)
    scales = after(floats, BLOCK)
    for f in range(fields):
        first, end = get(packed, HEAD + f), get(packed, HEAD + f + 1)
        for m in range(first, end):
            scale = item
            if fusion == walk.MEAN:
                scale = type(item)(chunks / (end - first))
            elif fusion == walk.WEIGHTED:
                scale = get(importance, m)
            put(scales, m, scale)
    return floats


@inner
def _bound(t, threads, rows, fields, offsets, pooling):
    """Where the rows of thread `t` begin: bags of one field are dealt by how many ids they have."""
    if pooling == walk.ONE or fields > 1 or t == threads:
        return rows * t // threads
    lo, hi, target = 0, rows, get(offsets, rows) * t // threads
    while lo < hi:
        middle = (lo + hi) // 2
        if get(offsets, middle) < target:
            lo = middle + 1
        else:
            hi = middle
    return lo


@inner
def _parts(packed):
    """The addresses of a packed program's starts, limits, words and tables."""
    fields = get(packed, FIELDS)
    starts = after(packed, HEAD)
    limits = after(starts, fields + 1)
    words = after(limits, fields)
    return starts, limits, words, after(words, get(packed, LOOKUPS) * COLUMNS)


@numba.njit(inline="always")
def _forward(
    like, lanes, item, one, t, threads, width, pool, importance, ids, offsets, weights, packed,
    fusion, pooling, padded, padding, top, out, streamed, rows, scratch, room,
):  # fmt: skip
    """The share of thread `t`."""
    number, mine = np.int64(0), scratch + 8 * room * t
    program, starts = pointer(packed, number), pointer(offsets, number)
    floats = _floats(mine, fusion, pointer(importance, one), program, one)
    scales, (begins, limits, words, tables) = after(floats, BLOCK), _parts(program)
    bad = walk.forward(
        like, lanes, pointer(pool, item), scales, pointer(ids, number), starts,
        pointer(weights, one), weights != 0, words, begins, get(program, FIELDS), limits, tables,
        get(program, CHUNKS), width, fusion == walk.PRODUCT, pooling, padded, padding,
        pointer(top, item), pointer(out, item), streamed,
        _bound(t, threads, rows, get(program, FIELDS), starts, pooling),
        _bound(t + 1, threads, rows, get(program, FIELDS), starts, pooling), rows,
        pointer(mine, np.uint64(0)), floats, after(scales, get(program, LOOKUPS)), one,
    )  # fmt: skip
    put(pointer(mine, number), 0, bad)


@lru_cache(maxsize=None, typed=True)
def forward(lanes: int, item: Any, one: Any) -> Both:
    """`walk.forward` over a whole batch, serial and parallel; see there for the arguments.

    `scratch` has `room` words for each thread. Returns the position of an id out of range, or -1.

    Args:
        lanes: of the vectors that rows are read in.
        item: a number of the pool's type, uint16 for bfloat16.
        one: 1, in the type to compute in.
    """
    stamp, bits = STAMP, one.itemsize * 8

    @kept()
    def serial(
        threads, width, pool, importance, ids, offsets, weights, packed, fusion, pooling, padded,
        padding, top, out, streamed, rows, scratch, room,
    ):  # fmt: skip
        _forward(
            zero(lanes, bits), lanes, item, one, np.int64(0), threads, width, pool, importance,
            ids, offsets, weights, packed, fusion, pooling, padded, padding, top, out, streamed,
            rows, scratch, room,
        )  # fmt: skip
        return get(pointer(scratch, np.int64(stamp)), 0)

    @kept(parallel=True)
    def parallel(
        threads, width, pool, importance, ids, offsets, weights, packed, fusion, pooling, padded,
        padding, top, out, streamed, rows, scratch, room,
    ):  # fmt: skip
        for t in numba.prange(threads):
            _forward(
                zero(lanes, bits), lanes, item, one, np.int64(t), threads, width, pool, importance,
                ids, offsets, weights, packed, fusion, pooling, padded, padding, top, out, streamed,
                rows, scratch, room,
            )  # fmt: skip
        for t in range(threads):
            bad = get(pointer(scratch + 8 * room * t, np.int64(stamp)), 0)
            if bad >= 0:
                return bad
        return -1

    return serial, parallel


@inner
def _clear(like, lanes, sums, size):
    for i in range(0, size, lanes):
        store(sums, np.uint64(i), like)


@inner
def _backward(
    like, lanes, item, one, t, threads, width, pool, importance, ids, offsets, weights, packed,
    fusion, pooling, padded, padding, top, grad, rows, scratch, room, sums, others, size,
    scale_sums, weight_sums, owned, slots, found, stride,
):  # fmt: skip
    """The share of thread `t`."""
    number, here = np.int64(0), scratch + 8 * room * t
    program, starts = pointer(packed, number), pointer(offsets, number)
    floats = _floats(here, fusion, pointer(importance, one), program, one)
    begins, limits, words, tables = _parts(program)
    lo, hi, mine, owners = 0, rows, pointer(sums, one), threads
    listed = after(pointer(found, number), t * stride)
    if not owned:
        owners = 0
        lo = _bound(t, threads, rows, get(program, FIELDS), starts, pooling)
        hi = _bound(t + 1, threads, rows, get(program, FIELDS), starts, pooling)
        if t > 0:
            mine = after(pointer(others, one), (t - 1) * size)
        if sums != 0:
            _clear(like, lanes, mine, size)
    elif found != 0:
        mine = after(mine, t * stride * width)
    known = walk.backward(
        like, lanes, pointer(pool, item), after(floats, BLOCK), pointer(ids, number), starts,
        pointer(weights, one), weights != 0, words, begins, get(program, FIELDS), limits, tables,
        get(program, CHUNKS), width, fusion == walk.PRODUCT, pooling, padded, padding,
        pointer(top, item), pointer(grad, item), lo, hi, rows, pointer(here, np.uint64(0)), floats,
        one, mine, sums != 0, after(pointer(scale_sums, one), t * get(program, LOOKUPS)),
        scale_sums != 0, pointer(weight_sums, one), weight_sums != 0, owners, t,
        pointer(slots, np.int32(0)), slots != 0, listed, found != 0,
    )  # fmt: skip
    if found != 0:
        put(listed, stride - 1, known)


@inner
def _add_up(one, t, threads, sums, others, size):
    """Add the other threads' sums to the first, for the numbers that thread `t` takes."""
    into = pointer(sums, one)
    for part in range(threads - 1):
        other = after(pointer(others, one), part * size)
        for i in range(size * t // threads, size * (t + 1) // threads):
            put(into, i, get(into, i) + get(other, i))


@lru_cache(maxsize=None, typed=True)
def backward(lanes: int, item: Any, one: Any) -> Both:
    """`walk.backward` over a whole batch, serial and parallel; see there and `forward`.

    Unless rows are `owned`, every thread has sums of its own, of `size` numbers: thread 0 in
    `sums`, thread t in part `t - 1` of `others`; in the end the parts are added up. Owned rows
    are added to sums that are zero, at the row or at its slot - or, with `found`, to slots that
    rows get as they are met: thread t writes its rows to `found[t]` of `[threads, stride]`, how
    many they are to its end, and their sums from row `t * stride` of `sums` on. With `sums` 0 the
    pool's gradient is left out. `scale_sums` has L numbers for each thread; owned rows come
    without them and `weight_sums`.
    """
    stamp, bits = STAMP, one.itemsize * 8

    @kept()
    def serial(
        threads, width, pool, importance, ids, offsets, weights, packed, fusion, pooling, padded,
        padding, top, grad, rows, scratch, room, sums, others, size, scale_sums, weight_sums,
        owned, slots, found, stride,
    ):  # fmt: skip
        _backward(
            zero(lanes, bits), lanes, item, one, np.int64(0), threads, width, pool, importance,
            ids, offsets, weights, packed, fusion, pooling, padded, padding, top, grad, rows,
            scratch, room, sums, others, size, scale_sums, weight_sums, owned, slots, found, stride,
        )  # fmt: skip
        return stamp

    @kept(parallel=True)
    def parallel(
        threads, width, pool, importance, ids, offsets, weights, packed, fusion, pooling, padded,
        padding, top, grad, rows, scratch, room, sums, others, size, scale_sums, weight_sums,
        owned, slots, found, stride,
    ):  # fmt: skip
        for t in numba.prange(threads):
            _backward(
                zero(lanes, bits), lanes, item, one, np.int64(t), threads, width, pool, importance,
                ids, offsets, weights, packed, fusion, pooling, padded, padding, top, grad, rows,
                scratch, room, sums, others, size, scale_sums, weight_sums, owned, slots, found,
                stride,
            )  # fmt: skip
        if sums != 0 and not owned:
            for t in numba.prange(threads):
                _add_up(one, np.int64(t), threads, sums, others, size)
        return stamp

    return serial, parallel


@inner
def _count(eights, lo, hi):
    """How many rows are marked in the words `lo..hi-1` of eight marks each."""
    count = np.uint64(0)
    for word in range(lo, hi):
        count += (get(eights, word) * _ONES) >> _TOP
    return np.int64(count)


@inner
def _number(marks, eights, lo, hi, slot, slots, found):
    """Give slots to the marked rows of words `lo..hi-1`, from `slot` on, and unmark them."""
    for word in range(lo, hi):
        if get(eights, word) != 0:
            for row in range(8 * word, 8 * word + 8):
                if get(marks, row):
                    put(slots, row, np.int32(slot))
                    found[slot] = row
                    slot += 1
            put(eights, word, np.uint64(0))


@lru_cache(maxsize=None, typed=True)
def touched() -> Callable[..., Any]:
    """The pool rows that a batch reads, in order, and a slot for each in `slots`, int32 `[R]`.

    `marks`, uint8, one for each row and then up to a multiple of 8, are zero before and after.
    """
    stamp = STAMP

    @kept(parallel=True)
    def parallel(
        threads, ids, offsets, packed, pooling, padded, padding, rows, scratch, room, marks, size,
        slots,
    ):  # fmt: skip
        number, one = np.int64(stamp), np.float32(1)
        marked, eights = pointer(marks, np.uint8(0)), pointer(marks, np.uint64(0))
        for t in numba.prange(threads):
            program, here = pointer(packed, number), scratch + 8 * room * t
            floats = _floats(here, walk.SUM, pointer(scratch, one), program, one)
            begins, limits, words, tables = _parts(program)
            walk.mark(
                pointer(ids, number), pointer(offsets, number), words, begins,
                get(program, FIELDS), limits, tables, pooling, padded, padding, rows,
                pointer(here, np.uint64(0)), floats, one, threads, t, marked,
            )  # fmt: skip
        counts = np.zeros(threads + 1, np.int64)
        for t in numba.prange(threads):
            counts[t + 1] = _count(eights, size * t // threads, size * (t + 1) // threads)
        ends = np.cumsum(counts)
        found = np.empty(ends[threads], np.int64)
        for t in numba.prange(threads):
            lo, hi = size * t // threads, size * (t + 1) // threads
            _number(marked, eights, lo, hi, ends[t], pointer(slots, np.int32(0)), found)
        return found

    listing: Callable[..., Any] = parallel
    return listing
