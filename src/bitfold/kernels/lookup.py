"""Lookups on the CPU: tensors in, tensors out, around the compiled walks.

Shapes are those of `bitfold.kernels.reading`.
"""

import ctypes
import os
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from bitfold.errors import IdOutOfRange
from bitfold.kernels.call import tell
from bitfold.kernels.compiled import run
from bitfold.kernels.held import (
    check_batch,
    check_single_ids,
    check_tensor,
    check_weight,
    check_words,
    facts_of,
    row_steps,
    scales,
    stored,
)
from bitfold.kernels.kept import first_word, scratch
from bitfold.kernels.packing import HEAD
from bitfold.kernels.pages import ask_for_large_pages
from bitfold.kernels.reading import Reading
from bitfold.kernels.ready import (
    Given,
    address_of,
    addresses_of,
    as_kind,
    kernel_of,
    make_ready,
    ready_of,
)
from bitfold.kernels.sharing import threads_of
from bitfold.kernels.walk import FIRST, ONE, POOL_MAX, PRODUCT, READ, WEIGHTED

# Outputs from here on are mapped anew each time (the C library keeps at most 32 MiB of freed memory
# together), and clearing their pages takes longer than the lookup: fewer, larger ones.
MAPPED_NUMBERS = 8 << 20


@lru_cache(maxsize=1)
def cache_bytes() -> int:
    """Bytes of the last-level cache: an output beyond it is written past the caches."""
    try:
        size = max(os.sysconf("SC_LEVEL3_CACHE_SIZE"), os.sysconf("SC_LEVEL2_CACHE_SIZE"))
    except (OSError, ValueError):
        size = 0
    return size if size > 0 else 8 << 20


def forward(reading: tuple[Any, ...]) -> Tensor:
    """Vectors `[B, F, D]`.

    Args:
        reading: a `Reading`, or a plain tuple of the same.

    Raises:
        IdOutOfRange: for a dense id outside `0..V-1`.
        BitfoldError: for a tensor whose memory is not what the program reads.
    """
    # A row's lookup is a microsecond, and so are ten calls of Python or one of torch: what is not
    # there is not asked for, and `shape` and `new_empty` are the quickest ways to ask and to get.
    (
        pool, importance, ids, offsets, weights, packed, fusion, pooling, padding, fields, dim,
        room, raw, centres, steps, bits, tables,
    ) = reading  # fmt: skip
    if padding is not None and pooling == READ:
        pooling, padding = ONE, None
        reading = Reading._make(reading)._replace(pooling=pooling, padding=padding)
    few = bits
    if bits and (steps is None or steps.dim() == 1):
        few = -bits
    ready = ready_of(packed, pool, (fusion, fields, dim, room, raw), few)
    if ready is None:
        ready = make_ready(Reading._make(reading))
    (
        _, _, _, _, _, _, loops, kernel, bag_kernel, width, spare, lanes, learned, facts, wide,
        like, _,
    ) = ready  # fmt: skip
    size, bags = ids.shape, offsets is not None or padding is not None
    if not (bags or pooling or learned or importance is not None or weights is not None):
        check_single_ids(ids, fields)
    else:
        check_words(facts, Reading._make(reading))
        check_batch(facts, Reading._make(reading), WEIGHTED)
    ids, pool = ids.contiguous(), pool.contiguous()
    at_pool, at_ids = pool.data_ptr(), ids.data_ptr()
    rows = size[0] if offsets is None else (offsets.shape[0] - 1) // fields
    if not at_pool or (rows and not at_ids and ids.numel()):
        check_weight(facts, Reading._make(reading))
        check_tensor("ids", ids, tuple(size), torch.int64)
    at_centres = at_steps = at_stored = 0
    if bits:
        centres = scales("centres", centres, facts, width)
        if few > 0:
            steps = scales("steps", steps, facts, width)
        else:
            steps = row_steps(Reading._make(reading))
        at_centres, at_steps, room = centres.data_ptr(), address_of(steps), room + spare
    if tables or facts.tables:
        tables = stored(facts, tables)
        addresses = addresses_of(tables)
        at_stored = ctypes.addressof(addresses)
    if not bags:
        numbers = rows * fields * dim
        out = like.new_empty(rows, fields, dim)
        if numbers > MAPPED_NUMBERS:
            ask_for_large_pages(out)
    else:
        numbers = ids.numel() * dim
        out = like.new_zeros(rows, fields, dim)
    threads = threads_of(numbers, rows)
    streamed = numbers > 1 << 18 and out.nbytes > cache_bytes() and lanes * out.itemsize % 32 == 0
    at_importance = at_offsets = at_weights = 0
    if importance is not None:
        importance = as_kind(importance, wide)
        at_importance = importance.data_ptr()
    if offsets is not None:
        offsets = as_kind(offsets, torch.int64)
        at_offsets = offsets.data_ptr()
    if weights is not None:
        weights = as_kind(weights, wide)
        at_weights = weights.data_ptr()
    walk = bag_kernel if bags else kernel
    if walk is None:
        walk = kernel_of(ready, bags)
    told = tell(
        threads, rows, width, at_pool, at_importance, at_ids, at_offsets, at_weights,
        packed.data_ptr(), fusion, pooling, padding is not None, padding or 0, 0, out.data_ptr(),
        scratch(threads * room), room, loops, at_centres, at_steps, at_stored,
        streamed,
    )  # fmt: skip
    run(walk, told, threads)
    for t in range(threads):
        bad = first_word(t, room)
        if bad >= 0:
            raise _out_of_range(ids, offsets, packed, fields, bad)
    return out


def firsts(reading: Reading, top: Tensor) -> Tensor:
    """Which id of each bag is the first to reach the bag's maximum `top`, number by number.

    Returns:
        `[B, F, D]`: 0 for a bag's first id, -1 for the next, ..., in float32 or float64.
    """
    made = Given.of(reading._replace(weights=None, pooling=POOL_MAX))
    shape = made.rows, reading.fields, reading.dim
    check_tensor("top", top, shape, reading.dtype)
    top, out = top.contiguous(), torch.zeros(shape, dtype=made.ready.wide)
    run(kernel_of(made.ready, True), tell(*made.told(FIRST, top, out), False), made.threads)
    return out


def needs_values(packed: Tensor, fusion: int) -> bool:
    """Whether the gradient of the pool depends on the pool: that of a product of several terms."""
    if fusion != PRODUCT:
        return False
    facts = facts_of(packed)
    return facts.lookups > facts.fields * facts.chunks


def _out_of_range(
    ids: Tensor, offsets: Tensor | None, packed: Tensor, fields: int, position: int
) -> IdOutOfRange:
    field = position % fields
    if offsets is not None:
        bag = int(torch.searchsorted(offsets, position, right=True)) - 1
        field = bag // ((offsets.shape[0] - 1) // fields)
    limit = int(packed[HEAD + fields + 1 + field])
    return IdOutOfRange(
        "a dense id is outside 0..num_embeddings-1",
        got=f"{int(ids.reshape(-1)[position])} at position {position}, field {field}",
        expected=f"0 to {limit - 1}",
        fix="check how the ids were made, or use hashed ids (num_embeddings=None)",
    )
