"""The row optimizers: SGD, Adagrad, row-wise Adagrad, lazy Adam."""

from typing import Any

import torch
from torch import Tensor

from bitfold.optim.base import Params, RowOptimizer, Words

Starts = dict[str, tuple[torch.Size, float]]


class SGD(RowOptimizer):
    """Stochastic gradient descent; with momentum, of the rows that move.

    Args:
        params: what to optimize.
        lr: the rate.
        momentum: how much of a row's last step is added to this one; 0 keeps no state.
        weight_decay: decoupled, of the rows that move.
        l2: coupled, of the rows that move.
        maximize: whether rows move up the gradient.
        more: options of torch's optimizers, see `RowOptimizer`.

    Example:
        >>> import bitfold
        >>> embedding = bitfold.Embedding(1000, 8, budget="10x", sparse=True)
        >>> optimizer = SGD(embedding.parameters(), lr=0.1)
        >>> embedding(torch.tensor([1, 2])).sum().backward()
        >>> optimizer.step()
    """

    KIND = "sgd"
    STATE = ("momentum_buffer",)

    def __init__(
        self,
        params: Params,
        lr: float = 0.01,
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        l2: float = 0.0,
        maximize: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, lr, weight_decay, l2, maximize, more, momentum=momentum)

    @classmethod
    def bytes_per_row(cls, dim: int, *, momentum: float = 0.0, **options: Any) -> int:
        """None, or with momentum a number for each of the row's."""
        return 4 * dim if momentum else 0

    def _starts(self, weight: Tensor, group: dict[str, Any]) -> Starts:
        return {"momentum_buffer": (weight.shape, 0.0)} if float(group["momentum"]) else {}

    def _own_words(self, group: dict[str, Any], step: int) -> tuple[float, float]:
        return float(group["momentum"]), 0.0


class Adagrad(RowOptimizer):
    """Adagrad: a number's rate falls with the squares of its gradients.

    Args:
        params: what to optimize.
        lr: the rate.
        eps: added to the root of the squares.
        initial: what the squares begin with.
        weight_decay: decoupled, of the rows that move.
        l2: coupled, of the rows that move.
        maximize: whether rows move up the gradient.
        more: options of torch's optimizers, see `RowOptimizer`.
    """

    KIND = "adagrad"
    STATE = ("sum",)

    def __init__(
        self,
        params: Params,
        lr: float = 0.01,
        *,
        eps: float = 1e-10,
        initial: float = 0.0,
        weight_decay: float = 0.0,
        l2: float = 0.0,
        maximize: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, lr, weight_decay, l2, maximize, more, eps=eps, initial=initial)

    @classmethod
    def bytes_per_row(cls, dim: int, **options: Any) -> int:
        """A number for each of the row's."""
        return 4 * dim

    def _starts(self, weight: Tensor, group: dict[str, Any]) -> Starts:
        return {"sum": (weight.shape, float(group["initial"]))}


class RowWiseAdagrad(Adagrad):
    """Adagrad with one number a row: the sum of the mean squares of its gradients.

    State of 4 bytes a row, where Adam keeps 8 bytes a number. The options are Adagrad's.
    """

    KIND = "rowwise-adagrad"
    STATE = ("row_sum",)

    @classmethod
    def bytes_per_row(cls, dim: int, **options: Any) -> int:
        """One number."""
        return 4

    def _starts(self, weight: Tensor, group: dict[str, Any]) -> Starts:
        return {"row_sum": (weight.shape[:1], float(group["initial"]))}


class LazyAdam(RowOptimizer):
    """Adam whose moments move with the rows of the batch; with `weight_decay`, a lazy AdamW.

    Bias is corrected by the number of steps, as in `torch.optim.SparseAdam`.

    Args:
        params: what to optimize.
        lr: the rate.
        betas: how slowly the two moments forget.
        eps: added to the root of the second.
        weight_decay: decoupled, of the rows that move.
        l2: coupled, of the rows that move.
        maximize: whether rows move up the gradient.
        more: options of torch's optimizers, see `RowOptimizer`.
    """

    KIND = "lazy-adam"
    STATE = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        l2: float = 0.0,
        maximize: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, lr, weight_decay, l2, maximize, more, betas=betas, eps=eps)

    @classmethod
    def bytes_per_row(cls, dim: int, **options: Any) -> int:
        """Two numbers for each of the row's."""
        return 8 * dim

    def _starts(self, weight: Tensor, group: dict[str, Any]) -> Starts:
        return {"exp_avg": (weight.shape, 0.0), "exp_avg_sq": (weight.shape, 0.0)}

    def _words(self, group: dict[str, Any], step: int) -> Words:
        lr, decay, l2, eps, *_ = super()._words(group, step)
        one, two = group["betas"]
        root = (1 - two**step) ** 0.5  # both corrections go into the rate and epsilon
        return lr * root / (1 - one**step), decay, l2, eps * root, one, two
