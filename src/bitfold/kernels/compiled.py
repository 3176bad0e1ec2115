"""The walks compiled for a width and a type, on one thread or on several.

Numba compiles a function when it is first called and keeps the result on disk, under the
function's own code and constants but not those of what it calls: so every function here that is
kept holds `STAMP`, a digest of the kernels' source. Arguments are numbers alone - arrays come as
addresses, 0 for one that is not there - since unpacking an array costs as much as a short lookup.

Threads are OpenMP's, through Numba. OpenMP does not survive a fork: a forked child runs on one.
"""

import os
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from zlib import crc32

import numba
import numpy as np

from bitfold.kernels import walk
from bitfold.kernels.digits import BLOCK
from bitfold.kernels.fused import AHEAD
from bitfold.kernels.vectors import after, data, get, pointer, put, store, zero
from bitfold.kernels.words import CHUNKS, COLUMNS, FIELDS, HEAD, LOOKUPS, MOST

STAMP = crc32(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))))

_children = {"forked": False}
os.register_at_fork(after_in_child=lambda: _children.update(forked=True))

_ONES, _TOP = np.uint64(0x0101010101010101), np.uint64(56)  # adds the bytes of a word up

Both = tuple[Callable[..., Any], Callable[..., Any]]


def forked() -> bool:
    """Whether this process is a forked child."""
    return _children["forked"]


@numba.njit(nogil=True)
def _scales(fusion, importance, packed, one):
    """A factor for each lookup: 1 for a sum, 1/K for a mean, the learned one."""
    fields, chunks, lookups = get(packed, FIELDS), get(packed, CHUNKS), get(packed, LOOKUPS)
    scales = np.empty(lookups, type(one))
    for f in range(fields):
        first, end = get(packed, HEAD + f), get(packed, HEAD + f + 1)
        for m in range(first, end):
            scales[m] = one
            if fusion == walk.MEAN:
                scales[m] = one * chunks / (end - first)
            elif fusion == walk.WEIGHTED:
                scales[m] = get(importance, m)
    return scales


@numba.njit(nogil=True)
def _room(packed, one):
    """Scratch of a walk: blocks of words, and a block of floats that begin as ones."""
    words = np.empty((walk.SCRATCH + get(packed, MOST)) * BLOCK + AHEAD, np.uint64)
    return words, np.ones(BLOCK, type(one))


@numba.njit(nogil=True)
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


@numba.njit(nogil=True)
def _parts(packed):
    """The addresses of a packed program's starts, limits, words and tables."""
    fields = get(packed, FIELDS)
    starts = after(packed, HEAD)
    limits = after(starts, fields + 1)
    words = after(limits, fields)
    return starts, limits, words, after(words, get(packed, LOOKUPS) * COLUMNS)


@numba.njit(nogil=True)
def _forward(
    like, lanes, width, pool, scales, ids, offsets, weights, weighted, packed, fusion, pooling,
    padded, padding, top, out, streamed, lo, hi, rows, scratch, floats, partial, one,
):  # fmt: skip
    """`walk.forward` with a packed program and arrays for scratch."""
    starts, limits, words, tables = _parts(packed)
    return walk.forward(
        like, lanes, pool, data(scales), ids, offsets, weights, weighted, words, starts,
        get(packed, FIELDS), limits, tables, get(packed, CHUNKS), width, fusion == walk.PRODUCT,
        pooling, padded, padding, top, out, streamed, lo, hi, rows, data(scratch), data(floats),
        data(partial), one,
    )  # fmt: skip


@lru_cache(maxsize=None, typed=True)
def forward(lanes: int, item: Any, one: Any) -> Both:
    """`walk.forward` over a whole batch, serial and parallel; see there for the arguments.

    Args:
        lanes: of the vectors that rows are read in.
        item: a number of the pool's type, uint16 for bfloat16.
        one: 1, in the type to compute in.
    """
    stamp, bits = STAMP, one.itemsize * 8

    @numba.njit(nogil=True, cache=True)
    def serial(
        threads, width, pool, importance, ids, offsets, weights, packed, fusion, pooling, padded,
        padding, top, out, streamed, rows,
    ):  # fmt: skip
        number = np.int64(stamp)
        program = pointer(packed, number)
        scales = _scales(fusion, pointer(importance, one), program, one)
        scratch, floats = _room(program, one)
        partial = np.empty(width * get(program, CHUNKS), type(one))
        return _forward(
            zero(lanes, bits), lanes, width, pointer(pool, item), scales, pointer(ids, number),
            pointer(offsets, number), pointer(weights, one), weights != 0, program, fusion,
            pooling, padded, padding, pointer(top, item), pointer(out, item), streamed, 0, rows,
            rows, scratch, floats, partial, one,
        )  # fmt: skip

    @numba.njit(nogil=True, cache=True, parallel=True)
    def parallel(
        threads, width, pool, importance, ids, offsets, weights, packed, fusion, pooling, padded,
        padding, top, out, streamed, rows,
    ):  # fmt: skip
        wrong = np.empty(threads, np.int64)
        for t in numba.prange(threads):
            number = np.int64(stamp)
            program, starts = pointer(packed, number), pointer(offsets, number)
            scales = _scales(fusion, pointer(importance, one), program, one)
            scratch, floats = _room(program, one)
            partial = np.empty(width * get(program, CHUNKS), type(one))
            lo = _bound(t, threads, rows, get(program, FIELDS), starts, pooling)
            hi = _bound(t + 1, threads, rows, get(program, FIELDS), starts, pooling)
            wrong[t] = _forward(
                zero(lanes, bits), lanes, width, pointer(pool, item), scales,
                pointer(ids, number), starts, pointer(weights, one), weights != 0, program,
                fusion, pooling, padded, padding, pointer(top, item), pointer(out, item),
                streamed, lo, hi, rows, scratch, floats, partial, one,
            )  # fmt: skip
        for t in range(threads):
            if wrong[t] >= 0:
                return wrong[t]
        return -1

    return serial, parallel


@numba.njit(nogil=True)
def _backward(
    like, lanes, width, pool, scales, ids, offsets, weights, weighted, packed, fusion, pooling,
    padded, padding, top, grad, lo, hi, rows, scratch, floats, one, sums, spreads, scale_sums,
    scaled, weight_sums, weighed, owners, owner, slots, compact,
):  # fmt: skip
    """`walk.backward` with a packed program and arrays for scratch."""
    starts, limits, words, tables = _parts(packed)
    walk.backward(
        like, lanes, pool, data(scales), ids, offsets, weights, weighted, words, starts,
        get(packed, FIELDS), limits, tables, get(packed, CHUNKS), width, fusion == walk.PRODUCT,
        pooling, padded, padding, top, grad, lo, hi, rows, data(scratch), data(floats), one, sums,
        spreads, scale_sums, scaled, weight_sums, weighed, owners, owner, slots, compact,
    )  # fmt: skip


@numba.njit(nogil=True)
def _clear(like, lanes, sums, lo, hi):
    for i in range(lo, hi, lanes):
        store(sums, np.uint64(i), like)


@numba.njit(nogil=True)
def _add_up(sums, others, parts, size, lo, hi):
    for part in range(parts):
        other = after(others, part * size)
        for i in range(lo, hi):
            put(sums, i, get(sums, i) + get(other, i))


@lru_cache(maxsize=None, typed=True)
def backward(lanes: int, item: Any, one: Any) -> Both:
    """`walk.backward` over a whole batch, serial and parallel; see there and `forward`.

    Unless rows are `owned`, every thread has sums of its own, of `size` numbers: thread 0 in
    `sums`, thread t in part `t - 1` of `others`; in the end the parts are added up. Owned rows
    are added to sums that are zero. With `sums` 0 the pool's gradient is left out. `scale_sums`
    has L numbers for each thread; owned rows come without them and `weight_sums`.
    """
    stamp, bits = STAMP, one.itemsize * 8

    @numba.njit(nogil=True, cache=True)
    def serial(
        threads, width, pool, importance, ids, offsets, weights, packed, fusion, pooling, padded,
        padding, top, grad, rows, sums, others, size, scale_sums, weight_sums, owned, slots,
    ):  # fmt: skip
        number = np.int64(stamp)
        program = pointer(packed, number)
        scales = _scales(fusion, pointer(importance, one), program, one)
        scratch, floats = _room(program, one)
        if sums != 0 and not owned:
            _clear(zero(lanes, bits), lanes, pointer(sums, one), 0, size)
        _backward(
            zero(lanes, bits), lanes, width, pointer(pool, item), scales, pointer(ids, number),
            pointer(offsets, number), pointer(weights, one), weights != 0, program, fusion,
            pooling, padded, padding, pointer(top, item), pointer(grad, item), 0, rows, rows,
            scratch, floats, one, pointer(sums, one), sums != 0, pointer(scale_sums, one),
            scale_sums != 0, pointer(weight_sums, one), weight_sums != 0, np.int64(owned), 0,
            pointer(slots, np.int32(0)), slots != 0,
        )  # fmt: skip

    @numba.njit(nogil=True, cache=True, parallel=True)
    def parallel(
        threads, width, pool, importance, ids, offsets, weights, packed, fusion, pooling, padded,
        padding, top, grad, rows, sums, others, size, scale_sums, weight_sums, owned, slots,
    ):  # fmt: skip
        for t in numba.prange(threads):
            number = np.int64(stamp)
            program, starts = pointer(packed, number), pointer(offsets, number)
            scales = _scales(fusion, pointer(importance, one), program, one)
            scratch, floats = _room(program, one)
            lo = _bound(t, threads, rows, get(program, FIELDS), starts, pooling)
            hi = _bound(t + 1, threads, rows, get(program, FIELDS), starts, pooling)
            mine = pointer(sums, one)
            if owned:
                lo, hi = 0, rows
            elif t > 0:
                mine = after(pointer(others, one), (t - 1) * size)
            if sums != 0 and not owned:
                _clear(zero(lanes, bits), lanes, mine, 0, size)
            factors = after(pointer(scale_sums, one), t * get(program, LOOKUPS))
            _backward(
                zero(lanes, bits), lanes, width, pointer(pool, item), scales,
                pointer(ids, number), starts, pointer(weights, one), weights != 0, program,
                fusion, pooling, padded, padding, pointer(top, item), pointer(grad, item), lo, hi,
                rows, scratch, floats, one, mine, sums != 0, factors, scale_sums != 0,
                pointer(weight_sums, one), weight_sums != 0, threads * np.int64(owned), t,
                pointer(slots, np.int32(0)), slots != 0,
            )  # fmt: skip
        if sums != 0 and not owned:
            for t in numba.prange(threads):
                lo, hi = size * t // threads, size * (t + 1) // threads
                _add_up(pointer(sums, one), pointer(others, one), threads - 1, size, lo, hi)

    return serial, parallel


@numba.njit(nogil=True)
def _mark(
    ids, offsets, packed, pooling, padded, padding, rows, scratch, floats, one, owners, owner, marks
):
    """`walk.mark` with a packed program and arrays for scratch."""
    starts, limits, words, tables = _parts(packed)
    walk.mark(
        ids, offsets, words, starts, get(packed, FIELDS), limits, tables, pooling, padded, padding,
        rows, data(scratch), data(floats), one, owners, owner, marks,
    )  # fmt: skip


@numba.njit(nogil=True)
def _count(eights, lo, hi):
    """How many rows are marked in the words `lo..hi-1` of eight marks each."""
    count = np.uint64(0)
    for word in range(lo, hi):
        count += (get(eights, word) * _ONES) >> _TOP
    return np.int64(count)


@numba.njit(nogil=True)
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


@cache
def touched() -> Callable[..., Any]:
    """The pool rows that a batch reads, in order, and a slot for each in `slots`, int32 `[R]`.

    `marks`, uint8, one for each row and then up to a multiple of 8, are zero before and after.
    """
    stamp = STAMP

    @numba.njit(nogil=True, cache=True, parallel=True)
    def parallel(
        threads, ids, offsets, packed, pooling, padded, padding, rows, marks, size, slots
    ):  # fmt: skip
        number, one = np.int64(stamp), np.float32(1)
        marked, eights = pointer(marks, np.uint8(0)), pointer(marks, np.uint64(0))
        for t in numba.prange(threads):
            program = pointer(packed, number)
            scratch, floats = _room(program, one)
            _mark(
                pointer(ids, number), pointer(offsets, number), program, pooling, padded, padding,
                rows, scratch, floats, one, threads, t, marked,
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

    return parallel
