"""The row optimizers' updates in one pass over the rows that move."""

import struct
from functools import lru_cache
from math import prod

import numpy as np
import torch
from torch import Tensor

from bitfold.kernels.call import (
    COUNT,
    FIRST,
    FREED,
    GRAD,
    KIND,
    LIST,
    NUMBERS,
    ONE,
    STEP,
    THREADS,
    TWO,
    WEIGHT,
    tell,
)
from bitfold.kernels.call import MOVED_WIDTH as WIDTH
from bitfold.kernels.compiled import STAMP, Kernel, kernel, run
from bitfold.kernels.held import check_tensor, described, refused
from bitfold.kernels.move import Move, check_floats, check_move
from bitfold.kernels.packing import AHEAD
from bitfold.kernels.vectors import (
    add,
    after,
    div,
    empty,
    fma,
    get,
    inlined,
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

KINDS = {"sgd": 0, "adagrad": 1, "rowwise-adagrad": 2, "lazy-adam": 3}
SGD, ADAGRAD, ROWWISE, ADAM = KINDS.values()


@inlined
def options_of(address):
    """What the optimizer says: rate, decay factor, L2, epsilon, and two numbers of its own."""
    words = after(pointer(address, np.float64(0)), NUMBERS)
    return (
        np.float32(get(words, 0)), np.float32(get(words, 1)), np.float32(get(words, 2)),
        np.float32(get(words, 3)), np.float32(get(words, 4)), np.float32(get(words, 5)),
    )  # fmt: skip


@inner
def move_rows(
    like, lanes, kind, weight, rows, grad, one, two, lo, hi, width, listed, options, checked
):
    """Move the rows that numbers `lo..hi-1` of the gradient belong to; see `update`.

    Of `checked` ones those without a gradient stay.
    """
    lr, decay, l2, eps, first, second = options
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
        if checked:
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


@lru_cache(maxsize=None, typed=True)
def moving(lanes: int) -> Kernel:
    """Move the rows of a list, each thread a part of it; or, with `STEP`, each its own list.

    A list of a thread's own is part t of `[threads, STEP]`, and so are the rows' gradients; its
    last number says how long it is. The `FIRST` rows are in all lists; their gradients are added up
    and each thread moves a part of them. `FREED` slots of the other rows are made 0.
    """
    stamp = STAMP

    @kernel
    def walk(address, t):
        number, item = np.int64(stamp), np.float32(0)
        told = pointer(address, number)
        options = options_of(address)
        rows, grads = pointer(get(told, LIST), number), pointer(get(told, GRAD), item)
        threads, count, step = get(told, THREADS), get(told, COUNT), get(told, STEP)
        width, slots = get(told, WIDTH), pointer(get(told, FREED), np.int32(0))
        lo, hi = count * t // threads, count * (t + 1) // threads
        few, like = get(told, FIRST), zero(lanes, 32)
        if few > 0:
            lo, hi = few * t // threads, few * (t + 1) // threads
            for other in range(1, threads):
                more = after(grads, other * step * width)
                for i in range(lo * width, hi * width):
                    put(grads, i, get(grads, i) + get(more, i))
        # The rows of all lists if there are any, then the others.
        for own in range(0 if few > 0 else 1, 2):
            if step > 0 and own > 0:
                rows, grads = after(rows, t * step), after(grads, t * step * width)
                lo, hi = few, get(rows, step - 1)
            move_rows(
                like, lanes, get(told, KIND), pointer(get(told, WEIGHT), item), rows, grads,
                pointer(get(told, ONE), item), pointer(get(told, TWO), item), lo, hi, width,
                get(told, LIST) != 0, options, get(told, LIST) == 0 or own == 0,
            )  # fmt: skip
        if get(told, FREED) != 0:
            for i in range(few, hi):
                put(slots, get(rows, i), np.int32(0))

    return walk


def update(move: Move, rows: Tensor | None, grad: Tensor, threads: int) -> None:
    """Move rows of a float32 weight on the CPU, in place.

    Args:
        move: how; its weight is contiguous, `[R, ...]`.
        rows: int64 `[n]`, each once; None for all, of which those without gradient stay.
        grad: float32 `[n, w]`.
        threads: how many share the rows.
    """
    check_move(move)
    if not isinstance(grad, Tensor) or grad.dim() != 2:
        raise refused("grad", described(grad), "torch.float32 [n, w] on cpu")
    count, width = grad.shape
    wide = prod(move.weight.shape[1:])
    check_floats("the gradient", grad, (count if rows is not None else len(move.weight), wide))
    if rows is not None:
        check_tensor("rows", rows, (count,), torch.int64)
        rows = rows.contiguous()
        if count and (int(rows.min()) < 0 or int(rows.max()) >= len(move.weight)):
            raise refused(
                "rows", f"{int(rows.min())} to {int(rows.max())}", f"0 to {len(move.weight) - 1}"
            )
    if not move.weight.numel():
        return
    listed = 0 if rows is None else rows.data_ptr()
    _run(move, listed, grad.data_ptr(), threads, count, 0, 0, 0, width)


def update_lists(
    move: Move, sums: int, slots: int, found: int, threads: int, stride: int, few: int
) -> None:
    """Move each thread's own list of rows, and free their slots.

    Args:
        move: as in `update`.
        sums: the address of float32 `[threads, stride, w]`, the rows' gradients.
        slots: the address of int32 `[R]`, zero afterwards.
        found: the address of int64 `[threads, stride]`, rows, and at the end how many.
        threads: how many lists there are.
        stride: how long a list is.
        few: how many rows are at the beginning of every list, each with a part of its gradient.
    """
    _run(move, found, sums, threads, 0, stride, slots, few, move.weight.shape[1])


def told_options(move: Move) -> tuple[int, ...]:
    """The words that `options_of` reads."""
    return struct.unpack("6q", struct.pack("6d", *move.words))


def _run(
    move: Move, rows: int, grad: int, threads: int, count: int, step: int, slots: int, few: int,
    width: int,
) -> None:  # fmt: skip
    told = tell(
        threads, width, KINDS[move.kind], move.weight.data_ptr(), rows, grad, move.one.data_ptr(),
        move.two.data_ptr(), count, step, slots, few, *told_options(move),
    )  # fmt: skip
    run(moving(lanes_of(width)), told, threads)
    torch.autograd.graph.increment_version(move.weight)
