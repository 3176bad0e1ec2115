"""Rows that are codes: decoded, moved as any others, and encoded again."""

import torch
from torch import Tensor

from bitfold.kernels.move import Move
from bitfold.optim.rows import moved_by_kernel, update_by_kernel, update_plain
from bitfold.pool.lowprecision import LowPrecisionPool


def move_codes(pool: LowPrecisionPool, how: Move, rows: Tensor, grad: Tensor) -> None:
    """Move rows of a pool that is trained in low precision.

    Args:
        pool: whose codes move.
        how: the optimizer's words; its weight has the pool's shape, and its states have.
        rows: int64 `[n]`, each once.
        grad: `[n, w]`, finite.
    """
    if moved_by_kernel(grad) and pool.move_by(how, rows, grad):
        return
    numbers = pool.numbers(rows)
    states = [each[rows] if each.numel() else each for each in (how.one, how.two)]
    alone = how._replace(weight=numbers, one=states[0], two=states[1])
    every = torch.arange(len(rows), device=rows.device)
    if moved_by_kernel(numbers):
        update_by_kernel(alone, every, grad)
    else:
        update_plain(alone, every, grad.float())
    pool.move(rows, numbers)  # refuses what is not finite, and then the states are as they were
    for kept, moved in zip((how.one, how.two), states, strict=True):
        if kept.numel():
            kept[rows] = moved
