"""Walks over a batch: ids to vectors, gradients of vectors to gradients of rows.

A walk goes over rows `lo..hi-1` of the batch, block by block and field by field: which ids and
where their vectors lie (`_fill`), the pool rows they read (`read_rows`), then the floats. Single
ids `[B, F]` are bags of one id each, without offsets. Threads take rows of their own and share no
sum, so a result depends on the number of threads but never on their timing.

Shapes: B rows, F fields, T ids, L lookups, C chunks, K terms of a chunk, w width of a piece,
D = C * w. All arrays are addresses (`vectors.pointer`); whoever calls keeps them alive. Floats are
the pool's, or uint16 for bfloat16.
"""

from typing import Any

import numba
import numpy as np

from bitfold.kernels.digits import read_rows
from bitfold.kernels.fused import NOWHERE, add_to, fused, spread, weigh
from bitfold.kernels.vectors import (
    add,
    after,
    fence,
    fma,
    get,
    inner,
    larger,
    load,
    mul,
    prefetch,
    put,
    rounded,
    same,
    splat,
    store,
    stream,
    total,
)
from bitfold.kernels.words import AHEAD, BLOCK, COLUMNS

SUM, MEAN, PRODUCT, WEIGHTED = range(4)  # fusions; concat is a sum of one term
ONE, POOL_SUM, POOL_MEAN, POOL_MAX, TIES = range(5)  # poolings; ONE: single ids
LINE_BITS = 6  # pool rows that a thread owns at a time: their marks lie in one cache line

_LINE, _HALF = np.uint64(LINE_BITS), np.uint64(32)
_LOW, _SPREAD = np.uint64(0xFFFFFFFF), np.uint64(2654435761)


@numba.njit(inline="always")
def _layout(scratch):
    """A walk's blocks of scratch: ids, codes, their places, where vectors go; then pool rows."""
    code, place = after(scratch, BLOCK), after(scratch, 2 * BLOCK)
    return scratch, code, place, after(scratch, 3 * BLOCK), after(scratch, 4 * BLOCK)


@inner
def _fill(
    ids, offsets, weights, weighted, pooling, padded, padding, fields, dim, total_rows,
    f, b, at, end, raw, place, to, weight, one,
):  # fmt: skip
    """The next ids of field `f` from row `b` on, at position `at` of its bag, up to row `end`.

    Writes the ids, where each stands, where its vector goes and what it counts. An id equal to the
    padding is left out.

    Returns:
        How many ids, at most `BLOCK`, and the row and position to go on from.
    """
    if pooling == ONE and not padded:
        count = min(BLOCK, end - b)
        begin = b * fields + f
        if fields == 1:
            for i in range(count):
                put(raw, i, np.uint64(get(ids, begin + i)))
        else:
            for i in range(count):
                put(raw, i, np.uint64(get(ids, begin + i * fields)))
        for i in range(count):
            put(to, i, np.uint64((begin + i * fields) * dim))
        for i in range(count):
            put(place, i, np.uint64(begin + i * fields))
        return count, b + count, np.int64(-1)
    count = 0
    while b < end and count < BLOCK:
        start = b * fields + f
        stop = start + 1
        if pooling != ONE:
            start = get(offsets, f * total_rows + b)
            stop = get(offsets, f * total_rows + b + 1)
        if at < 0:
            at = start
        share = one
        if pooling == POOL_MEAN:
            real = stop - start
            if padded:
                for position in range(start, stop):
                    real -= get(ids, position) == padding
            share = one / type(one)(max(real, 1))
        while at < stop and count < BLOCK:
            if not (padded and get(ids, at) == padding):
                put(raw, count, np.uint64(get(ids, at)))
                put(place, count, np.uint64(at))
                put(to, count, np.uint64((b * fields + f) * dim))
                put(weight, count, get(weights, at) if weighted else share)
                count += 1
            at += 1
        if at == stop:
            b, at = b + 1, np.int64(-1)
    return count, b, at


def _gather_of(known: int) -> Any:
    """Gathering vectors of single ids, a piece of each, with `known` terms; 0 for any number.

    The variants are functions of their own: small ones compile in a fraction of the time.
    """

    @inner
    def gather(like, pool, rows, count, terms, width, at, scales, product, to, off, out, streamed):
        if known:
            terms = known
        if streamed:
            for i in range(count):
                value = fused(like, pool, rows, i, terms, width, at, scales, product)
                stream(out, get(to, i) + off, value)
        else:
            for i in range(count):
                value = fused(like, pool, rows, i, terms, width, at, scales, product)
                store(out, get(to, i) + off, value)

    return gather


_gather_two, _gather_any = _gather_of(2), _gather_of(0)


def _spread_of(known: int) -> Any:
    """Adding gradients to the rows of `known` terms, a piece of each; 0 for any number."""

    @inner
    def spread_all(
        like, pool, rows, count, terms, width, at, scales, product, to, off, grad, bags, weight,
        sums,
    ):  # fmt: skip
        if known:
            terms = known
        for i in range(count):
            step = load(grad, get(to, i) + off, like)
            if bags:
                step = mul(step, splat(get(weight, i), like))
            spread(like, pool, rows, i, terms, width, at, scales, product, step, sums)

    return spread_all


_spread_two, _spread_any = _spread_of(2), _spread_of(0)


@inner
def _pool(
    like, pool, rows, count, terms, width, at, scales, product, to, off, out, pooling, weight,
    lowest, opened, partial, top,
):  # fmt: skip
    """Vectors of bags, a piece of each; a bag that the last block `opened` goes on."""
    i = 0
    while i < count:
        bag = get(to, i)
        value = load(partial, off, like)
        if i > 0 or bag != opened:
            value = splat(lowest, like)
        while i < count and get(to, i) == bag:
            vector = fused(like, pool, rows, i, terms, width, at, scales, product)
            if pooling == POOL_MAX:
                value = larger(rounded(vector, pool), value)
            elif pooling == TIES:
                value = add(value, same(rounded(vector, pool), load(top, bag + off, like)))
            else:
                value = fma(vector, splat(get(weight, i), like), value)
            i += 1
        store(out, bag + off, value)
        store(partial, off, value)


@inner
def forward(
    like, lanes, pool, scales, ids, offsets, weights, weighted, words, starts, fields, limits,
    tables, chunks, width, product, pooling, padded, padding, top, out, streamed, lo, hi,
    total_rows, scratch, weight, partial, one,
):  # fmt: skip
    """Vectors of rows `lo..hi-1` into `out`; of bags and padding, `out` must be zero before.

    With `TIES`, how many ids of each bag reach the bag's maximum `top`, number by number.

    Args:
        scratch: uint64 `[SCRATCH + most lookups of a field, BLOCK]`.
        weight: ones `[BLOCK]`, of the type to compute in, as are `partial` `[D]` and `one`.

    Returns:
        The position of an id out of range, or -1.
    """
    dim, wide = chunks * width, np.uint64(width)
    raw, code, place, to, rows = _layout(scratch)
    lowest = one * (-np.inf) if pooling == POOL_MAX else one - one
    lowest = type(one)(lowest)
    bad = -1
    for begin in range(lo, hi, BLOCK):
        stop = min(begin + BLOCK, hi)
        for f in range(fields):
            first = get(starts, f)
            lookups = get(starts, f + 1) - first
            terms = lookups // chunks
            b, at, opened = begin, np.int64(-1), NOWHERE
            while b < stop:
                count, b, at = _fill(
                    ids, offsets, weights, weighted, pooling, padded, padding, fields, dim,
                    total_rows, f, b, at, stop, raw, place, to, weight, one,
                )  # fmt: skip
                if count == 0:
                    continue
                wrong = read_rows(
                    raw, count, after(words, first * COLUMNS), lookups, get(limits, f), tables,
                    code, rows,
                )  # fmt: skip
                if wrong >= 0 and bad < 0:
                    bad = np.int64(get(place, wrong))
                for c in range(chunks):
                    these = after(rows, c * terms * BLOCK)
                    factors = after(scales, first + c * terms)
                    for piece in range(0, width, lanes):
                        part, off = np.uint64(piece), np.uint64(c * width + piece)
                        if pooling == ONE:
                            if terms == 2:
                                _gather_two(
                                    like, pool, these, count, 2, wide, part, factors, product, to,
                                    off, out, streamed,
                                )  # fmt: skip
                            else:
                                _gather_any(
                                    like, pool, these, count, terms, wide, part, factors, product,
                                    to, off, out, streamed,
                                )  # fmt: skip
                        else:
                            _pool(
                                like, pool, these, count, terms, wide, part, factors, product, to,
                                off, out, pooling, weight, lowest, opened, partial, top,
                            )  # fmt: skip
                opened = get(to, count - 1)
    if streamed:
        fence()
    return bad


@inner
def backward(
    like, lanes, pool, scales, ids, offsets, weights, weighted, words, starts, fields, limits,
    tables, chunks, width, product, pooling, padded, padding, top, grad, lo, hi, total_rows,
    scratch, weight, one, sums, spreads, scale_sums, scaled, weight_sums, weighed, owners, owner,
    slots, compact, found, opens,
):  # fmt: skip
    """Add the gradient `grad` of the vectors of rows `lo..hi-1` to the pool's `sums`.

    Args:
        top: the pooled maximum, whose gradient is already divided by its ties; else unused.
        scratch: uint64 `[SCRATCH + most lookups of a field, BLOCK]`.
        sums: the pool's gradient; not touched unless `spreads`.
        owners: 0 where `sums` are this thread's own; else how many threads own rows of them,
        owner: and which of them this one is.
        slots: where the sums of each pool row are, if `compact`; else at the row itself.
        found: the rows in the order of their slots, if `opens`: then rows get slots as they are
            met, and sums of any content are made zero.
        scale_sums: the gradient of the factors `[L]`, if `scaled`.
        weight_sums: the gradient of per-sample weights `[T]`, if `weighed`.

    Returns:
        How many rows have got slots.
    """
    known = np.int64(0)
    dim, wide = chunks * width, np.uint64(width)
    raw, code, place, to, rows = _layout(scratch)
    for begin in range(lo, hi, BLOCK):
        stop = min(begin + BLOCK, hi)
        for f in range(fields):
            first = get(starts, f)
            lookups = get(starts, f + 1) - first
            terms = lookups // chunks
            b, at = begin, np.int64(-1)
            while b < stop:
                count, b, at = _fill(
                    ids, offsets, weights, weighted, pooling, padded, padding, fields, dim,
                    total_rows, f, b, at, stop, raw, place, to, weight, one,
                )  # fmt: skip
                read_rows(
                    raw, count, after(words, first * COLUMNS), lookups, get(limits, f), tables,
                    code, rows,
                )  # fmt: skip
                if owners > 0:
                    picked = after(rows, lookups * BLOCK)
                    for m in range(lookups):
                        c = m // terms
                        these = after(rows, c * terms * BLOCK)
                        mine = _own(after(rows, m * BLOCK), count, owners, owner, picked)
                        places = after(picked, BLOCK)
                        if opens:
                            known = _open(
                                like, lanes, places, mine, slots, found, known, width, sums
                            )
                        elif compact:
                            _place(places, mine, slots)
                        for piece in range(0, width, lanes):
                            _spread_owned(
                                like, pool, these, picked, mine, terms, m - c * terms, wide,
                                np.uint64(piece), after(scales, first + c * terms), product, to,
                                np.uint64(c * width + piece), grad, pooling, weight, top, sums,
                            )  # fmt: skip
                    continue
                for c in range(chunks):
                    these = after(rows, c * terms * BLOCK)
                    factors = after(scales, first + c * terms)
                    for piece in range(0, width, lanes):
                        part, off = np.uint64(piece), np.uint64(c * width + piece)
                        if pooling == POOL_MAX or scaled or weighed:
                            _rare(
                                like, pool, these, count, terms, wide, part, factors,
                                product, to, off, grad, pooling, weight, top, sums, place,
                                after(scale_sums, first + c * terms), scaled,
                                weight_sums, weighed, spreads,
                            )  # fmt: skip
                        elif terms == 2:
                            _spread_two(
                                like, pool, these, count, 2, wide, part, factors, product, to,
                                off, grad, pooling != ONE, weight, sums,
                            )  # fmt: skip
                        else:
                            _spread_any(
                                like, pool, these, count, terms, wide, part, factors, product, to,
                                off, grad, pooling != ONE, weight, sums,
                            )  # fmt: skip
    return known


@inner
def _rare(
    like, pool, rows, count, terms, width, at, scales, product, to, off, grad, pooling, weight,
    top, sums, place, scale_sums, scaled, weight_sums, weighed, spreads,
):  # fmt: skip
    """The backward of a piece where more than the pool has a gradient, or bags took a maximum."""
    for i in range(count):
        step = load(grad, get(to, i) + off, like)
        if pooling == POOL_MAX or weighed:
            vector = fused(like, pool, rows, i, terms, width, at, scales, product)
            if weighed:
                number = np.int64(get(place, i))
                put(weight_sums, number, get(weight_sums, number) + total(mul(step, vector)))
            if pooling == POOL_MAX:
                most = load(top, get(to, i) + off, like)
                step = mul(step, same(rounded(vector, pool), most))
        if pooling != ONE and pooling != POOL_MAX:
            step = mul(step, splat(get(weight, i), like))
        if scaled:
            weigh(like, pool, rows, i, terms, width, at, step, scale_sums)
        if spreads:
            spread(like, pool, rows, i, terms, width, at, scales, product, step, sums)


@inner
def _own(rows, count, owners, owner, picked):
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
def _place(places, count, slots):
    """Rows to the slots that their sums have."""
    for j in range(count):
        put(places, j, np.uint64(get(slots, np.int64(get(places, j)))))


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
def _spread_owned(
    like, pool, rows, picked, count, terms, me, width, at, scales, product, to, off, grad, pooling,
    weight, top, sums,
):  # fmt: skip
    """Add a piece's gradient to one term's rows, for the ids that were picked."""
    places = after(picked, BLOCK)
    for j in range(count):
        i = np.int64(get(picked, j))
        prefetch(sums, get(places, j + AHEAD) * width + at, 1)
        step = load(grad, get(to, i) + off, like)
        if pooling == POOL_MAX:
            vector = fused(like, pool, rows, i, terms, width, at, scales, product)
            step = mul(step, same(rounded(vector, pool), load(top, get(to, i) + off, like)))
        elif pooling != ONE:
            step = mul(step, splat(get(weight, i), like))
        if product:
            if terms == 2:
                other = after(rows, (1 - me) * BLOCK)
                later = np.int64(get(picked, min(j + AHEAD, count - 1)))
                prefetch(pool, get(other, later) * width + at, 0)
                step = mul(step, load(pool, get(other, i) * width + at, like))
            else:
                for k in range(terms):
                    if k != me:
                        other = get(rows, k * BLOCK + i)
                        step = mul(step, load(pool, other * width + at, like))
        else:
            step = mul(step, splat(get(scales, me), like))
        add_to(sums, get(places, j) * width + at, step)


@inner
def mark(
    ids, offsets, words, starts, fields, limits, tables, pooling, padded, padding, total_rows,
    scratch, weight, one, owners, owner, marks,
):  # fmt: skip
    """Mark the pool rows of this thread that the batch reads."""
    raw, code, place, to, rows = _layout(scratch)
    for begin in range(0, total_rows, BLOCK):
        stop = min(begin + BLOCK, total_rows)
        for f in range(fields):
            first = get(starts, f)
            lookups = get(starts, f + 1) - first
            b, at = begin, np.int64(-1)
            while b < stop:
                count, b, at = _fill(
                    ids, offsets, weight, False, pooling, padded, padding, fields, 1, total_rows,
                    f, b, at, stop, raw, place, to, weight, one,
                )  # fmt: skip
                read_rows(
                    raw, count, after(words, first * COLUMNS), lookups, get(limits, f), tables,
                    code, rows,
                )  # fmt: skip
                picked = after(rows, lookups * BLOCK)
                places = after(picked, BLOCK)
                for m in range(lookups):
                    here = after(rows, m * BLOCK)
                    mine = _own(here, count, owners, owner, picked)
                    for j in range(mine):
                        put(marks, np.int64(get(places, j)), np.uint8(1))
