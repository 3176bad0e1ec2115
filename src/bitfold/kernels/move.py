"""What an optimizer tells the kernels: how the rows of a weight move."""

from typing import NamedTuple

import torch
from torch import Tensor

from bitfold.errors import BitfoldError


class Move(NamedTuple):
    """One step of the rows of a weight.

    `kind` is one of `bitfold.optim.OPTIMIZERS`; `one` and `two` are its states, empty where it has
    none; `words` are rate, decay factor, L2, epsilon, and two numbers of the kind's own.
    """

    kind: str
    weight: Tensor
    one: Tensor
    two: Tensor
    words: tuple[float, float, float, float, float, float]


def check_move(move: Move) -> None:
    """Raise unless a kernel can move the rows of a weight: float32, contiguous, on the CPU.

    Raises:
        BitfoldError: for a weight or a state of another size, type or kind.
    """
    check_states(move)
    check_floats("the weight", move.weight, tuple(move.weight.shape))


def check_states(move: Move) -> None:
    """Raise unless a kernel can move the states of a weight, whatever that itself is kept in."""
    shape, momentum = tuple(move.weight.shape), move.words[4]
    states = {
        "sgd": (shape if momentum else None, None),
        "adagrad": (shape, None),
        "rowwise-adagrad": (shape[:1], None),
        "lazy-adam": (shape, shape),
    }
    if move.kind not in states:
        raise BitfoldError("unknown kind of move", got=move.kind, expected=", ".join(states))
    for name, state, wanted in zip(
        ("the first state", "the second state"), (move.one, move.two), states[move.kind],
        strict=True,
    ):  # fmt: skip
        if wanted is not None:
            check_floats(name, state, wanted)


def check_floats(argument: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raise unless a tensor is float32, contiguous, in the CPU's memory and of a shape."""
    if (
        not isinstance(tensor, Tensor)
        or tensor.dim() == 0
        or tensor.layout is not torch.strided
        or tensor.dtype is not torch.float32
        or not tensor.is_cpu
        or tuple(tensor.shape) != shape
        or not tensor.is_contiguous()
        or tensor.is_neg()
        or (tensor.numel() > 0 and tensor.data_ptr() == 0)
    ):
        got = type(tensor).__name__
        if isinstance(tensor, Tensor):
            got = f"{got}, {tensor.dtype} {list(tensor.shape)} on {tensor.device}"
        raise BitfoldError(
            f"{argument} is not what this optimizer's kernel moves",
            got=got,
            expected=f"contiguous torch.float32 {list(shape)} on cpu",
        )
