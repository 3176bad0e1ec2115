"""Optimizers that move only the rows of the batch.

A table's gradient has a row for each row that the batch read. Dense optimizers walk the whole
table all the same, and momentum moves rows that nobody asked for. The optimizers here read and
write the rows of a gradient alone: those of a sparse one, those that are not all zero of a dense
one, so both give the same weights. On the CPU a float32 table is updated in one pass of a
kernel; elsewhere the same update is plain torch.

Weight decay is decoupled, as in AdamW: a row that moves is first scaled by `1 - lr * decay`. `l2`
is coupled, as in Adam: a row that moves has `l2` times itself added to its gradient.

Sources: Duchi, Hazan, Singer, JMLR 2011 (Adagrad); Kingma, Ba, ICLR 2015 (Adam); Loshchilov,
Hutter, ICLR 2019 (decoupled decay). Row-wise Adagrad keeps the mean of a row's squares, as
recommendation models at scale do.
"""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bitfold.errors import BitfoldError
from bitfold.kernels.move import Move
from bitfold.pool import DensePool
from bitfold.pool.pages import ask_for_large_pages

Words = tuple[float, float, float, float, float, float]
Params = Iterable[Tensor] | Iterable[dict[str, Any]]


class RowOptimizer(torch.optim.Optimizer):
    """What the optimizers share: which rows move, and how state is kept.

    Args:
        params: parameters, or groups of them, as for every optimizer of torch.
        defaults: the words of a group that does not say its own.

    State is made with the first step, a row for each row of the weight.
    """

    KIND: ClassVar[str]

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        for name, least in (
            ("lr", 0.0),
            ("weight_decay", 0.0),
            ("l2", 0.0),
            ("eps", 0.0),
            ("momentum", 0.0),
        ):
            value = defaults.get(name, least)
            if not isinstance(value, Tensor) and not value >= least:
                raise BitfoldError(f"{name} is out of range", got=value, expected="0 or more")
        for beta in defaults.get("betas", ()):
            if not 0 <= beta < 1:
                raise BitfoldError("a beta is out of range", got=beta, expected="0 to below 1")
        super().__init__(params, defaults)

    @classmethod
    def bytes_per_row(cls, dim: int, **words: Any) -> int:
        """Bytes of state for a row of `dim` numbers."""
        raise NotImplementedError

    def _state(self, weight: Tensor, group: dict[str, Any]) -> tuple[Tensor, ...]:
        """The state tensors of a weight, at most two."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move the rows of every gradient; returns what `closure` does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._apply(weight, group)
        return loss

    def _apply(self, weight: Tensor, group: dict[str, Any]) -> None:
        """Move the rows of a weight's gradient."""
        how = self._next(weight, group)
        rows, grad = _rows_of(weight.grad)
        if _by_kernel(weight, how.one):
            from bitfold.kernels.lookup import threads_of
            from bitfold.kernels.updates import update

            grad = grad.contiguous().float()
            update(how, rows, grad, threads_of(grad.numel(), len(grad)))
            return
        if rows is None:
            rows = (grad != 0).any(1).nonzero().squeeze(1)
            grad = grad[rows]
        _update(how, rows, grad)

    def into_backward(self, module: nn.Module) -> None:
        """Move the rows of a module's tables within its backward pass from now on.

        `backward` then leaves no gradient of a table: it adds the gradients of the batch's rows up
        and moves the rows at once, by this optimizer's words as they then are. The weights are
        those that a gradient and `step` give, without the memory and the passes that they take.
        What this optimizer has beside the tables is still moved by `step`. The module keeps the
        optimizer; another one's `into_backward` takes its place, and copies have none.

        Every call of `backward` is a step: gradients that shall be added up over batches, clipped
        or scaled, or averaged over processes, need `step`. Where a lookup is no kernel's - on
        other devices, under `torch.compile`, within `bitfold.plain_torch()` - the gradient comes
        as ever, and `step` moves the rows.

        Args:
            module: with embeddings of bitfold; their float32 tables must be this optimizer's.

        Raises:
            BitfoldError: a module without such tables, one of another optimizer or type, or
                several processes that train together.

        Example:
            >>> import bitfold
            >>> embedding = bitfold.Embedding(1000, 8, budget="10x")
            >>> optimizer = RowWiseAdagrad(embedding.parameters(), lr=0.1)
            >>> optimizer.into_backward(embedding)
            >>> embedding(torch.tensor([1, 2])).sum().backward()
            >>> next(embedding.parameters()).grad is None
            True
        """
        pools = [part for part in module.modules() if isinstance(part, DensePool)]
        if not pools:
            raise BitfoldError(
                "there is no table to move",
                got=type(module).__name__,
                expected="a module with embeddings of bitfold",
            )
        for pool in pools:
            self._group_of(pool.weight)
            if pool.weight.dtype != torch.float32:
                raise BitfoldError(
                    "only float32 tables are moved within the backward pass",
                    got=pool.weight.dtype,
                    expected="torch.float32",
                    fix="call step() after backward() instead",
                )
        _refuse_processes()
        for pool in pools:
            pool.moved_by = self

    def _group_of(self, weight: Tensor) -> dict[str, Any]:
        for group in self.param_groups:
            if any(weight is each for each in group["params"]):
                return group
        raise BitfoldError(
            "a table is not among this optimizer's parameters",
            got=f"a table of shape {list(weight.shape)}",
            expected="one that the optimizer was made with",
            fix="give the module's parameters() to the optimizer",
        )

    def next_move(self, weight: Tensor) -> Move:
        """The words of the next step of a weight, which counts as made."""
        _refuse_processes()
        return self._next(weight, self._group_of(weight))

    def _next(self, weight: Tensor, group: dict[str, Any]) -> Move:
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state.update(zip(("one", "two"), self._state(weight, group), strict=False))
        state["step"] += 1
        nothing = weight.new_empty(0)
        one, two = state.get("one", nothing), state.get("two", nothing)
        return Move(self.KIND, weight, one, two, self._words(group, int(state["step"])))

    def _words(self, group: dict[str, Any], step: int) -> Words:
        """Rate, decay factor, L2, epsilon, and two numbers of the kind's own."""
        lr, eps = float(group["lr"]), float(group.get("eps", 0.0))
        decay = 1.0 - lr * float(group["weight_decay"])
        return lr, decay, float(group["l2"]), eps, *self._own_words(group, step)

    def _own_words(self, group: dict[str, Any], step: int) -> tuple[float, float]:
        return 0.0, 0.0


class SGD(RowOptimizer):
    """Stochastic gradient descent; with momentum, of the rows that move.

    Args:
        params: what to optimize.
        lr: the rate.
        momentum: how much of a row's last step is added to this one; 0 keeps no state.
        weight_decay: decoupled, of the rows that move.
        l2: coupled, of the rows that move.

    Example:
        >>> import bitfold
        >>> embedding = bitfold.Embedding(1000, 8, budget="10x", sparse=True)
        >>> optimizer = SGD(embedding.parameters(), lr=0.1)
        >>> embedding(torch.tensor([1, 2])).sum().backward()
        >>> optimizer.step()
    """

    KIND = "sgd"

    def __init__(
        self,
        params: Params,
        lr: float = 0.01,
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        l2: float = 0.0,
    ) -> None:
        words = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "l2": l2}
        super().__init__(params, words)

    @classmethod
    def bytes_per_row(cls, dim: int, *, momentum: float = 0.0, **words: Any) -> int:
        """None, or with momentum a number for each of the row's."""
        return 4 * dim if momentum else 0

    def _state(self, weight: Tensor, group: dict[str, Any]) -> tuple[Tensor, ...]:
        return (_filled(weight),) if group["momentum"] else ()

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
    """

    KIND = "adagrad"

    def __init__(
        self,
        params: Params,
        lr: float = 0.01,
        *,
        eps: float = 1e-10,
        initial: float = 0.0,
        weight_decay: float = 0.0,
        l2: float = 0.0,
    ) -> None:
        words = {"lr": lr, "eps": eps, "initial": initial, "weight_decay": weight_decay, "l2": l2}
        super().__init__(params, words)

    @classmethod
    def bytes_per_row(cls, dim: int, **words: Any) -> int:
        """A number for each of the row's."""
        return 4 * dim

    def _state(self, weight: Tensor, group: dict[str, Any]) -> tuple[Tensor, ...]:
        return (_filled(weight, group["initial"]),)


class RowWiseAdagrad(Adagrad):
    """Adagrad with one number a row: the sum of the mean squares of its gradients.

    State of 4 bytes a row, where Adam keeps 8 bytes a number. The words are Adagrad's.
    """

    KIND = "rowwise-adagrad"

    @classmethod
    def bytes_per_row(cls, dim: int, **words: Any) -> int:
        """One number."""
        return 4

    def _state(self, weight: Tensor, group: dict[str, Any]) -> tuple[Tensor, ...]:
        return (weight.new_full(weight.shape[:1], group["initial"]),)


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
    """

    KIND = "lazy-adam"

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        l2: float = 0.0,
    ) -> None:
        words = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "l2": l2}
        super().__init__(params, words)

    @classmethod
    def bytes_per_row(cls, dim: int, **words: Any) -> int:
        """Two numbers for each of the row's."""
        return 8 * dim

    def _state(self, weight: Tensor, group: dict[str, Any]) -> tuple[Tensor, ...]:
        return _filled(weight), _filled(weight)

    def _words(self, group: dict[str, Any], step: int) -> Words:
        lr, decay, l2, eps, *_ = super()._words(group, step)
        one, two = group["betas"]
        root = (1 - two**step) ** 0.5  # both corrections go into the rate and epsilon
        return lr * root / (1 - one**step), decay, l2, eps * root, one, two


def _filled(weight: Tensor, value: float = 0.0) -> Tensor:
    """A state like a weight, all of one value."""
    return ask_for_large_pages(torch.empty_like(weight)).fill_(value)


def _rows_of(grad: Tensor | None) -> tuple[Tensor | None, Tensor]:
    """The rows of a gradient, each once, and their values `[n, w]`; None for all rows."""
    assert grad is not None, "the caller looks"
    if not grad.is_sparse:
        return None, _table(grad)
    rows = grad._indices()[0]
    if not bool((rows.diff() > 0).all()):  # those of the kernels come in order, each once
        grad = grad.coalesce()
        rows = grad._indices()[0]
    values = grad._values()
    return rows.contiguous(), _table(values)


def _table(tensor: Tensor) -> Tensor:
    """Any tensor as rows of numbers, sharing its memory if it can."""
    return tensor.reshape(-1, 1) if tensor.dim() < 2 else tensor.flatten(1)


def _by_kernel(weight: Tensor, state: Tensor) -> bool:
    """Whether a kernel moves the rows of a weight."""
    if weight.device.type != "cpu" or weight.dim() == 0:
        return False
    return all(each.is_contiguous() and each.dtype == torch.float32 for each in (weight, state))


def _refuse_processes() -> None:
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        count = distributed.get_world_size()
        if count > 1:
            raise BitfoldError(
                "processes that train together average their gradients before they move rows",
                got=f"{count} processes, rows moved within the backward pass",
                expected="one process",
                fix="call step() after backward() instead",
            )


def _update(how: Move, rows: Tensor, grad: Tensor) -> None:
    """The update in plain torch, on any device and in any type."""
    kind, weight, one, two, (lr, decay, l2, eps, first, second) = how
    table = _table(weight.detach())
    values = table[rows]
    grad = grad.to(table.dtype) + l2 * values
    values = values * decay
    if kind == "sgd":
        step = grad
        if one.numel():
            state = one.view(table.shape)
            step = state[rows] * first + grad
            state[rows] = step
    elif kind == "adagrad":
        state = one.view(table.shape)
        squares = state[rows] + grad * grad
        state[rows] = squares
        step = grad / (squares.sqrt() + eps)
    elif kind == "rowwise-adagrad":
        squares = one.view(-1)[rows] + (grad * grad).mean(1)
        one.view(-1)[rows] = squares
        step = grad / (squares.sqrt() + eps).unsqueeze(1)
    else:
        means, squares = one.view(table.shape), two.view(table.shape)
        mean = means[rows] * first + grad * (1 - first)
        square = squares[rows] * second + grad * grad * (1 - second)
        means[rows], squares[rows] = mean, square
        step = mean / (square.sqrt() + eps)
    table[rows] = values - lr * step


OPTIMIZERS: dict[str, type[RowOptimizer]] = {
    kind.KIND: kind for kind in (SGD, Adagrad, RowWiseAdagrad, LazyAdam)
}
