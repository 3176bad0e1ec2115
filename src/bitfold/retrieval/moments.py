"""Mean and deviation of the vectors that a tower makes now, tracked by a Kalman filter.

Source: Ajanthan et al., Adaptive Cross Batch Normalization for Metric Learning, 2023
(arXiv 2303.17127). A batch's own moments are noisy measurements of those of all vectors at this
step; the true ones walk at random, since weights move.

Shapes: `B` rows of a batch, `D` the width.
"""

import torch
from torch import Tensor

LEAST = 1e-6
"""The least deviation that is divided by: a number that all vectors share stays what it is."""


def moments(vectors: Tensor) -> Tensor:
    """Mean and deviation of each number: `[B, D] -> [2, D]`.

    Example:
        >>> moments(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
        tensor([[2., 5.],
                [1., 0.]])
    """
    return torch.stack([vectors.mean(0), vectors.std(0, correction=0)])


def renormalised(vectors: Tensor, held: Tensor, current: Tensor) -> Tensor:
    """Vectors of moments `held` with the moments `current`: `(z - m) / s * s' + m'`.

    Args:
        vectors: `[M, D]`.
        held: `[2, D]`, their mean and deviation.
        current: `[2, D]`, those they shall have.

    Example:
        >>> old = torch.tensor([[0.0], [2.0]])
        >>> renormalised(old, moments(old), torch.tensor([[10.0], [3.0]]))
        tensor([[ 7.],
                [13.]])
    """
    scale = current[1] / held[1].clamp_min(LEAST)
    return (vectors - held[0]) * scale + current[0]


class Moments:
    """A Kalman filter of one number at a time, for means and deviations alike.

    The state is the moments `x` `[2, D]` and how uncertain they are, `p` `[2, D]`. A step of
    training adds `walk` to the uncertainty. A measurement `z` of variance `noise` pulls the state
    by the gain `k = p / (p + noise)`: `x += k (z - x)`, `p *= 1 - k`.

    Args:
        walk: variance that a step of training adds.
        noise: variance of a batch's moments.

    Example:
        >>> filter = Moments(walk=1.0, noise=1.0)
        >>> filter.update(torch.tensor([[4.0], [1.0]])).flatten().tolist()  # the first is taken
        [4.0, 1.0]
        >>> filter.update(torch.tensor([[7.0], [1.0]])).flatten().tolist()  # p = 1 + 1, k = 2/3
        [6.0, 1.0]
    """

    def __init__(self, walk: float, noise: float) -> None:
        self.walk, self.noise = walk, noise
        self.state: Tensor | None = None
        self.uncertain: Tensor | None = None

    def update(self, measured: Tensor) -> Tensor:
        """Take a batch's moments `[2, D]`; returns the state `[2, D]` after it."""
        measured = measured.detach()
        if self.state is None or self.uncertain is None:
            self.state = measured.clone()
            self.uncertain = torch.full_like(measured, self.noise)
            return self.state
        before = self.uncertain + self.walk
        gain = before / (before + self.noise)
        self.state = self.state + gain * (measured - self.state)
        self.uncertain = (1 - gain) * before
        return self.state

    def tensors(self) -> dict[str, Tensor]:
        """The state, for a checkpoint."""
        if self.state is None or self.uncertain is None:
            return {}
        return {"moments": self.state, "uncertain": self.uncertain}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self.state, self.uncertain = tensors.get("moments"), tensors.get("uncertain")
