"""The networks above the embeddings: logistic regression, DeepFM, DCNv2, DLRM.

All of them are small, batched over fields, and read the same input: the fields' vectors
`[B, F, D]` and the numeric features `[B, N]`. First-order terms are learned weights on the
fields' vectors and not a second table, so the bytes of a model lie in its embeddings alone.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from bitfold.errors import BitfoldError


def mlp(sizes: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """Linear layers of the given sizes, each but the last followed by ReLU and dropout.

    Weights start with He's variance, which keeps the scale of activations through ReLUs.
    """
    layers: list[nn.Module] = []
    for depth, (inputs, outputs) in enumerate(pairwise(sizes)):
        layer = nn.Linear(inputs, outputs)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
        layers.append(layer)
        if depth < len(sizes) - 2:
            layers.append(nn.ReLU(inplace=True))
            if dropout:
                layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)


class NumericVectors(nn.Module):
    """Each numeric feature as a field: its value times a learned vector, `[B,N] -> [B,N,D]`."""

    def __init__(self, num_numeric: int, dim: int) -> None:
        super().__init__()
        self.directions: Tensor
        directions = torch.randn(num_numeric, dim) * 0.05
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


class LogisticRegression(nn.Module):
    """The sum of the vectors' components, a weight for each numeric feature, and a bias.

    It is meant for width 1, where each id has one weight.
    """

    def __init__(self, num_fields: int, dim: int, num_numeric: int) -> None:
        super().__init__()
        self.numeric_weight = nn.Parameter(torch.zeros(num_numeric))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, vectors: Tensor, numeric: Tensor) -> Tensor:
        """`[B,F,D]` and `[B,N]` -> logits `[B]`."""
        return vectors.sum(dim=(1, 2)) + numeric @ self.numeric_weight + self.bias


class DeepFM(nn.Module):
    """Linear terms, pairwise products of the vectors, and an MLP, added up.

    Source: Guo et al., DeepFM, IJCAI 2017. Here the linear term of a field is a learned
    direction in its vector's space.

    Args:
        num_fields: F.
        dim: D, width of a vector.
        num_numeric: N.
        hidden: sizes of the MLP's hidden layers.
        dropout: after each hidden layer.
        linear: keep the linear terms.
        fm: keep the pairwise products.
        deep: keep the MLP.
    """

    def __init__(
        self,
        num_fields: int,
        dim: int,
        num_numeric: int,
        *,
        hidden: Sequence[int] = (128, 64),
        dropout: float = 0.0,
        linear: bool = True,
        fm: bool = True,
        deep: bool = True,
    ) -> None:
        super().__init__()
        if not (linear or fm or deep):
            raise BitfoldError(
                "DeepFM has no part left",
                got="linear=false, fm=false, deep=false",
                expected="one part or more",
            )
        width = (num_fields + num_numeric) * dim
        self.fm = fm
        self.numeric = NumericVectors(num_numeric, dim)
        self.direction = nn.Parameter(torch.randn(width) * width**-0.5) if linear else None
        self.deep = mlp([width, *hidden, 1], dropout) if deep else None
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, vectors: Tensor, numeric: Tensor) -> Tensor:
        """`[B,F,D]` and `[B,N]` -> logits `[B]`."""
        vectors = self.numeric(vectors, numeric)
        flat = vectors.flatten(1)
        logits: Tensor = self.bias.expand(len(flat))
        if self.fm:
            # A compiler finds the few passes by itself.
            compiling = torch.compiler.is_compiling()
            how: Any = _LinearAndPairs.forward if compiling else _LinearAndPairs.apply
            logits = logits + how(vectors, self.direction)
        elif self.direction is not None:
            logits = logits + flat @ self.direction
        if self.deep is not None:
            deep: Tensor = self.deep(flat)
            logits = logits + deep.squeeze(1)
        return logits


class _LinearAndPairs(torch.autograd.Function):
    """Linear terms and pairwise products of `[B,F,D]`, in few passes over the vectors.

    With s the sum of a row's vectors v, the products of all pairs are (|s|^2 - sum |v|^2) / 2,
    whose gradient is s - v; the linear terms add their direction to it. Left to autograd, each of
    these is a tensor of the vectors' size, and so is each of their sums.
    """

    @staticmethod
    def forward(vectors: Tensor, direction: Tensor | None) -> Tensor:
        """Logits `[B]`; `direction` is `[F*D]`."""
        total, flat = vectors.sum(dim=1), vectors.flatten(1)
        squares = torch.linalg.vector_norm(flat, dim=1).square()
        pairs: Tensor = 0.5 * (total.square().sum(dim=1) - squares)
        if direction is not None:
            pairs = pairs + flat @ direction
        return pairs

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep what the gradient needs."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        """Of the vectors and of the direction."""
        vectors, direction = ctx.saved_tensors
        slope = vectors.sum(dim=1, keepdim=True) - vectors
        if direction is not None:
            slope += direction.view(vectors.shape[1:])
        slope *= grad.view(-1, 1, 1)
        return slope, None if direction is None else grad @ vectors.flatten(1)


class DCNv2(nn.Module):
    """Cross layers beside an MLP, joined by one linear layer.

    Source: Wang et al., DCN V2, WWW 2021.

    Args:
        num_fields: F.
        dim: D, width of a vector.
        num_numeric: N.
        hidden: sizes of the MLP's layers; none leaves the cross layers alone.
        dropout: after each hidden layer.
        layers: how many cross layers.
        rank: 0 for full matrices, or the rank of the cross layers' matrices.
    """

    def __init__(
        self,
        num_fields: int,
        dim: int,
        num_numeric: int,
        *,
        hidden: Sequence[int] = (128, 64),
        dropout: float = 0.0,
        layers: int = 2,
        rank: int = 0,
    ) -> None:
        super().__init__()
        if layers < 0 or rank < 0:
            raise BitfoldError(
                "DCNv2's layers and rank must not be negative",
                got=f"layers={layers}, rank={rank}",
                expected="0 or more",
            )
        width = num_fields * dim + num_numeric
        self.cross = nn.ModuleList(self._cross(width, rank) for _ in range(layers))
        self.deep = None
        if hidden:
            last = [nn.ReLU()] + ([nn.Dropout(dropout)] if dropout else [])
            self.deep = nn.Sequential(*mlp([width, *hidden], dropout), *last)
        self.out = mlp([width + (hidden[-1] if hidden else 0), 1])

    @staticmethod
    def _cross(width: int, rank: int) -> nn.Module:
        if rank:
            return nn.Sequential(
                _xavier(nn.Linear(width, rank, bias=False)), _xavier(nn.Linear(rank, width))
            )
        return _xavier(nn.Linear(width, width))

    def forward(self, vectors: Tensor, numeric: Tensor) -> Tensor:
        """`[B,F,D]` and `[B,N]` -> logits `[B]`."""
        first = torch.cat([vectors.flatten(1), numeric.to(vectors.dtype)], dim=1)
        crossed = first
        for layer in self.cross:
            crossed = first * layer(crossed) + crossed
        if self.deep is not None:
            crossed = torch.cat([crossed, self.deep(first)], dim=1)
        logits: Tensor = self.out(crossed)
        return logits.squeeze(1)


class DLRM(nn.Module):
    """Dot products of all pairs of vectors, and an MLP on top.

    The numeric features pass a bottom MLP into one more vector; without numeric features it is a
    learned constant, whose products are the fields' first-order terms.

    Source: Naumov et al., Deep Learning Recommendation Model, 2019.

    Args:
        num_fields: F.
        dim: D, width of a vector.
        num_numeric: N.
        hidden: sizes of the top MLP's hidden layers.
        dropout: after each hidden layer.
        bottom: sizes of the bottom MLP's hidden layers.
    """

    pairs: Tensor

    def __init__(
        self,
        num_fields: int,
        dim: int,
        num_numeric: int,
        *,
        hidden: Sequence[int] = (128, 64),
        dropout: float = 0.0,
        bottom: Sequence[int] = (64,),
    ) -> None:
        super().__init__()
        self.bottom = mlp([num_numeric, *bottom, dim], dropout) if num_numeric else None
        self.constant = None if num_numeric else nn.Parameter(torch.randn(dim) * dim**-0.5)
        count = num_fields + 1
        lower = torch.tril_indices(count, count, -1)
        self.register_buffer("pairs", lower[0] * count + lower[1], persistent=False)
        self.top = mlp([dim + lower.shape[1], *hidden, 1], dropout)

    def forward(self, vectors: Tensor, numeric: Tensor) -> Tensor:
        """`[B,F,D]` and `[B,N]` -> logits `[B]`."""
        if self.bottom is None:
            dense = self.constant.to(vectors.dtype).expand(len(vectors), -1)  # type: ignore[union-attr]
        else:
            dense = self.bottom(numeric).to(vectors.dtype)
        rows = torch.cat([dense.unsqueeze(1), vectors], dim=1)
        dots = torch.bmm(rows, rows.transpose(1, 2)).flatten(1)[:, self.pairs]
        logits: Tensor = self.top(torch.cat([dense, dots.to(dense.dtype)], dim=1))
        return logits.squeeze(1)


def _xavier(layer: nn.Linear) -> nn.Linear:
    nn.init.xavier_normal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
