"""Gradients of lookups on the CPU, and rows that move instead: around the compiled walks."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bitfold.kernels import backward as walks
from bitfold.kernels import touched
from bitfold.kernels.call import tell
from bitfold.kernels.compiled import run
from bitfold.kernels.held import check_tensor, described, refused
from bitfold.kernels.kept import forget_lists, lists_of, marks_of, sums_of
from bitfold.kernels.move import Move, check_move
from bitfold.kernels.packing import FEW, MOST
from bitfold.kernels.reading import Reading
from bitfold.kernels.ready import ITEMS, Given, address_of, as_kind
from bitfold.kernels.updates import update, update_lists
from bitfold.kernels.walk import ONE, POOL_MAX, READ

PRIVATE_BYTES = 24 << 20  # sums of all threads up to here are private: see benchmarks/sums.py
ROWS_A_LOOKUP = 4  # rows of a pool up to which a lookup is worth sums of all of them


class _Pass(NamedTuple):
    """A backward pass over a batch: what its kernels are always told, and what must outlive it.

    `factors` `[threads, L]` and `shares` `[T]` are zero gradients, None where unwanted.
    """

    made: Given
    kind: tuple[int, Any, Any, int, int]
    width: int
    bags: bool
    common: tuple[int, ...]
    threads: int
    factors: Tensor | None
    shares: Tensor | None
    kept: tuple[Any, ...]

    @property
    def _extra(self) -> tuple[int, int]:
        """Where the gradients go that are not the pool's; 0 where unwanted."""
        return address_of(self.factors), address_of(self.shares)

    def private(self, sums: Tensor, others: Tensor | None) -> None:
        """All gradients at once; each thread adds the pool's up for itself."""
        where, extra = (sums.data_ptr(), address_of(others), sums.numel()), self._extra
        kernel = walks.backward(*self.kind, self.bags or any(extra), False)
        run(kernel, tell(*self.common, *where, *extra, 0, 0, 0, 0), self.threads)
        if self.threads > 1:
            told = tell(*self.common, *where, 0, 0, 0, 0, 0, 0)
            run(walks.add_up(self.kind[2]), told, self.threads)

    def owned(self, sums: int, slots: int, found: int, stride: int, few: int) -> None:
        """The pool's gradient; each thread adds up rows of its own, and its turns of the few."""
        kernel = walks.backward(*self.kind, self.bags, True)
        told = tell(*self.common, sums, 0, 0, 0, 0, slots, found, stride, few)
        run(kernel, told, self.threads)

    def others(self) -> None:
        """The gradients that are not the pool's."""
        extra = self._extra
        if any(extra):
            kernel = walks.backward(*self.kind, True, False)
            run(kernel, tell(*self.common, 0, 0, 0, *extra, 0, 0, 0, 0), self.threads)

    def more(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The gradients that are not the pool's, `[L]` and `[T]`; of no size where unwanted."""
        factors, shares = self.factors, self.shares
        none = self.made.ready.like
        return (
            none.new_empty(0) if factors is None else factors.sum(0).to(dtype),
            none.new_empty(0) if shares is None else shares.to(dtype),
        )

    def touched(self, pool: Tensor) -> tuple[Tensor, int]:
        """The rows that the batch reads, in order, and the address of their places."""
        marks, places = marks_of(pool.shape[0])
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
    made, pooling = Given.of(reading), reading.pooling
    shape, wide = (made.rows, reading.fields, reading.dim), made.ready.wide
    check_tensor("grad", grad, shape)
    if pooling == POOL_MAX:
        if first is None:
            raise refused("first", "None", "which id of each bag is the largest")
        check_tensor("first", first, shape, wide)
        first = first.contiguous()
    grad, importance = as_kind(grad, reading.dtype), reading.importance
    factors = shares = None
    if wants_importance and importance is not None:
        factors = torch.zeros((made.threads, importance.shape[0]), dtype=wide)
    if wants_weights and reading.weights is not None:
        shares = torch.zeros(reading.ids.shape[0], dtype=wide)
    return _Pass(
        made,
        made.ready.kind,
        made.ready.width,
        pooling != ONE or reading.padding is not None,
        made.told(pooling, first, grad),
        made.threads,
        factors,
        shares,
        (first, grad),
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
        `[R, w]`, of packed rows nothing. Then the other gradients, `[L]` and `[T]`, empty where
        unwanted.
    """
    made, pool, dtype = (
        _pass(grad, reading, first, wants_importance, wants_weights), reading.pool, reading.dtype,
    )  # fmt: skip
    wide, threads = ITEMS[dtype][2], made.threads
    found: Tensor | None = None
    if reading.codes and not sparse:
        made.others()
        sums = torch.empty((0, made.width), dtype=wide)
    elif not sparse and _fits(pool, threads):
        sums, others = torch.empty(pool.shape, dtype=wide), None
        if threads > 1:
            others = torch.empty((threads - 1, pool.numel()), dtype=wide)
        made.private(sums, others)
    else:
        slots, shape = 0, pool.shape
        if sparse:
            found, slots = made.touched(pool)
            shape = torch.Size((len(found), made.width))
        sums = torch.zeros(shape, dtype=wide)
        made.owned(sums.data_ptr(), slots, 0, 0, 0)
        made.others()
    if found is None:
        found = torch.empty(0, dtype=torch.int64)
    return found, sums.to(dtype), *made.more(dtype)


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
        sums, others = sums_of(pool, threads)
        made.private(sums, others)
        update(how, None, sums, threads)
        return made.more(torch.float32)
    made.others()
    few = int(reading.packed[FEW])
    if few > lookups:  # to clear and walk them would cost more than their rows' turns are worth
        few = 0
    lists = lists_of(pool, threads, min(pool.shape[0], lookups) + few + 2)
    sums_at, slots, found = (array.ctypes.data for array in lists)
    try:
        made.owned(sums_at, slots, found, lists.found.shape[1], few)
        update_lists(how, sums_at, slots, found, threads, lists.found.shape[1], few)
    except BaseException:  # interrupted, and slots may be left
        forget_lists()
        raise
    return made.more(torch.float32)


def _fits(pool: Tensor, threads: int) -> bool:
    """Whether every thread gets sums of its own."""
    return pool.numel() * ITEMS[pool.dtype][2].itemsize * threads <= PRIVATE_BYTES
