"""The row optimizers' updates in one pass over the rows that move."""

from functools import lru_cache
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from bitfold.kernels.compiled import STAMP, kept
from bitfold.kernels.lookup import SERIAL_NUMBERS, threads_for
from bitfold.kernels.vectors import after, get, pointer, put

KINDS = {"sgd": 0, "adagrad": 1, "rowwise-adagrad": 2, "lazy-adam": 3}


@numba.njit(nogil=True)
def _update(
    kind, weight, rows, grad, one, two, lo, hi, width, listed, lr, decay, eps, first, second
):
    """Move the rows that numbers `lo..hi-1` of the gradient belong to; see `update`."""
    unit, zero = np.float32(1), np.float32(0)
    for i in range(lo, hi):
        row, here = i, after(grad, i * width)
        if listed:
            row = get(rows, i)
        else:
            touched = False
            for j in range(width):
                touched |= get(here, j) != zero  # NaN too: it goes into the weights
            if not touched:
                continue
        to = after(weight, row * width)
        if kind == 0:
            if first == zero:
                for j in range(width):
                    put(to, j, get(to, j) * decay - lr * get(here, j))
            else:
                kept = after(one, row * width)
                for j in range(width):
                    step = get(kept, j) * first + get(here, j)
                    put(kept, j, step)
                    put(to, j, get(to, j) * decay - lr * step)
        elif kind == 1:
            kept = after(one, row * width)
            for j in range(width):
                square = get(kept, j) + get(here, j) * get(here, j)
                put(kept, j, square)
                put(to, j, get(to, j) * decay - lr * (get(here, j) / (np.sqrt(square) + eps)))
        elif kind == 2:
            square = zero
            for j in range(width):
                square += get(here, j) * get(here, j)
            square = get(one, row) + square / np.float32(width)
            put(one, row, square)
            rate = lr / (np.sqrt(square) + eps)
            for j in range(width):
                put(to, j, get(to, j) * decay - rate * get(here, j))
        else:
            means, squares = after(one, row * width), after(two, row * width)
            for j in range(width):
                number = get(here, j)
                mean = get(means, j) * first + number * (unit - first)
                square = get(squares, j) * second + number * number * (unit - second)
                put(means, j, mean)
                put(squares, j, square)
                put(to, j, get(to, j) * decay - lr * (mean / (np.sqrt(square) + eps)))


@lru_cache(maxsize=1)
def _compiled() -> tuple[Any, Any]:
    stamp = STAMP

    @kept()
    def serial(
        threads, kind, weight, rows, grad, one, two, count, width, lr, decay, eps, first, second
    ):
        number, item = np.int64(stamp), np.float32(0)
        _update(
            kind, pointer(weight, item), pointer(rows, number), pointer(grad, item),
            pointer(one, item), pointer(two, item), 0, count, width, rows != 0, np.float32(lr),
            np.float32(decay), np.float32(eps), np.float32(first), np.float32(second),
        )  # fmt: skip

    @kept(parallel=True)
    def parallel(
        threads, kind, weight, rows, grad, one, two, count, width, lr, decay, eps, first, second
    ):
        for t in numba.prange(threads):
            number, item = np.int64(stamp), np.float32(0)
            _update(
                kind, pointer(weight, item), pointer(rows, number), pointer(grad, item),
                pointer(one, item), pointer(two, item), count * t // threads,
                count * (t + 1) // threads, width, rows != 0, np.float32(lr), np.float32(decay),
                np.float32(eps), np.float32(first), np.float32(second),
            )  # fmt: skip

    return serial, parallel


def update(
    kind: str,
    weight: Tensor,
    rows: Tensor | None,
    grad: Tensor,
    one: Tensor,
    two: Tensor,
    words: tuple[float, float, float, float, float],
) -> None:
    """Move rows of a float32 weight on the CPU, in place.

    Args:
        kind: one of `KINDS`.
        weight: contiguous, `[R, ...]`.
        rows: int64 `[n]`, each once; None for all, of which those without gradient stay.
        grad: float32 `[n, w]`.
        one: the kind's first state, or empty.
        two: its second, or empty.
        words: rate, decay factor, epsilon, and the kind's two numbers.
    """
    count, width = grad.shape
    threads = 1 if grad.numel() < SERIAL_NUMBERS else threads_for(count)
    serial, parallel = _compiled()
    (serial if threads == 1 else parallel)(
        threads, KINDS[kind], weight.data_ptr(), 0 if rows is None else rows.data_ptr(),
        grad.data_ptr(), one.data_ptr(), two.data_ptr(), count, width, *words,
    )  # fmt: skip
    torch.autograd.graph.increment_version(weight)
