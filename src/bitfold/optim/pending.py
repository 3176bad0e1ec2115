"""Rows that move at the end of a backward pass.

A table may be read more than once in a pass, and by others than lookups (a tied output layer). Its
rows move when the whole pass has read them: in one step, of the sum of all gradients.
"""

from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from bitfold.pool.coded import CodedWeight

if TYPE_CHECKING:
    from bitfold.optim.base import RowOptimizer


class Pass(list[tuple["RowOptimizer", Tensor, Tensor, tuple[Any, ...]]]):
    """What a backward pass has still to move: optimizer, weight, gradient, the lookup's own."""


# By the number of the pass. Only the pass's callback keeps them: they go with a pass that fails.
_passes: "WeakValueDictionary[int, Pass]" = WeakValueDictionary()


def move_at_end(
    optimizer: "RowOptimizer", weight: Tensor, grad: Tensor, given: tuple[Any, ...]
) -> None:
    """Move the rows of a lookup when the backward pass that is running ends.

    Args:
        optimizer: whose step it is.
        weight: the table.
        grad: of the vectors, `[B, F, D]`.
        given: the lookup's reading and `first`, as `bitfold.kernels.gradients.backward` takes them.
    """
    number = torch._C._current_graph_task_id()
    found = _passes.get(number)
    if found is None:
        found = _passes[number] = Pass()
        engine: Any = torch.autograd.Variable._execution_engine
        engine.queue_callback(partial(_move, found))
    found.append((optimizer, weight, grad, given))


def bytes_beside(weight: Tensor) -> int:
    """Bytes at most that moving a weight's rows within the backward pass takes beside it."""
    from bitfold.kernels.kept import marking_bytes, moving_bytes

    if isinstance(weight, CodedWeight):
        return marking_bytes(len(weight))
    return moving_bytes(weight)


@torch.no_grad()
def _move(found: Pass) -> None:
    from bitfold.kernels.gradients import backward, move

    tables: dict[tuple[int, int], Pass] = {}
    for each in found:
        tables.setdefault((id(each[0]), id(each[1])), Pass()).append(each)
    found.clear()
    for lookups in tables.values():
        optimizer, weight, grad, given = lookups[0]
        if len(lookups) == 1 and not isinstance(weight, CodedWeight):
            sign = -1 if optimizer.goes_up(weight) else 1
            how = optimizer.next_move(weight)
            move(grad if sign > 0 else -grad, *given, False, False, how=how)
            continue
        sparse = True, False, False  # rows and their values alone
        parts = [backward(each[2], *(*each[3], *sparse))[:2] for each in lookups]
        rows, values = (torch.cat(part) for part in zip(*parts, strict=True))
        total = torch.sparse_coo_tensor(
            rows.unsqueeze(0), values, weight.shape, is_coalesced=len(parts) == 1,
            check_invariants=False,
        )  # fmt: skip
        optimizer.move_rows(weight, total.coalesce())
