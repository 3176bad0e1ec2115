"""Lookups on the CPU: tensors in, tensors out, around the compiled walks.

Shapes are those of `bitfold.kernels.reading`.
"""

import ctypes
import os
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitfold.errors import IdOutOfRange
from bitfold.forks import forked
from bitfold.kernels import backward as gradients
from bitfold.kernels import touched
from bitfold.kernels.call import tell
from bitfold.kernels.compiled import Kernel, run
from bitfold.kernels.digits import digits
from bitfold.kernels.forward import forward as vectors
from bitfold.kernels.held import (
    KEPT,
    Facts,
    check_batch,
    check_tensor,
    check_weight,
    check_words,
    described,
    facts_of,
    refused,
    scales,
    stored,
)
from bitfold.kernels.move import Move, check_move
from bitfold.kernels.packing import FEW, HEAD, MOST
from bitfold.kernels.pages import ask_for_large_pages
from bitfold.kernels.readers import FLOATS, PACKED, ROUNDED, scale_words
from bitfold.kernels.reading import Reading, lanes_of_packed
from bitfold.kernels.vectors import lanes_of
from bitfold.kernels.walk import FIRST, ONE, POOL_MAX, PRODUCT, READ, WEIGHTED
from bitfold.threads import agree, most_threads

SERIAL_NUMBERS = 1 << 15  # outputs below which waking a second thread costs more than it saves
PRIVATE_BYTES = 24 << 20  # sums of all threads up to here are private: see benchmarks/sums.py
ROWS_A_LOOKUP = 4  # rows of a pool up to which a lookup is worth sums of all of them
# Outputs from here on are mapped anew each time (the C library keeps at most 32 MiB of freed memory
# together), and clearing their pages takes longer than the lookup: fewer, larger ones.
MAPPED_NUMBERS = 8 << 20
KEPT_POOLS = 4  # for how many pools a thread keeps its marks and lists
# What each pool's numbers are, and what they are added up in.
ITEMS: dict[torch.dtype, tuple[Any, Any, torch.dtype]] = {
    torch.float32: (np.float32(0), np.float32(1), torch.float32),
    torch.float64: (np.float64(0), np.float64(1), torch.float64),
    torch.bfloat16: (np.uint16(0), np.float32(1), torch.float32),
}
_local = threading.local()


@lru_cache(maxsize=1)
def cache_bytes() -> int:
    """Bytes of the last-level cache: an output beyond it is written past the caches."""
    try:
        size = max(os.sysconf("SC_LEVEL3_CACHE_SIZE"), os.sysconf("SC_LEVEL2_CACHE_SIZE"))
    except (OSError, ValueError):
        size = 0
    return size if size > 0 else 8 << 20


def _as(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to(dtype).contiguous().resolve_neg()


def _optional(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else _as(tensor, dtype)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _addresses(tables: Sequence[Tensor]) -> Any:
    """Where tables are, one address after another; whoever tells a kernel of them keeps it."""
    return (ctypes.c_int64 * len(tables))(*[table.data_ptr() for table in tables])


def threads_for(rows: int) -> int:
    """How many threads share a batch: torch's number, which Numba must not change."""
    threads = torch.get_num_threads()
    if min(threads, most_threads()) <= 1 or rows <= 1 or forked():
        return 1  # and Numba is not even asked, see `bitfold.threads`
    agree(threads)
    return min(threads, rows)


def threads_of(numbers: int, rows: int) -> int:
    """How many threads share so many numbers in so many rows."""
    return 1 if numbers < SERIAL_NUMBERS else threads_for(rows)


def _scratch(words: int) -> int:
    """The address of this thread's scratch, of at least that many 8-byte words."""
    kept: NDArray[np.int64] | None = getattr(_local, "scratch", None)
    if kept is None or kept.size < words:
        kept = _local.scratch = np.empty(words, np.int64)
        _local.address = kept.ctypes.data
    address: int = _local.address
    return address


class _Ready(NamedTuple):
    """A lookup whose weight and words were held against its program (`bitfold.kernels.held`).

    The first six are what a call is compared with; `version` is that of the packed program.
    `spare` is the scratch that the scales of few bits take, in words; vectors are made `like`.
    """

    packed: Tensor
    version: int
    shape: torch.Size
    dtype: torch.dtype
    words: tuple[int, int, int, int, bool]
    bits: int
    loops: int
    ids: Kernel
    bags: Kernel
    width: int
    spare: int
    lanes: int
    learned: bool
    facts: Facts
    wide: torch.dtype
    like: Tensor
    kind: tuple[int, Any, Any, int, int]


_ready: dict[int, _Ready] = {}  # by the address of the packed program


def _make_ready(reading: Reading) -> _Ready:
    """Hold a lookup's weight and words against its program, and find its kernels."""
    pool, packed, bits = reading.pool, reading.packed, reading.bits
    if not isinstance(pool, Tensor):
        raise refused("the weight", described(pool), "a tensor")
    facts = facts_of(packed)
    check_words(facts, reading)
    check_weight(facts, reading)
    kind = FLOATS if not bits else PACKED if reading.codes else ROUNDED
    if reading.dtype not in ITEMS or (bits and reading.dtype is not torch.float32):
        known = ITEMS if not bits else (torch.float32, torch.uint8)
        raise refused("the weight", described(pool), f"one of {[str(each) for each in known]}")
    width = reading.dim // facts.chunks
    item, one, wide = ITEMS[reading.dtype]
    lanes = lanes_of_packed(width, bits) if kind == PACKED else lanes_of(width)
    how = lanes, item, one, kind, bits
    ids, bags = (vectors(*how, each) for each in (False, True))
    with torch.inference_mode(False):
        like = torch.empty(0, dtype=reading.dtype, device="cpu")
    if len(_ready) >= KEPT:
        _ready.clear()
    ready = _ready[packed.data_ptr()] = _Ready(
        facts.packed, facts.version, pool.shape, pool.dtype,
        (reading.fusion, reading.fields, reading.dim, reading.room, reading.raw), bits,
        digits(reading.raw, bool(facts.tables)).address, ids, bags, width,
        scale_words(facts.lookups, width) if bits else 0, lanes, reading.fusion == WEIGHTED, facts,
        wide, like, how,
    )  # fmt: skip
    return ready


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
    at_packed = packed.data_ptr()
    ready = _ready.get(at_packed)
    if (
        ready is None
        or ready[0] is not packed
        or ready[2] != pool.shape
        or ready[3] is not pool.dtype
        or ready[4] != (fusion, fields, dim, room, raw)
        or ready[5] != bits
        or (ready[1] >= 0 and ready[1] != packed._version)
    ):
        ready = _make_ready(Reading._make(reading))
    (
        _,
        _,
        _,
        _,
        _,
        _,
        loops,
        kernel,
        bag_kernel,
        width,
        spare,
        lanes,
        learned,
        facts,
        wide,
        like,
        _,
    ) = ready
    size, bags = ids.shape, offsets is not None or padding is not None
    if not (bags or pooling or learned or importance is not None or weights is not None):
        if len(size) != 2 or size[1] != fields or ids.dtype is not torch.int64 or not ids.is_cpu:
            check_batch(facts, Reading._make(reading), WEIGHTED)
    else:
        check_words(facts, Reading._make(reading))
        check_batch(facts, Reading._make(reading), WEIGHTED)
    ids, pool = ids.contiguous(), pool.contiguous()
    at_pool, at_ids = pool.data_ptr(), ids.data_ptr()
    rows = size[0] if offsets is None else (offsets.shape[0] - 1) // fields
    if not at_pool or (rows and not at_ids and ids.numel()):
        check_weight(facts, Reading._make(reading))
        check_tensor("ids", ids, tuple(size), torch.int64)
    at_centres = at_steps = 0
    if bits:
        centres = scales("centres", centres, facts, width)
        steps = scales("steps", steps, facts, width)
        at_centres, at_steps, room = centres.data_ptr(), steps.data_ptr(), room + spare
    at_stored = 0
    if tables or facts.tables:
        tables = stored(facts, tables)
        addresses = _addresses(tables)
        at_stored = ctypes.addressof(addresses)
    if not bags:
        numbers = rows * fields * dim
        out = like.new_empty(rows, fields, dim)
        if numbers > MAPPED_NUMBERS:
            ask_for_large_pages(out)
    else:
        numbers = ids.numel() * dim
        out = like.new_zeros(rows, fields, dim)
    threads = 1 if numbers < SERIAL_NUMBERS else threads_for(rows)
    streamed = numbers > 1 << 18 and out.nbytes > cache_bytes() and lanes * out.itemsize % 32 == 0
    at_importance = at_offsets = at_weights = 0
    if importance is not None:
        importance = _as(importance, wide)
        at_importance = importance.data_ptr()
    if offsets is not None:
        offsets = _as(offsets, torch.int64)
        at_offsets = offsets.data_ptr()
    if weights is not None:
        weights = _as(weights, wide)
        at_weights = weights.data_ptr()
    told = tell(
        threads, rows, width, at_pool, at_importance, at_ids, at_offsets, at_weights,
        at_packed, fusion, pooling, padding is not None, padding or 0, 0, out.data_ptr(),
        _scratch(threads * room), room, loops, at_centres, at_steps, at_stored,
        streamed,
    )  # fmt: skip
    run(bag_kernel if bags else kernel, told, threads)
    bad = _local.scratch.item
    for t in range(threads):
        if bad(t * room) >= 0:
            raise _out_of_range(ids, offsets, packed, fields, bad(t * room))
    return out


def firsts(reading: Reading, top: Tensor) -> Tensor:
    """Which id of each bag is the first to reach the bag's maximum `top`, number by number.

    Returns:
        `[B, F, D]`: 0 for a bag's first id, -1 for the next, ..., in float32 or float64.
    """
    made = _Given.of(reading._replace(weights=None, pooling=POOL_MAX))
    shape = made.rows, reading.fields, reading.dim
    check_tensor("top", top, shape, reading.dtype)
    top, out = top.contiguous(), torch.zeros(shape, dtype=made.ready.wide)
    run(made.ready.bags, tell(*made.told(FIRST, top, out), False), made.threads)
    return out


def needs_values(packed: Tensor, fusion: int) -> bool:
    """Whether the gradient of the pool depends on the pool: that of a product of several terms."""
    facts = facts_of(packed)
    return fusion == PRODUCT and facts.lookups > facts.fields * facts.chunks


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


class _Given(NamedTuple):
    """A reading that was held against its program, its tensors as a kernel takes them."""

    reading: Reading
    ready: _Ready
    rows: int
    threads: int
    addresses: Any

    @classmethod
    def of(cls, reading: Reading) -> "_Given":
        """Hold a reading against its program."""
        ready = _make_ready(reading)
        check_batch(ready.facts, reading, WEIGHTED)
        rows, wide = reading.rows, ready.wide
        centres = steps = None
        if reading.bits:
            centres = scales("centres", reading.centres, ready.facts, ready.width)
            steps = scales("steps", reading.steps, ready.facts, ready.width)
        made = reading._replace(
            pool=reading.pool.contiguous(),
            importance=_optional(reading.importance, wide),
            ids=reading.ids.contiguous(),
            offsets=_optional(reading.offsets, torch.int64),
            weights=_optional(reading.weights, wide),
            centres=centres,
            steps=steps,
            tables=stored(ready.facts, reading.tables),
        )
        threads = threads_of(reading.ids.numel() * reading.dim, rows)
        return cls(made, ready, rows, threads, _addresses(made.tables))

    def told(self, pooling: int, top: Tensor | None, floats: Tensor) -> tuple[int, ...]:
        """What every walk is told; `floats` are the vectors, or their gradient."""
        reading, padding = self.reading, self.reading.padding
        room = reading.room + self.ready.spare
        return (
            self.threads, self.rows, self.ready.width, reading.pool.data_ptr(),
            _address(reading.importance), reading.ids.data_ptr(), _address(reading.offsets),
            _address(reading.weights), reading.packed.data_ptr(), reading.fusion, pooling,
            padding is not None, padding or 0, _address(top), floats.data_ptr(),
            _scratch(self.threads * room), room, self.ready.loops, _address(reading.centres),
            _address(reading.steps), ctypes.addressof(self.addresses),
        )  # fmt: skip


class _Pass(NamedTuple):
    """A backward pass over a batch: what its kernels are always told, and what must outlive it.

    `factors` `[threads, L]` and `shares` `[T]` are zero gradients, of no size where unwanted.
    """

    kind: tuple[int, Any, Any, int, int]
    bags: bool
    common: tuple[int, ...]
    threads: int
    factors: Tensor
    shares: Tensor
    kept: tuple[Any, ...]

    @property
    def _extra(self) -> tuple[int, int]:
        """Where the gradients go that are not the pool's; 0 where unwanted."""
        addresses = [part.data_ptr() if part.numel() else 0 for part in (self.factors, self.shares)]
        return addresses[0], addresses[1]

    def private(self, sums: Tensor, others: Tensor) -> None:
        """All gradients at once; each thread adds the pool's up for itself."""
        where = sums.data_ptr(), others.data_ptr(), sums.numel()
        kernel = gradients.backward(*self.kind, self.bags or any(self._extra), False)
        run(kernel, tell(*self.common, *where, *self._extra, 0, 0, 0, 0), self.threads)
        if self.threads > 1:
            told = tell(*self.common, *where, 0, 0, 0, 0, 0, 0)
            run(gradients.add_up(self.kind[2]), told, self.threads)

    def owned(self, sums: int, slots: int, found: int, stride: int, few: int) -> None:
        """The pool's gradient; each thread adds up rows of its own, and its turns of the few."""
        kernel = gradients.backward(*self.kind, self.bags, True)
        told = tell(*self.common, sums, 0, 0, 0, 0, slots, found, stride, few)
        run(kernel, told, self.threads)

    def others(self) -> None:
        """The gradients that are not the pool's."""
        if any(self._extra):
            kernel = gradients.backward(*self.kind, True, False)
            run(kernel, tell(*self.common, 0, 0, 0, *self._extra, 0, 0, 0, 0), self.threads)

    def touched(self, pool: Tensor) -> tuple[Tensor, int]:
        """The rows that the batch reads, in order, and the address of their places."""
        marks, places = _marks(pool.shape[0])
        counts = np.zeros(self.threads + 1, np.int64)
        marked = marks.ctypes.data, len(marks) // 8, places.ctypes.data
        told = tell(*self.common, *marked, counts[1:].ctypes.data, 0)
        run(touched.mark(), told, self.threads)
        run(touched.count(), told, self.threads)
        ends = counts.cumsum()
        found = torch.empty(int(ends[-1]), dtype=torch.int64)
        told = tell(*self.common, *marked, ends.ctypes.data, found.data_ptr())
        run(touched.number(), told, self.threads)
        return found, places.ctypes.data


def _pass(
    grad: Tensor, reading: Reading, first: Tensor | None, wants_importance: bool,
    wants_weights: bool,
) -> _Pass:  # fmt: skip
    if reading.pooling == READ:
        reading = reading._replace(pooling=ONE)
    made, pooling = _Given.of(reading), reading.pooling
    shape, wide = (made.rows, reading.fields, reading.dim), made.ready.wide
    check_tensor("grad", grad, shape)
    if pooling == POOL_MAX:
        if first is None:
            raise refused("first", "None", "which id of each bag is the largest")
        check_tensor("first", first, shape, wide)
        first = first.contiguous()
    grad, importance = _as(grad, reading.dtype), reading.importance
    count = importance.shape[0] if wants_importance and importance is not None else 0
    shares = reading.ids.shape[0] if wants_weights and reading.weights is not None else 0
    return _Pass(
        made.ready.kind,
        pooling != ONE or reading.padding is not None,
        made.told(pooling, first, grad),
        made.threads,
        torch.zeros((made.threads, count), dtype=wide),
        torch.zeros(shares, dtype=wide),
        (made, first, grad),
    )


def backward(
    grad: Tensor,
    reading: Reading,
    first: Tensor | None,
    sparse: bool,
    wants_importance: bool,
    wants_weights: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the pool, of the learned factors and of the per-sample weights.

    Args:
        grad: of the vectors, `[B, F, D]`.
        reading: the lookup.
        first: which id of each bag is the largest, for a maximum (`firsts`).
        sparse: whether the pool's gradient is that of the rows read alone.
        wants_importance: whether the factors' gradient is wanted.
        wants_weights: whether the weights' gradient is wanted.

    Returns:
        The rows `[n]` in order and their gradient `[n, w]`; or no rows and the whole table's
        `[R, w]`; of packed rows, which have none, nothing. Then the other gradients, `[L]` and
        `[T]`, empty where unwanted.
    """
    made, pool, dtype = (
        _pass(grad, reading, first, wants_importance, wants_weights), reading.pool, reading.dtype,
    )  # fmt: skip
    wide, threads = ITEMS[dtype][2], made.threads
    found = torch.empty(0, dtype=torch.int64)
    if reading.codes:
        made.others()
        sums = torch.empty((0, pool.shape[1]), dtype=wide)
    elif not sparse and _fits(pool, threads):
        sums = torch.empty(pool.shape, dtype=wide)
        made.private(sums, torch.empty((threads - 1, pool.numel()), dtype=wide))
    else:
        slots, shape = 0, pool.shape
        if sparse:
            found, slots = made.touched(pool)
            shape = torch.Size((len(found), pool.shape[1]))
        sums = torch.zeros(shape, dtype=wide)
        made.owned(sums.data_ptr(), slots, 0, 0, 0)
        made.others()
    return found, sums.to(dtype), made.factors.sum(0).to(dtype), made.shares.to(dtype)


def move(grad: Tensor, reading: Reading, *rest: Any, how: Move) -> tuple[Tensor, Tensor]:
    """A backward pass that moves the pool's rows instead of returning their gradient.

    Args:
        grad: of the vectors.
        reading: the lookup.
        rest: as for `backward`, without `sparse`.
        how: the optimizer's words; its weight is the pool, in float32.

    Returns:
        The gradients of the learned factors and of the per-sample weights, as `backward`'s.
    """
    from bitfold.kernels.updates import update, update_lists

    check_move(how)
    pool = reading.pool
    if not isinstance(pool, Tensor):
        raise refused("the weight", described(pool), "a tensor")
    if pool.dtype is not torch.float32 or how.weight.data_ptr() != pool.data_ptr():
        raise refused("the moved weight", described(how.weight), "the float32 table that is read")
    if pool.shape != how.weight.shape:
        raise refused("the moved weight", described(how.weight), f"{list(pool.shape)}")
    made = _pass(grad, reading, *rest)
    threads = made.threads
    lookups = reading.ids.numel() * int(reading.packed[MOST])  # at most
    # Sums of a whole pool cost a walk over it, which few lookups are not worth.
    if _fits(pool, threads) and pool.shape[0] <= ROWS_A_LOOKUP * lookups:
        sums, others = _sums(pool, threads)
        made.private(sums, others)
        update(how, None, sums, threads)
        return made.factors.sum(0), made.shares
    made.others()
    few = int(reading.packed[FEW])
    if few > lookups:  # to clear and walk them would cost more than their rows' turns are worth
        few = 0
    lists = _lists(pool, threads, min(pool.shape[0], lookups) + few + 2)
    sums_at, slots, found = (array.ctypes.data for array in lists)
    try:
        made.owned(sums_at, slots, found, lists.found.shape[1], few)
        update_lists(how, sums_at, slots, found, threads, lists.found.shape[1], few)
    except BaseException:  # interrupted, and slots may be left
        _local.lists.clear()
        raise
    return made.factors.sum(0), made.shares


def _fits(pool: Tensor, threads: int) -> bool:
    """Whether every thread gets sums of its own."""
    return pool.numel() * ITEMS[pool.dtype][2].itemsize * threads <= PRIVATE_BYTES


def _sums(pool: Tensor, threads: int) -> tuple[Tensor, Tensor]:
    """This thread's sums `[R, w]` and those of other threads; kept, since new pages cost time."""
    kept: Tensor | None = _local.__dict__.get("sums")
    if kept is None or kept.numel() < threads * pool.numel():
        kept = _local.sums = torch.empty(threads * pool.numel())
    own = pool.numel()
    return kept[:own].view(pool.shape), kept[own : threads * own].view(threads - 1, own)


class _Lists(NamedTuple):
    """Where each thread lists the rows it meets: their sums, their slots, their numbers."""

    sums: NDArray[np.float32]
    slots: NDArray[np.int32]
    found: NDArray[np.int64]


def _lists(pool: Tensor, threads: int, room: int) -> _Lists:
    """This thread's lists for pools of a shape, with room for so many rows; slots are zero."""
    rows, width = pool.shape
    kept: dict[tuple[int, int], _Lists] = _local.__dict__.setdefault("lists", {})
    lists = kept.get((rows, width))
    if lists is None or lists.found.shape[0] < threads or lists.found.shape[1] < room:
        _make_room(kept)
        lists = _Lists(
            np.empty(threads * room * width, np.float32),
            np.zeros(rows, np.int32),
            np.empty((threads, room), np.int64),
        )
        kept[rows, width] = lists
    return lists


def moving_bytes(pool: Tensor) -> int:
    """Bytes at most that moving such a pool's rows takes beside it: its sums, or its lists."""
    lists = _local.__dict__.get("lists", {}).get(tuple(pool.shape))
    if lists is None:
        return pool.nbytes * threads_for(2**62)
    return sum(array.nbytes for array in lists)


def _marks(rows: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """This thread's marks and slots for a pool of `rows` rows, all zero."""
    kept: dict[int, Any] = _local.__dict__.setdefault("marks", {})
    if rows not in kept:
        _make_room(kept)
        # A slot is the number of a row in a batch: 32 bits will do.
        kept[rows] = np.zeros(-(-rows // 8) * 8, np.uint8), np.zeros(rows, np.int32)
    marks: tuple[NDArray[np.uint8], NDArray[np.int32]] = kept[rows]
    return marks


def _make_room(kept: dict[Any, Any]) -> None:
    while len(kept) >= KEPT_POOLS:
        kept.pop(next(iter(kept)))
