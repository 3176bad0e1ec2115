"""Fusions inside a kernel: terms to a piece of the vector, and a piece's gradient to its terms.

Everything here is inlined into the walks: a constant number of terms unrolls its loop. `rows` and
`scales` begin at the chunk's first lookup; arrays are addresses (`vectors.pointer`).
"""

import numpy as np

from bitfold.kernels.packing import AHEAD, BLOCK
from bitfold.kernels.readers import fetch, read
from bitfold.kernels.vectors import (
    add,
    fma,
    get,
    inlined,
    load,
    mul,
    prefetch,
    put,
    splat,
    store,
    total,
)

NOWHERE = np.uint64(0xFFFFFFFFFFFFFFFF)  # no vector begins here


@inlined
def fused(like, pool, rows, i, terms, width, at, scales, product):
    """Piece `at` of id `i`'s vector.

    Args:
        like: a vector of the type to compute in.
        pool: the reader of the trained numbers.
        rows: uint64 `[K, BLOCK]`, the pool rows of the block's ids.
        i: which id of the block.
        terms: `K`.
        width: `w`, as uint64.
        at: where the piece begins within a row, as uint64.
        scales: a factor for each term; not read by products.
        product: whether terms are multiplied.
    """
    for k in range(terms):
        fetch(pool, get(rows, k * BLOCK + i + AHEAD), width, at)
    value = read(pool, 0, get(rows, i), width, at, like)
    if product:
        for k in range(1, terms):
            value = mul(value, read(pool, k, get(rows, k * BLOCK + i), width, at, like))
    else:
        value = mul(value, splat(get(scales, 0), like))
        for k in range(1, terms):
            term = read(pool, k, get(rows, k * BLOCK + i), width, at, like)
            value = fma(term, splat(get(scales, k), like), value)
    return value


@inlined
def spread(like, pool, rows, i, terms, width, at, scales, product, grad, sums):
    """Add a piece's gradient to the sums of its terms' rows."""
    for k in range(terms):
        later = get(rows, k * BLOCK + i + AHEAD)
        prefetch(sums, later * width + at, 1)
        if product and terms > 1:
            fetch(pool, later, width, at)
    if not product:
        for k in range(terms):
            place = get(rows, k * BLOCK + i) * width + at
            add_to(sums, place, mul(grad, splat(get(scales, k), like)))
    elif terms == 2:
        first, second = get(rows, i), get(rows, BLOCK + i)
        one = read(pool, 0, first, width, at, like)
        other = read(pool, 1, second, width, at, like)
        add_to(sums, first * width + at, mul(grad, other))
        add_to(sums, second * width + at, mul(grad, one))
    else:
        for k in range(terms):
            value = grad
            for j in range(terms):
                if j != k:
                    other = read(pool, j, get(rows, j * BLOCK + i), width, at, like)
                    value = mul(value, other)
            add_to(sums, get(rows, k * BLOCK + i) * width + at, value)


@inlined
def weigh(like, pool, rows, i, terms, width, at, grad, sums):
    """Add to `sums[k]` the gradient of each term's factor."""
    for k in range(terms):
        term = read(pool, k, get(rows, k * BLOCK + i), width, at, like)
        put(sums, k, get(sums, k) + total(mul(grad, term)))


@inlined
def add_to(sums, place, value):
    """Add a vector to the numbers at `place`."""
    store(sums, place, add(load(sums, place, value), value))
