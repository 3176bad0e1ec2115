"""What the row optimizers share: steps, state, and moves within the backward pass."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bitfold.errors import BitfoldError
from bitfold.kernels.move import Move
from bitfold.kernels.pages import ask_for_large_pages
from bitfold.optim import pending
from bitfold.optim.coded import move_codes
from bitfold.optim.options import taken
from bitfold.optim.rows import moved_by_kernel, rows_of, update_by_kernel, update_plain
from bitfold.pool import DensePool
from bitfold.pool.coded import CodedWeight
from bitfold.pool.lowprecision import check_finite

Words = tuple[float, float, float, float, float, float]
Params = Iterable[Tensor] | Iterable[dict[str, Any]]
_NAMES_BEFORE = ("one", "two")  # of states that were saved by bitfold's first versions
_NO_DISPATCH = Tensor.__torch_dispatch__


class RowOptimizer(torch.optim.Optimizer):
    """What the optimizers share: which rows move, and how state is kept.

    Args:
        params: parameters, or groups of them, as for every optimizer of torch.
        lr: the rate of a group that does not say its own, as for all that follow.
        weight_decay: decoupled, of the rows that move.
        l2: coupled, of the rows that move.
        maximize: whether rows move up the gradient.
        more: options of torch's optimizers. `foreach` and `fused` change nothing here; what would
            change the steps is refused by name.
        own: the options of the kind.

    State is made when it is first needed, a row for each row of the weight, under the names that
    torch's own optimizers have.
    """

    KIND: ClassVar[str]
    STATE: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        params: Params,
        lr: float,
        weight_decay: float,
        l2: float,
        maximize: bool,
        more: dict[str, Any],
        **own: Any,
    ) -> None:
        shared = {"weight_decay": weight_decay, "l2": l2, "maximize": maximize}
        said = {"lr": lr, **own, **shared}
        super().__init__(params, {**said, **taken(type(self).__name__, {**more, **said}, said)})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own; see `torch.optim.Optimizer`."""
        if isinstance(param_group, dict):
            param_group = taken(type(self).__name__, param_group, self.defaults)
        super().add_param_group(param_group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take state that was saved: options that are missing are the defaults."""
        defaults = state.get("defaults", getattr(self, "defaults", {}))
        groups = [
            {**defaults, **taken(type(self).__name__, group, defaults)}
            for group in state["param_groups"]
        ]
        super().__setstate__({**state, "param_groups": groups})

    @classmethod
    def bytes_per_row(cls, dim: int, **options: Any) -> int:
        """Bytes of state for a row of `dim` numbers."""
        raise NotImplementedError

    def _starts(self, weight: Tensor, group: dict[str, Any]) -> dict[str, tuple[torch.Size, float]]:
        """The states that the next step needs: shape, and the number that they start with."""
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
                    self._apply(weight, weight.grad, group)
        return loss

    def move_rows(self, weight: Tensor, grad: Tensor) -> None:
        """Make a step of one weight, of a gradient that is not its `.grad`."""
        self._apply(weight, grad, self._group_of(weight))

    def _apply(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Move the rows of a weight's gradient."""
        _refuse_wrapped(weight, gradient)
        rows, grad = rows_of(weight, gradient)
        if group["maximize"]:
            grad = -grad
        if isinstance(weight, CodedWeight):
            check_finite(grad)  # before the step is counted
        how = self._next(weight, group)
        if isinstance(weight, CodedWeight):
            move_codes(weight.pool, how, *_met(rows, grad))
        elif moved_by_kernel(weight):
            update_by_kernel(how, rows, grad)
        else:
            update_plain(how, *_met(rows, grad))

    def into_backward(self, module: nn.Module) -> None:
        """Move the rows of a module's tables within its backward pass from now on.

        `backward` then leaves no gradient of a table: at its end it adds the gradients of the
        batch's rows up and moves them, by this optimizer's options as they then are. A table that
        several lookups read makes one step. The weights are those that a gradient and `step` give,
        without the memory and the passes that they take.
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
            >>> from bitfold.optim import RowWiseAdagrad
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
            _refuse_wrapped(pool.weight)
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

    def goes_up(self, weight: Tensor) -> bool:
        """Whether a weight's objective is maximized."""
        return bool(self._group_of(weight)["maximize"])

    def move_at_end(self, weight: Tensor, grad: Tensor, given: tuple[Any, ...]) -> None:
        """Move a lookup's rows at the end of the backward pass; see `bitfold.optim.pending`."""
        _refuse_processes()
        pending.move_at_end(self, weight, grad, given)

    def next_move(self, weight: Tensor) -> Move:
        """The options of the next step of a weight, which counts as made."""
        _refuse_processes()
        return self._next(weight, self._group_of(weight))

    def _next(self, weight: Tensor, group: dict[str, Any]) -> Move:
        made = self._made(weight, group)
        state = self.state[weight]
        state["step"] += 1
        nothing = weight.new_empty(0)
        one, two = (*made, nothing, nothing)[:2]
        return Move(self.KIND, weight, one, two, self._words(group, int(state["step"])))

    def _made(self, weight: Tensor, group: dict[str, Any]) -> list[Tensor]:
        """The states that the next step needs; those that are not there yet are made.

        Raises:
            BitfoldError: for the state of another optimizer, or of a weight of another size.
        """
        state, kind = self.state[weight], type(self).__name__
        for before, name in zip(_NAMES_BEFORE, self.STATE, strict=False):
            if before in state and name not in state:
                state[name] = state.pop(before)
        foreign = [name for name in state if name not in ("step", *self.STATE)]
        starts = self._starts(weight, group)
        lost = [name for name in starts if state.get(name) is None]
        steps = state.get("step", 0)
        if not isinstance(steps, int | float | Tensor) or float(steps) < 0:
            foreign.append("step")
        if foreign or (lost and float(steps) > 0 and self.KIND != "sgd"):
            raise BitfoldError(
                f"this is the state of another optimizer than {kind}",
                got=", ".join(sorted(str(name) for name in state)),
                expected=", ".join(("step", *starts)),
                fix="load the state dict that an optimizer of the same kind has saved",
            )
        if not isinstance(steps, Tensor):
            state["step"] = torch.tensor(float(steps), dtype=torch.float32)
        found = []
        for name, (shape, start) in starts.items():
            kept = state.get(name)
            if kept is None:
                kept = state[name] = _filled(weight, shape, start)
            if not isinstance(kept, Tensor) or kept.shape != shape:
                raise BitfoldError(
                    f"{name} of {kind} belongs to a weight of another size",
                    got=list(kept.shape) if isinstance(kept, Tensor) else type(kept).__name__,
                    expected=f"{list(shape)}, for a weight of {list(weight.shape)}",
                    fix="make a new optimizer when a table grows or shrinks; load the state dict "
                    "of the same model",
                )
            _refuse_wrapped(kept)
            whole = kept.is_contiguous() and kept.layout is torch.strided
            if kept.dtype != weight.dtype or kept.device != weight.device or not whole:
                dense = kept if kept.layout is torch.strided else kept.to_dense()
                kept = state[name] = dense.to(weight).contiguous()
            found.append(kept)
        return found

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

    def _words(self, group: dict[str, Any], step: int) -> Words:
        """Rate, decay factor, L2, epsilon, and two numbers of the kind's own."""
        lr, eps = float(group["lr"]), float(group.get("eps", 0.0))
        decay = 1.0 - lr * float(group["weight_decay"])
        return lr, decay, float(group["l2"]), eps, *self._own_words(group, step)

    def _own_words(self, group: dict[str, Any], step: int) -> tuple[float, float]:
        return 0.0, 0.0


def _filled(weight: Tensor, shape: torch.Size, value: float) -> Tensor:
    """A state beside a weight, all of one value."""
    made = torch.empty(shape, dtype=weight.dtype, device=weight.device)
    return ask_for_large_pages(made).fill_(value)


def _met(rows: Tensor | None, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of a gradient by number: of all of them, those that have one."""
    if rows is None:
        rows = (grad != 0).any(1).nonzero().squeeze(1)
        grad = grad[rows]
    return rows, grad


def _refuse_wrapped(*tensors: Tensor) -> None:
    """Raise for a tensor whose numbers are not where it says: a DTensor, say."""
    for tensor in tensors:
        if type(tensor).__torch_dispatch__ is not _NO_DISPATCH:
            raise BitfoldError(
                "rows are moved in plain tensors",
                got=type(tensor).__name__,
                expected="torch.Tensor or torch.nn.Parameter",
                fix="use an optimizer of torch.optim for weights that are sharded or wrapped",
            )


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
