"""Rows that change places: what optimizers keep beside them moves along, torch's own too."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from bitfold.optim.base import RowOptimizer
from bitfold.pool.moved import RowMove


@torch.no_grad()
def carry(optimizers: Iterable[torch.optim.Optimizer], moves: Iterable[RowMove]) -> None:
    """Carry the state of moved rows: every tensor of a table's state with a row for each of its.

    Args:
        optimizers: those that may hold state of the tables.
        moves: what `Embedder.maintain` returned.

    Example:
        >>> table = torch.nn.Parameter(torch.zeros(3, 2))
        >>> optimizer = torch.optim.Adagrad([table], lr=0.1, initial_accumulator_value=0.5)
        >>> table.grad = torch.ones(3, 2); optimizer.step()
        >>> carry([optimizer], [RowMove(table, torch.tensor([0, -1]), torch.tensor([2, 0]))])
        >>> optimizer.state[table]["sum"][:, 0]
        tensor([0.5000, 1.5000, 1.5000])
    """
    optimizers = list(optimizers)
    for move in moves:
        for optimizer in optimizers:
            state = optimizer.state.get(move.weight)
            if not state:
                continue
            for name, values in state.items():
                if isinstance(values, Tensor) and values.shape[:1] == move.weight.shape[:1]:
                    _carry(values, move, _start(optimizer, move.weight, name))


def _carry(values: Tensor, move: RowMove, start: float) -> None:
    if values.dim() == 0:
        return
    source, target = move.source.to(values.device), move.target.to(values.device)
    kept = values[source.clamp_min(0)]
    fresh = (source < 0).reshape(-1, *[1] * (values.dim() - 1))
    values[target] = kept.masked_fill(fresh, start)


def _start(optimizer: torch.optim.Optimizer, weight: Tensor, name: str) -> float:
    """The number that a state begins with."""
    group: dict[str, Any] = next(
        group for group in optimizer.param_groups if any(weight is each for each in group["params"])
    )
    if isinstance(optimizer, RowOptimizer):
        starts = optimizer._starts(weight, group)
        return starts[name][1] if name in starts else 0.0
    return float(group.get("initial_accumulator_value", 0.0)) if name == "sum" else 0.0
