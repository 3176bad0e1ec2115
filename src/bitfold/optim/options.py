"""The options of torch's optimizers, in a constructor or in a group: taken, or refused by name."""

from typing import Any

from torch import Tensor

from bitfold.errors import BitfoldError, unknown_name

# How torch runs a step: one pass of a kernel is what there is, whatever these say.
_RUNNERS = ("foreach", "fused")
# What the optimizers here do not do: the values that ask for nothing, and what else to use.
_ABSENT: dict[str, tuple[tuple[Any, ...], str]] = {
    "capturable": ((False,), "rows move on the CPU, where there are no graphs to capture"),
    "differentiable": ((False,), "use an optimizer of torch.optim"),
    "amsgrad": ((False,), "use torch.optim.Adam for this parameter"),
    "nesterov": ((False,), "use torch.optim.SGD for this parameter"),
    "dampening": ((0, 0.0), "use torch.optim.SGD for this parameter"),
    "lr_decay": ((0, 0.0), "set the rate by a schedule of torch.optim.lr_scheduler"),
}


def taken(kind: str, group: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """A group's options without those of torch that change nothing here.

    Args:
        kind: the optimizer's name, for errors.
        group: options by name, `params` among them.
        own: the options that the optimizer knows.

    Raises:
        BitfoldError: for an option that no optimizer knows, one that this one cannot follow, or a
            value out of range.
    """
    left: dict[str, Any] = {}
    for name, value in group.items():
        if name in own or name in ("params", "param_names", "initial_lr"):
            left[name] = value
        elif name == "initial_accumulator_value" and "initial" in own:
            left["initial"] = value
        elif name == "momentum" and value == 0:
            continue
        elif name == "decoupled_weight_decay":
            if not value and group.get("weight_decay", 0) != 0:
                raise BitfoldError(
                    f"weight_decay of {kind} is decoupled",
                    got="decoupled_weight_decay=False",
                    expected="decoupled_weight_decay=True",
                    fix="for decay that is added to the gradient say l2 instead of weight_decay",
                )
        elif name in _ABSENT:
            neutral, fix = _ABSENT[name]
            if value not in neutral:
                raise BitfoldError(
                    f"{kind} has no {name}", got=f"{name}={value}", expected=neutral[0], fix=fix
                )
        elif name not in _RUNNERS and not _of_schedule(name):
            raise unknown_name(f"option of {kind}", name, sorted({*own, *_RUNNERS, *_ABSENT}))
    _check(left)
    return left


def _of_schedule(name: str) -> bool:
    """Whether torch's schedules keep a number of theirs under this name in a group."""
    return name.startswith(("max_", "base_", "min_", "swa_"))


def _check(group: dict[str, Any]) -> None:
    for name in ("lr", "weight_decay", "l2", "eps", "momentum", "initial"):
        value = group.get(name, 0.0)
        if isinstance(value, Tensor):
            if value.numel() != 1:
                raise BitfoldError(
                    f"{name} is one number", got=list(value.shape), expected="a tensor of one"
                )
        elif not isinstance(value, int | float) or not value >= 0:
            raise BitfoldError(f"{name} is out of range", got=value, expected="0 or more")
    betas = group.get("betas", ())
    if "betas" in group and len(betas) != 2:
        raise BitfoldError("betas are two numbers", got=betas, expected="such as (0.9, 0.999)")
    for beta in betas:
        if not 0 <= float(beta) < 1:
            raise BitfoldError("a beta is out of range", got=beta, expected="0 to below 1")
