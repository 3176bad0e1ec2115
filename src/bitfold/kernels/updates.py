"""The row optimizers' updates in one pass over the rows that move."""

from functools import lru_cache
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from bitfold.kernels.compiled import STAMP, kept
from bitfold.kernels.move import Move
from bitfold.kernels.vectors import (
    add,
    after,
    div,
    empty,
    fma,
    get,
    inner,
    lanes_of,
    load,
    mul,
    pointer,
    prefetch,
    put,
    root,
    splat,
    store,
    total,
    zero,
)
from bitfold.kernels.words import AHEAD

KINDS = {"sgd": 0, "adagrad": 1, "rowwise-adagrad": 2, "lazy-adam": 3}
SGD, ADAGRAD, ROWWISE, ADAM = KINDS.values()


@inner
def _move(
    like, lanes, kind, weight, rows, grad, one, two, lo, hi, width, listed, lr, decay, l2, eps,
    first, second,
):  # fmt: skip
    """Move the rows that numbers `lo..hi-1` of the gradient belong to; see `update`."""
    wide, unit = np.uint64(width), np.float32(1)
    lasting, little, down = splat(decay, like), splat(eps, like), splat(-lr, like)
    pull = splat(l2, like)
    forget, square_forget = splat(first, like), splat(second, like)
    fresh, square_fresh = splat(unit - first, like), splat(unit - second, like)
    states = kind == ADAM
    numbers = states or kind == ADAGRAD or first != 0
    for i in range(lo, hi):
        row, here = np.uint64(i), np.uint64(i) * wide
        if listed:
            row = np.uint64(get(rows, i))
            later = np.uint64(get(rows, min(i + AHEAD, hi - 1)))
            for piece in range(0, width, lanes):
                there = later * wide + np.uint64(piece)
                prefetch(weight, there, 1)
                if numbers:
                    prefetch(one, there, 1)
                if states:
                    prefetch(two, there, 1)
            if kind == ROWWISE:
                prefetch(one, later, 1)
        else:
            still = True
            for piece in range(0, width, lanes):
                still &= empty(load(grad, here + np.uint64(piece), like))
            if still:
                continue
        rate = down
        if kind == ROWWISE:
            square = np.float32(0)
            for piece in range(0, width, lanes):
                step = load(grad, here + np.uint64(piece), like)
                if l2 != 0:
                    step = fma(load(weight, row * wide + np.uint64(piece), like), pull, step)
                square += total(mul(step, step))
            square = get(one, np.int64(row)) + square / np.float32(width)
            put(one, np.int64(row), square)
            rate = splat(-lr / (np.sqrt(square) + eps), like)
        for piece in range(0, width, lanes):
            at = row * wide + np.uint64(piece)
            step = load(grad, here + np.uint64(piece), like)
            if l2 != 0:
                step = fma(load(weight, at, like), pull, step)
            if kind == SGD:
                if first != 0:
                    step = fma(load(one, at, like), forget, step)
                    store(one, at, step)
            elif kind == ADAGRAD:
                square = fma(step, step, load(one, at, like))
                store(one, at, square)
                step = div(step, add(root(square), little))
            elif kind == ADAM:
                mean = fma(load(one, at, like), forget, mul(step, fresh))
                squares = fma(
                    load(two, at, like), square_forget, mul(mul(step, step), square_fresh)
                )
                store(one, at, mean)
                store(two, at, squares)
                step = div(mean, add(root(squares), little))
            store(weight, at, fma(step, rate, mul(load(weight, at, like), lasting)))


@inner
def _free(rows, slots, count):
    """Make the slots of the rows that have moved 0 again."""
    for i in range(count):
        put(slots, get(rows, i), np.int32(0))


@inner
def _share(
    like, lanes, t, threads, kind, weight, rows, grad, one, two, count, stride, slots, width, lr,
    decay, l2, eps, first, second,
):  # fmt: skip
    """The share of thread `t`."""
    number, item = np.int64(0), np.float32(0)
    lists, grads = pointer(rows, number), pointer(grad, item)
    lo, hi = count * t // threads, count * (t + 1) // threads
    if stride > 0:
        lists, grads = after(lists, t * stride), after(grads, t * stride * width)
        lo, hi = 0, get(lists, stride - 1)
    _move(
        like, lanes, kind, pointer(weight, item), lists, grads, pointer(one, item),
        pointer(two, item), lo, hi, width, rows != 0, np.float32(lr), np.float32(decay),
        np.float32(l2), np.float32(eps), np.float32(first), np.float32(second),
    )  # fmt: skip
    if slots != 0:
        _free(lists, pointer(slots, np.int32(0)), hi)


@lru_cache(maxsize=None, typed=True)
def _compiled(lanes: int) -> tuple[Any, Any]:
    stamp = STAMP

    @kept()
    def serial(
        threads, kind, weight, rows, grad, one, two, count, stride, slots, width, lr, decay, l2,
        eps, first, second,
    ):  # fmt: skip
        _share(
            zero(lanes, 32), lanes, np.int64(0), threads, kind, weight, rows, grad, one, two,
            count, stride, slots, width, lr, decay, l2, eps, first, second,
        )  # fmt: skip
        return stamp

    @kept(parallel=True)
    def parallel(
        threads, kind, weight, rows, grad, one, two, count, stride, slots, width, lr, decay, l2,
        eps, first, second,
    ):  # fmt: skip
        for t in numba.prange(threads):
            _share(
                zero(lanes, 32), lanes, np.int64(t), threads, kind, weight, rows, grad, one, two,
                count, stride, slots, width, lr, decay, l2, eps, first, second,
            )  # fmt: skip
        return stamp

    return serial, parallel


def update(move: Move, rows: Tensor | None, grad: Tensor, threads: int) -> None:
    """Move rows of a float32 weight on the CPU, in place.

    Args:
        move: how; its weight is contiguous, `[R, ...]`.
        rows: int64 `[n]`, each once; None for all, of which those without gradient stay.
        grad: float32 `[n, w]`.
        threads: how many share the rows.
    """
    count, width = grad.shape
    listed = 0 if rows is None else rows.data_ptr()
    _call(move, listed, grad.data_ptr(), threads, count, 0, 0, width)


def update_lists(move: Move, sums: int, slots: int, found: int, threads: int, stride: int) -> None:
    """Move each thread's own list of rows, and free their slots.

    Args:
        move: as in `update`.
        sums: the address of float32 `[threads, stride, w]`, the rows' gradients.
        slots: the address of int32 `[R]`, zero afterwards.
        found: the address of int64 `[threads, stride]`, rows, and at the end how many.
        threads: how many lists there are.
        stride: how long a list is.
    """
    _call(move, found, sums, threads, 0, stride, slots, move.weight.shape[1])


def _call(
    move: Move, rows: int, grad: int, threads: int, count: int, stride: int, slots: int, width: int
) -> None:
    serial, parallel = _compiled(lanes_of(width))
    (serial if threads == 1 else parallel)(
        threads, KINDS[move.kind], move.weight.data_ptr(), rows, grad, move.one.data_ptr(),
        move.two.data_ptr(), count, stride, slots, width, *move.words,
    )  # fmt: skip
    torch.autograd.graph.increment_version(move.weight)
