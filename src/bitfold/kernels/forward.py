"""Forward: ids to vectors, of single ids or of bags."""

from functools import lru_cache
from typing import Any

import numpy as np

from bitfold.kernels.call import (
    DIGITS,
    FUSION,
    IDS,
    POOL,
    POOLING,
    STEPS,
    STREAMED,
    TOP,
    VECTORS,
    WIDTH,
)
from bitfold.kernels.compiled import STAMP, Kernel, kernel
from bitfold.kernels.digits import read_rows
from bitfold.kernels.fused import NOWHERE, fused
from bitfold.kernels.packing import BLOCK, COLUMNS
from bitfold.kernels.readers import CODES, FLOATS, near, onward, reader, scales_of
from bitfold.kernels.vectors import (
    add,
    after,
    fence,
    fma,
    get,
    inlined,
    inner,
    larger,
    load,
    mul,
    pointer,
    put,
    rounded,
    same,
    splat,
    store,
    stream,
    zero,
)
from bitfold.kernels.walk import (
    POOL_MAX,
    PRODUCT,
    blocks_of,
    fill_bags,
    fill_ids,
    floats_of,
    program_of,
    share,
    share_of_bags,
    stored_of,
)

NEVER = 1e30  # (hit - 1) * NEVER is below every ordinal where nothing was hit


@lru_cache(maxsize=None, typed=True)
def forward(lanes: int, item: Any, one: Any, kind: int, few: int, bags: bool) -> Kernel:
    """Vectors of a thread's rows into `VECTORS`; of bags, `VECTORS` must be zero before.

    With pooling `FIRST`, number by number, which id of a bag is the first that reaches the bag's
    maximum `TOP`: 0, -1, ..., in the type to compute in.
    The first word of a thread's scratch is then the position of an id out of range, or -1.

    Args:
        lanes: of the vectors that rows are read in.
        item: a number of the vectors' type, uint16 for bfloat16.
        one: 1, in the type to compute in.
        kind: how rows are read (`readers`), and `few`: in how many bits a number.
        bags: whether there is pooling or a padding; if not, single ids.
    """
    stamp, bits, kept = STAMP, one.itemsize * 8, np.uint8(0) if kind in CODES else item
    narrow = kind != FLOATS

    @kernel
    def walk(address, t):
        told, like = pointer(address, np.int64(stamp)), zero(lanes, bits)
        fields, chunks, starts, limits, words, tables = program_of(told)
        levels = scales_of(told, t, like, lanes, kind, few)
        steps = pointer(get(told, STEPS), np.uint16(0))
        pool = reader(pointer(get(told, POOL), kept), levels, steps, kind, few)
        out = pointer(get(told, VECTORS), item)
        loops, width, product = get(told, DIGITS), get(told, WIDTH), get(told, FUSION) == PRODUCT
        dim, streamed = chunks * width, get(told, STREAMED) != 0
        raw, code, place, to, rows = blocks_of(told, t)
        weight, scales, partial = floats_of(told, t, one)
        bad = np.int64(-1)
        if bags:
            lo, hi = share_of_bags(told, t)
        else:
            lo, hi = share(told, t)
        for begin in range(lo, hi, BLOCK):
            stop = min(begin + BLOCK, hi)
            for f in range(fields):
                first = get(starts, f)
                lookups = get(starts, f + 1) - first
                b, at, opened = begin, np.int64(-1), NOWHERE
                while b < stop:
                    if bags:
                        count, b, at = fill_bags(
                            told, fields, dim, f, b, at, stop, raw, place, to, weight, one
                        )
                        if count == 0:
                            continue
                    else:
                        count, b = stop - begin, stop
                        fill_ids(
                            pointer(get(told, IDS), np.int64(0)), fields, dim, f, begin, count,
                            raw, to,
                        )  # fmt: skip
                    wrong = read_rows(
                        loops, raw, count, after(words, first * COLUMNS), lookups, get(limits, f),
                        tables, stored_of(told), code, rows,
                    )  # fmt: skip
                    if wrong >= 0 and bad < 0:
                        bad = np.int64(get(place, wrong)) if bags else (begin + wrong) * fields + f
                    if bags:
                        _pool(
                            told, like, lanes, item, onward(pool, first, width), rows, count,
                            chunks, lookups, width,
                            after(scales, first), product, to, out, weight, opened, partial, one,
                        )  # fmt: skip
                        opened = get(to, count - 1)
                    elif narrow:
                        _gather_narrow(
                            like, lanes, onward(pool, first, width), rows, count, chunks,
                            lookups, width, after(scales, first), product, to, out, streamed,
                        )  # fmt: skip
                    else:
                        _gather_floats(
                            like, lanes, onward(pool, first, width), rows, count, chunks,
                            lookups, width, after(scales, first), product, to, out, streamed,
                        )  # fmt: skip
        if streamed:
            fence()
        put(raw, 0, np.uint64(bad))

    return walk


def _gather_of(known: int) -> Any:
    """Gathering vectors of single ids, a piece of each, with `known` terms; 0 for any number.

    The variants are functions of their own: small ones compile in a fraction of the time.
    """

    @inner
    def gather(like, pool, rows, count, terms, width, at, scales, product, to, off, out, streamed):
        if known:
            terms = known
        close = near(pool, known, width, at, like)
        if streamed:
            for i in range(count):
                value = fused(like, close, rows, i, terms, width, at, scales, product)
                stream(out, get(to, i) + off, value)
        else:
            for i in range(count):
                value = fused(like, close, rows, i, terms, width, at, scales, product)
                store(out, get(to, i) + off, value)

    return gather


_gather_one, _gather_two, _gather_three, _gather_any = (_gather_of(n) for n in (1, 2, 3, 0))


def _gathering(narrow: bool) -> Any:
    """Gathering the vectors of a block of single ids; of few bits, scales are in registers."""

    @inlined
    def gather(
        like, lanes, pool, rows, count, chunks, lookups, width, scales, product, to, out, streamed
    ):
        terms, wide = lookups // chunks, np.uint64(width)
        for c in range(chunks):
            these, factors = after(rows, c * terms * BLOCK), after(scales, c * terms)
            terms_of = onward(pool, c * terms, width)
            for piece in range(0, width, lanes):
                part, off = np.uint64(piece), np.uint64(c * width + piece)
                if terms == 2:
                    _gather_two(
                        like, terms_of, these, count, 2, wide, part, factors, product, to, off,
                        out, streamed,
                    )  # fmt: skip
                    continue
                if narrow:
                    if terms == 1:
                        _gather_one(
                            like, terms_of, these, count, 1, wide, part, factors, product, to, off,
                            out, streamed,
                        )  # fmt: skip
                        continue
                    if terms == 3:
                        _gather_three(
                            like, terms_of, these, count, 3, wide, part, factors, product, to, off,
                            out, streamed,
                        )  # fmt: skip
                        continue
                _gather_any(
                    like, terms_of, these, count, terms, wide, part, factors, product, to, off, out,
                    streamed,
                )  # fmt: skip

    return gather


_gather_floats, _gather_narrow = _gathering(False), _gathering(True)


@inner
def _pool(
    told, like, lanes, item, pool, rows, count, chunks, lookups, width, scales, product, to, out,
    weight, opened, partial, one,
):  # fmt: skip
    """Vectors of bags; a bag that the last block `opened` goes on."""
    terms, wide, pooling = lookups // chunks, np.uint64(width), get(told, POOLING)
    lowest = type(one)(one * (-np.inf) if pooling >= POOL_MAX else one - one)
    top, firsts = pointer(get(told, TOP), item), pointer(get(told, VECTORS), one)
    minus, never = -one, type(one)(one * NEVER)
    for c in range(chunks):
        these, factors = after(rows, c * terms * BLOCK), after(scales, c * terms)
        terms_of = onward(pool, c * terms, width)
        for piece in range(0, width, lanes):
            part, off = np.uint64(piece), np.uint64(c * width + piece)
            if terms == 2 and pooling < POOL_MAX:
                _add_two(
                    like, terms_of, these, count, 2, wide, part, factors, product, to, off, out,
                    pooling, weight, lowest, opened, partial, top, firsts, minus, never,
                )  # fmt: skip
            else:
                _pool_any(
                    like, terms_of, these, count, terms, wide, part, factors, product, to, off, out,
                    pooling, weight, lowest, opened, partial, top, firsts, minus, never,
                )  # fmt: skip


def _pool_of(known: int, adds: bool) -> Any:
    """Pooling a piece of each vector, with `known` terms, 0 for any number; by sums alone."""

    @inner
    def pool_piece(
        like, pool, rows, count, terms, width, at, scales, product, to, off, out, pooling, weight,
        lowest, opened, partial, top, firsts, minus, never,
    ):  # fmt: skip
        if known:
            terms = known
        close = near(pool, known, width, at, like)
        i = 0
        while i < count:
            bag = get(to, i)
            value = load(partial, off, like)
            if i > 0 or bag != opened:
                value = splat(lowest, like)
            while i < count and get(to, i) == bag:
                vector = fused(like, close, rows, i, terms, width, at, scales, product)
                if adds or pooling < POOL_MAX:
                    value = fma(vector, splat(get(weight, i), like), value)
                elif pooling == POOL_MAX:
                    value = larger(rounded(vector, out), value)
                else:
                    hit = same(rounded(vector, out), load(top, bag + off, like))
                    miss = mul(add(hit, splat(minus, like)), splat(never, like))
                    value = larger(fma(hit, splat(-get(weight, i), like), miss), value)
                i += 1
            if adds or pooling <= POOL_MAX:
                store(out, bag + off, value)
            else:
                store(firsts, bag + off, value)
            store(partial, off, value)

    return pool_piece


_add_two, _pool_any = _pool_of(2, True), _pool_of(0, False)
