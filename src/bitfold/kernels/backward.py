"""Backward: gradients of vectors to gradients of pool rows, of learned factors and of weights."""

from functools import lru_cache
from typing import Any

import numpy as np

from bitfold.kernels.call import (
    DIGITS,
    FOUND,
    FUSION,
    IDS,
    OTHERS,
    POOL,
    POOLING,
    ROWS,
    SCALE_SUMS,
    SHARED,
    SIZE,
    SLOTS,
    STEPS,
    STRIDE,
    SUMS,
    THREADS,
    TOP,
    VECTORS,
    WEIGHT_SUMS,
    WIDTH,
)
from bitfold.kernels.compiled import STAMP, Kernel, kernel
from bitfold.kernels.digits import read_rows
from bitfold.kernels.fused import add_to, fused, spread, weigh
from bitfold.kernels.packing import AHEAD, AMONG_FEW, BASE, BLOCK, COLUMNS, FEW_BASE, FLAGS, SPAN
from bitfold.kernels.readers import CODES, fetch, near, onward, read, reader, scales_of
from bitfold.kernels.vectors import (
    after,
    get,
    inlined,
    inner,
    load,
    mul,
    pointer,
    prefetch,
    put,
    same,
    splat,
    store,
    total,
    zero,
)
from bitfold.kernels.walk import (
    ONE,
    POOL_MAX,
    PRODUCT,
    blocks_of,
    fill_bags,
    fill_ids,
    floats_of,
    lookups_of,
    program_of,
    share,
    share_of_bags,
    stored_of,
)

LINE_BITS = 6  # pool rows that a thread owns at a time: their marks lie in one cache line

_LINE, _HALF = np.uint64(LINE_BITS), np.uint64(32)
_LOW, _SPREAD = np.uint64(0xFFFFFFFF), np.uint64(2654435761)


@lru_cache(maxsize=None, typed=True)
def backward(
    lanes: int, item: Any, one: Any, kind: int, few: int, bags: bool, owned: bool
) -> Kernel:
    """Add the gradient `VECTORS` of the vectors to the pool's gradient, and to what else is wanted.

    Of a maximum `TOP` says which id of a bag is the first to reach it (pooling `FIRST`).

    Unless rows are `owned`, every thread takes its share of the batch and has sums of its own, of
    `SIZE` numbers: thread 0 in `SUMS`, thread t in part `t - 1` of `OTHERS`. They are cleared
    first, and `add_up` makes one of them afterwards. Without `SUMS` the pool's gradient is left
    out. `SCALE_SUMS` has L numbers for each thread.

    If they are, every thread takes the whole batch and adds to the rows it owns, in sums that are
    zero: at the row, or with `SLOTS` at its slot. With `FOUND` rows get slots as they are met:
    thread t writes its rows to `FOUND[t]` of `[threads, STRIDE]`, how many they are to its end,
    and their sums from row `t * STRIDE` of `SUMS` on, which may hold anything. The first `SHARED`
    rows of each list, all the program's few rows (`words.pack`) or none, have sums in every list,
    each of the blocks whose turn was the thread's. The other gradients are not made.

    Args:
        lanes, item, one, kind, few: as in `forward`.
        bags: whether there is pooling, a padding, or more to differentiate than the pool.
        owned: whether threads own rows.
    """
    stamp, bits, kept = STAMP, one.itemsize * 8, np.uint8(0) if kind in CODES else item

    @kernel
    def walk(address, t):
        told, like = pointer(address, np.int64(stamp)), zero(lanes, bits)
        fields, chunks, starts, limits, words, tables = program_of(told)
        loops, width, product = get(told, DIGITS), get(told, WIDTH), get(told, FUSION) == PRODUCT
        levels = scales_of(told, t, like, lanes, kind, few)
        steps = pointer(get(told, STEPS), np.uint16(0))
        pool = reader(pointer(get(told, POOL), kept), levels, steps, kind, few)
        grad = pointer(get(told, VECTORS), item)
        dim, sums = chunks * width, pointer(get(told, SUMS), one)
        raw, code, place, to, rows = blocks_of(told, t)
        weight, scales, _ = floats_of(told, t, one)
        rare = get(told, POOLING) == POOL_MAX or get(told, SCALE_SUMS) + get(told, WEIGHT_SUMS) != 0
        lo, hi, known, turn = 0, get(told, ROWS), np.int64(0), np.int64(0)
        if owned:
            sums = after(sums, t * get(told, STRIDE) * width)
            known = get(told, SHARED)
            if known > 0:
                _clear(like, lanes, sums, known * width)
                _list_few(told, t, words)
        else:
            if bags:
                lo, hi = share_of_bags(told, t)
            else:
                lo, hi = share(told, t)
            if t > 0:
                sums = after(pointer(get(told, OTHERS), one), (t - 1) * get(told, SIZE))
            if get(told, SUMS) != 0:
                _clear(like, lanes, sums, get(told, SIZE))
        for begin in range(lo, hi, BLOCK):
            stop = min(begin + BLOCK, hi)
            for f in range(fields):
                first = get(starts, f)
                lookups = get(starts, f + 1) - first
                b, at = begin, np.int64(-1)
                while b < stop:
                    if bags:
                        count, b, at = fill_bags(
                            told, fields, dim, f, b, at, stop, raw, place, to, weight, one
                        )
                    else:
                        count, b = stop - begin, stop
                        fill_ids(
                            pointer(get(told, IDS), np.int64(0)), fields, dim, f, begin, count,
                            raw, to,
                        )  # fmt: skip
                    read_rows(
                        loops, raw, count, after(words, first * COLUMNS), lookups, get(limits, f),
                        tables, stored_of(told), code, rows,
                    )  # fmt: skip
                    if owned:
                        known = _spread_own(
                            told, t, like, lanes, one, onward(pool, first, width), rows, count,
                            after(words, first * COLUMNS), chunks, lookups, width,
                            after(scales, first), product, to, grad, weight, sums, known,
                            turn % get(told, THREADS) == t,
                        )  # fmt: skip
                        turn += 1
                    elif bags and rare:
                        _spread_rare(
                            told, t, like, lanes, one, onward(pool, first, width), rows, count,
                            chunks, lookups, width, scales, first, product, to, grad, place,
                            weight, sums,
                        )  # fmt: skip
                    else:
                        _spread_ids(
                            like, lanes, onward(pool, first, width), rows, count, chunks,
                            lookups, width, after(scales, first), product, to, grad, weight, sums,
                            bags and get(told, POOLING) != ONE,
                        )  # fmt: skip
        if owned and get(told, FOUND) != 0:
            stride = get(told, STRIDE)
            put(pointer(get(told, FOUND), np.int64(0)), (t + 1) * stride - 1, known)

    return walk


@lru_cache(maxsize=None, typed=True)
def add_up(one: Any) -> Kernel:
    """Add the other threads' sums to the first, each thread a part of the numbers."""
    stamp = STAMP

    @kernel
    def parts(address, t):
        told = pointer(address, np.int64(stamp))
        into, others = pointer(get(told, SUMS), one), pointer(get(told, OTHERS), one)
        threads, size = get(told, THREADS), get(told, SIZE)
        for part in range(threads - 1):
            other = after(others, part * size)
            for i in range(size * t // threads, size * (t + 1) // threads):
                put(into, i, get(into, i) + get(other, i))

    return parts


@inner
def _clear(like, lanes, sums, size):
    for i in range(0, size, lanes):
        store(sums, np.uint64(i), like)


def _spread_of(known: int) -> Any:
    """Adding gradients to the rows of `known` terms, a piece of each; 0 for any number."""

    @inner
    def spread_all(
        like, pool, rows, count, terms, width, at, scales, product, to, off, grad, bags, weight,
        sums,
    ):  # fmt: skip
        if known:
            terms = known
        close = near(pool, known, width, at, like)
        for i in range(count):
            step = load(grad, get(to, i) + off, like)
            if bags:
                step = mul(step, splat(get(weight, i), like))
            spread(like, close, rows, i, terms, width, at, scales, product, step, sums)

    return spread_all


_spread_two, _spread_any = _spread_of(2), _spread_of(0)


@inlined
def _spread_ids(
    like, lanes, pool, rows, count, chunks, lookups, width, scales, product, to, grad,
    weight, sums, pooled,
):  # fmt: skip
    """The gradient of a block of ids; `pooled` ones count by their weights."""
    terms, wide = lookups // chunks, np.uint64(width)
    for c in range(chunks):
        these, factors = after(rows, c * terms * BLOCK), after(scales, c * terms)
        terms_of = onward(pool, c * terms, width)
        for piece in range(0, width, lanes):
            part, off = np.uint64(piece), np.uint64(c * width + piece)
            if terms == 2:
                _spread_two(
                    like, terms_of, these, count, 2, wide, part, factors, product, to, off, grad,
                    pooled, weight, sums,
                )  # fmt: skip
            else:
                _spread_any(
                    like, terms_of, these, count, terms, wide, part, factors, product, to, off,
                    grad, pooled, weight, sums,
                )  # fmt: skip


@inner
def _spread_rare(
    told, t, like, lanes, one, pool, rows, count, chunks, lookups, width, all_scales, begin,
    product, to, grad, place, weight, sums,
):  # fmt: skip
    """The gradient of a block where bags took a maximum, or more than the pool has a gradient."""
    terms, wide, total_lookups = lookups // chunks, np.uint64(width), lookups_of(told)
    first_of_bag = pointer(get(told, TOP), one)
    weight_sums, weighed = pointer(get(told, WEIGHT_SUMS), one), get(told, WEIGHT_SUMS) != 0
    scaled = get(told, SCALE_SUMS) != 0
    scale_sums = after(pointer(get(told, SCALE_SUMS), one), t * total_lookups + begin)
    spreads, pooling = get(told, SUMS) != 0, get(told, POOLING)
    for c in range(chunks):
        these, factors = after(rows, c * terms * BLOCK), after(all_scales, begin + c * terms)
        terms_of = onward(pool, c * terms, width)
        for piece in range(0, width, lanes):
            part, off = np.uint64(piece), np.uint64(c * width + piece)
            for i in range(count):
                step = load(grad, get(to, i) + off, like)
                if pooling == POOL_MAX:
                    first = load(first_of_bag, get(to, i) + off, like)
                    step = mul(step, same(splat(-get(weight, i), like), first))
                if weighed:
                    vector = fused(like, terms_of, these, i, terms, wide, part, factors, product)
                    number = np.int64(get(place, i))
                    put(weight_sums, number, get(weight_sums, number) + total(mul(step, vector)))
                if pooling != ONE and pooling != POOL_MAX:
                    step = mul(step, splat(get(weight, i), like))
                if scaled:
                    weigh(
                        like, terms_of, these, i, terms, wide, part, step,
                        after(scale_sums, c * terms),
                    )  # fmt: skip
                if spreads:
                    spread(
                        like, terms_of, these, i, terms, wide, part, factors, product, step, sums
                    )


@inner
def _spread_own(
    told, t, like, lanes, one, pool, rows, count, words, chunks, lookups, width, scales, product,
    to, grad, weight, sums, known, turn,
):  # fmt: skip
    """The gradient of a block, added to the rows that this thread owns; and to all the few rows
    if it is this thread's `turn`.

    Returns:
        How many rows have got slots.
    """
    terms, wide, pooling = lookups // chunks, np.uint64(width), get(told, POOLING)
    first_of_bag = pointer(get(told, TOP), one)
    slots = pointer(get(told, SLOTS), np.int32(0))
    found = after(pointer(get(told, FOUND), np.int64(0)), t * get(told, STRIDE))
    picked = after(rows, lookups * BLOCK)
    places = after(picked, BLOCK)
    for m in range(lookups):
        c = m // terms
        these, word = after(rows, c * terms * BLOCK), after(words, m * COLUMNS)
        few = get(told, SHARED) > 0 and get(word, FLAGS) & np.uint64(AMONG_FEW) != 0
        if few:
            mine = count if turn else 0
            start = get(word, FEW_BASE) - get(word, BASE)
            for i in range(mine):
                put(picked, i, np.uint64(i))
                put(places, i, get(rows, m * BLOCK + i) + start)
        else:
            mine = own(after(rows, m * BLOCK), count, get(told, THREADS), t, picked)
            if get(told, FOUND) != 0:
                known = _open(like, lanes, places, mine, slots, found, known, width, sums)
            elif get(told, SLOTS) != 0:
                for j in range(mine):
                    put(places, j, np.uint64(get(slots, np.int64(get(places, j)))))
        for piece in range(0, width, lanes):
            _spread_picked(
                like, onward(pool, c * terms, width), these, picked, mine, terms, m - c * terms,
                wide, np.uint64(piece), after(scales, c * terms), product, to,
                np.uint64(c * width + piece), grad, pooling, weight, first_of_bag, sums,
            )  # fmt: skip
    return known


@inner
def _list_few(told, t, words):
    """The few rows' numbers at the beginning of a thread's list."""
    found = after(pointer(get(told, FOUND), np.int64(0)), t * get(told, STRIDE))
    for m in range(lookups_of(told)):
        word = after(words, m * COLUMNS)
        if get(word, FLAGS) & np.uint64(AMONG_FEW):
            for i in range(np.int64(get(word, SPAN))):
                put(found, np.int64(get(word, FEW_BASE)) + i, np.int64(get(word, BASE)) + i)


@inner
def own(rows, count, owners, owner, picked):
    """Pick the ids of a block whose row at one lookup this thread owns.

    Their numbers go to the first block of `picked` and their rows to the second.
    """
    number, of, me = 0, np.uint64(owners), np.uint64(owner)
    places = after(picked, BLOCK)
    for i in range(count):
        row = get(rows, i)
        put(picked, number, np.uint64(i))
        put(places, number, row)
        number += ((((row >> _LINE) * _SPREAD) & _LOW) * of) >> _HALF == me
    return number


@inner
def _open(like, lanes, places, count, slots, found, known, width, sums):
    """Rows to the slots of their sums; a row that is met first gets the next one, of zeros.

    A slot is kept from 1 on: 0 is none. What is not a new row's is written again later, so
    `found` and `sums` have room for one row more.

    Returns:
        How many rows have slots now.
    """
    for j in range(count):
        prefetch(slots, get(places, j), 1)
    for j in range(count):
        row = np.int64(get(places, j))
        slot = get(slots, row)
        put(found, known, row)
        for piece in range(0, width, lanes):
            store(sums, np.uint64(known * width + piece), like)
        known += slot == 0
        slot = np.int32(known) if slot == 0 else slot
        put(slots, row, slot)
        put(places, j, np.uint64(slot - 1))
    return known


@inner
def _spread_picked(
    like, pool, rows, picked, count, terms, me, width, at, scales, product, to, off, grad, pooling,
    weight, first_of_bag, sums,
):  # fmt: skip
    """Add a piece's gradient to one term's rows, for the ids that were picked."""
    places = after(picked, BLOCK)
    for j in range(count):
        i = np.int64(get(picked, j))
        prefetch(sums, get(places, j + AHEAD) * width + at, 1)
        later = np.int64(get(picked, min(j + AHEAD, count - 1)))
        prefetch(grad, np.int64(get(to, later) + off), 0)
        step = load(grad, get(to, i) + off, like)
        if pooling == POOL_MAX:
            first = load(first_of_bag, get(to, i) + off, like)
            step = mul(step, same(splat(-get(weight, i), like), first))
        elif pooling != ONE:
            step = mul(step, splat(get(weight, i), like))
        if product:
            if terms == 2:
                other = after(rows, (1 - me) * BLOCK)
                fetch(pool, get(other, later), width, at)
                step = mul(step, read(pool, 1 - me, get(other, i), width, at, like))
            else:
                for k in range(terms):
                    if k != me:
                        other = get(rows, k * BLOCK + i)
                        step = mul(step, read(pool, k, other, width, at, like))
        else:
            step = mul(step, splat(get(scales, me), like))
        add_to(sums, get(places, j) * width + at, step)
