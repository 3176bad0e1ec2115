"""Who else holds the weights of a folded table: optimizers, and lists of the model's own."""

import gc
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bitfold.errors import BitfoldError

DEPTH = 4
"""How deep lists in lists are looked through."""


Optimizers = Sequence[torch.optim.Optimizer]


def exchange_in_optimizers(optimizers: Optimizers, removed: Mapping[int, Sequence[Tensor]]) -> None:
    """Give optimizers that hold removed weights those which took their places.

    An optimizer that was made before its model is folded would train nothing of the tables, and
    say nothing.

    Args:
        optimizers: those of `optimizers_of`.
        removed: by the `id` of a weight, the parameters of what it is folded into.
    """
    for optimizer in optimizers:
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for group in optimizer.param_groups:
            kept: list[Any] = []
            for each in group["params"]:
                if id(each) not in removed:
                    kept.append(each)
                    continue
                optimizer.state.pop(each, None)
                new = [p for p in removed[id(each)] if p.requires_grad and id(p) not in held]
                held |= {id(p) for p in new}
                kept += new
            group["params"] = kept


def check_optimizers(
    optimizers: Optimizers, removed: Mapping[int, Sequence[Tensor]], dense: Mapping[int, str]
) -> None:
    """Raise for an optimizer of sparse gradients that would get others.

    Args:
        optimizers: those of `optimizers_of`.
        removed: by the `id` of a weight, what it is folded into.
        dense: by the `id` of such a parameter, the table that has it; its gradients are dense.

    Raises:
        BitfoldError: which names a table.
    """
    for optimizer in optimizers:
        if not isinstance(optimizer, torch.optim.SparseAdam):
            continue
        held = [each for group in optimizer.param_groups for each in group["params"]]
        found = [dense[id(p)] for w in held for p in removed.get(id(w), ()) if id(p) in dense]
        if found:
            raise BitfoldError(
                f"SparseAdam, which holds table {found[0]!r}, cannot train what it is folded into",
                got="a plan with heads, whose gradients are dense",
                expected="sparse gradients alone",
                fix="fold before the optimizer is made and use torch.optim.Adagrad or "
                "bitfold.optim, or say method='binary-code'",
            )


def optimizers_of(removed: Mapping[int, Any]) -> list[torch.optim.Optimizer]:
    """The optimizers alive that hold removed weights.

    All objects of the process are looked at, so their types are only compared.
    """
    kinds = set(map(id, _kinds(torch.optim.Optimizer)))
    return [each for each in gc.get_objects() if id(type(each)) in kinds and _holds(each, removed)]


def _kinds(kind: type[Any]) -> Iterator[type[Any]]:
    """A class and all below it."""
    yield kind
    for below in type.__subclasses__(kind):
        yield from _kinds(below)


def _holds(optimizer: Any, removed: Mapping[int, Any]) -> bool:
    groups = getattr(optimizer, "param_groups", ())
    return any(id(each) in removed for group in groups for each in group["params"])


def take_out_of_lists(model: nn.Module, removed: Collection[int]) -> list[str]:
    """Take removed weights out of the lists that modules keep beside their parameters.

    Penalties on weights are made of such lists. A penalty on a dead table would do nothing and
    keep the table in memory.

    Returns:
        Which attributes held some, by their places in the model.
    """
    found = []
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if not name.startswith("_") and _taken(value, removed, DEPTH):
                found.append(f"{path}.{name}" if path else name)
    return found


def _taken(value: Any, removed: Collection[int], depth: int) -> int:
    """How many were taken out of a list, or of those in it."""
    if not depth:
        return 0
    if isinstance(value, list):
        count = len(value)
        value[:] = [each for each in value if not _is(each, removed)]
        return count - len(value) + sum(_taken(each, removed, depth - 1) for each in value)
    if isinstance(value, tuple):
        return sum(_taken(each, removed, depth - 1) for each in value)
    if isinstance(value, dict):
        gone = [key for key, each in value.items() if _is(each, removed)]
        for key in gone:
            del value[key]
        return len(gone) + sum(_taken(each, removed, depth - 1) for each in value.values())
    return 0


def _is(each: Any, removed: Collection[int]) -> bool:
    """Whether something is a removed weight, or a name with one."""
    if isinstance(each, tuple):
        return any(isinstance(part, Tensor) and id(part) in removed for part in each)
    return isinstance(each, Tensor) and id(each) in removed
