"""What networks are made of: the two steps of each, MLPs, numeric features as vectors."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class Network(nn.Module):
    """A network in two steps: the interaction of the fields' vectors, and a head.

    With several embedding sets each has an interaction of its own, and one head reads their mean
    (`bitfold.nets.sets`).
    """

    def interact(self, vectors: Tensor, numeric: Tensor) -> list[Tensor]:
        """Vectors `[B,F,D]` and numeric features `[B,N]` -> what the head reads, `[B,...]` each."""
        raise NotImplementedError

    def decide(self, found: Sequence[Tensor]) -> Tensor:
        """The head: what `interact` found -> logits `[B]`."""
        raise NotImplementedError

    def drop_head(self) -> None:
        """Keep the interaction alone: another network's head reads it."""
        raise NotImplementedError

    def forward(self, vectors: Tensor, numeric: Tensor) -> Tensor:
        """`[B,F,D]` and `[B,N]` -> logits `[B]`."""
        return self.decide(self.interact(vectors, numeric))


def drawn(*shape: int, std: float) -> Tensor:
    """Normal numbers; on the device `meta` none, where a draw loads torch's compiler: a second."""
    return torch.empty(shape) if for_shapes() else torch.randn(shape) * std


def for_shapes() -> bool:
    """Whether modules are made for their shapes alone: on the device `meta`."""
    return torch.get_default_device().type == "meta"


class Layers(nn.Sequential):
    """An MLP that is run in two parts: its first linear layer up to the second, and the rest."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        linear = [number for number, each in enumerate(layers) if isinstance(each, nn.Linear)]
        self.border = linear[1] if len(linear) > 1 else len(layers)

    def first(self, values: Tensor) -> Tensor:
        """The first layer's units, activated."""
        for layer in list(self)[: self.border]:
            values = layer(values)
        return values

    def rest(self, values: Tensor) -> Tensor:
        """The other layers."""
        for layer in list(self)[self.border :]:
            values = layer(values)
        return values

    def drop_rest(self) -> None:
        """Keep the first layer alone."""
        del self[self.border :]


def mlp(sizes: Sequence[int], dropout: float = 0.0) -> Layers:
    """Linear layers of the given sizes, each but the last followed by ReLU and dropout.

    Weights start with He's variance, which keeps the scale of activations through ReLUs.
    """
    layers: list[nn.Module] = []
    for depth, (inputs, outputs) in enumerate(pairwise(sizes)):
        layer = nn.Linear(inputs, outputs)
        if not for_shapes():
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
        layers.append(layer)
        if depth < len(sizes) - 2:
            layers.append(nn.ReLU(inplace=True))
            if dropout:
                layers.append(nn.Dropout(dropout))
    return Layers(*layers)


class NumericVectors(nn.Module):
    """Each numeric feature as a field: its value times a learned vector, `[B,N] -> [B,N,D]`."""

    def __init__(self, num_numeric: int, dim: int) -> None:
        super().__init__()
        self.directions: Tensor
        directions = drawn(num_numeric, dim, std=0.05)
        if num_numeric:
            self.directions = nn.Parameter(directions)
        else:  # processes that train together wait for the gradient of every parameter
            self.register_buffer("directions", directions)

    def forward(self, vectors: Tensor, numeric: Tensor) -> Tensor:
        """Join the fields' vectors `[B,F,D]` and the numeric ones: `[B,F+N,D]`."""
        if self.directions.shape[0] == 0:
            return vectors
        ours = numeric.unsqueeze(2) * self.directions
        return torch.cat([vectors, ours.to(vectors.dtype)], dim=1)
