"""Fusions inside a kernel: terms to a piece of the vector, and a piece's gradient to its terms.

Everything here is inlined into the walks: a constant number of terms unrolls its loop. `rows` and
`scales` begin at the chunk's first lookup; arrays are addresses (`vectors.pointer`).
"""

import numpy as np

from bitfold.kernels.packing import AHEAD, BLOCK
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
        pool: the trained numbers.
        rows: uint64 `[K, BLOCK]`, the pool rows of the block's ids.
        i: which id of the block.
        terms: `K`.
        width: `w`, as uint64.
        at: where the piece begins within a row, as uint64.
        scales: a factor for each term; not read by products.
        product: whether terms are multiplied.
    """
    for k in range(terms):
        prefetch(pool, get(rows, k * BLOCK + i + AHEAD) * width + at, 0)
    value = load(pool, get(rows, i) * width + at, like)
    if product:
        for k in range(1, terms):
            value = mul(value, load(pool, get(rows, k * BLOCK + i) * width + at, like))
    else:
        value = mul(value, splat(get(scales, 0), like))
        for k in range(1, terms):
            term = load(pool, get(rows, k * BLOCK + i) * width + at, like)
            value = fma(term, splat(get(scales, k), like), value)
    return value


@inlined
def spread(like, pool, rows, i, terms, width, at, scales, product, grad, sums):
    """Add a piece's gradient to the sums of its terms' rows."""
    for k in range(terms):
        later = get(rows, k * BLOCK + i + AHEAD) * width + at
        prefetch(sums, later, 1)
        if product and terms > 1:
            prefetch(pool, later, 0)
    if not product:
        for k in range(terms):
            place = get(rows, k * BLOCK + i) * width + at
            add_to(sums, place, mul(grad, splat(get(scales, k), like)))
    elif terms == 2:
        first, second = get(rows, i) * width + at, get(rows, BLOCK + i) * width + at
        one, other = load(pool, first, like), load(pool, second, like)
        add_to(sums, first, mul(grad, other))
        add_to(sums, second, mul(grad, one))
    else:
        for k in range(terms):
            value = grad
            for j in range(terms):
                if j != k:
                    other = load(pool, get(rows, j * BLOCK + i) * width + at, like)
                    value = mul(value, other)
            add_to(sums, get(rows, k * BLOCK + i) * width + at, value)


@inlined
def weigh(like, pool, rows, i, terms, width, at, grad, sums):
    """Add to `sums[k]` the gradient of each term's factor."""
    for k in range(terms):
        term = load(pool, get(rows, k * BLOCK + i) * width + at, like)
        put(sums, k, get(sums, k) + total(mul(grad, term)))


@inlined
def add_to(sums, place, value):
    """Add a vector to the numbers at `place`."""
    store(sums, place, add(load(sums, place, value), value))
