"""What an optimizer tells the kernels: how the rows of a weight move."""

from typing import NamedTuple

from torch import Tensor


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
