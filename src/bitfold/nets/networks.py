"""The networks above the embeddings: logistic regression, DeepFM, DCNv2, DLRM.

All of them are small, batched over fields, and read the same input: the fields' vectors
`[B, F, D]` and the numeric features `[B, N]`. First-order terms are learned weights on the
fields' vectors and not a second table, so the bytes of a model lie in its embeddings alone.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bitfold.errors import BitfoldError
from bitfold.nets.layers import Layers, Network, NumericVectors, drawn, for_shapes, mlp


class LogisticRegression(Network):
    """The sum of the vectors' components, a weight for each numeric feature, and a bias.

    It is meant for width 1, where each id has one weight.

    Embedding sets: each has its own sum and numeric weights; the bias is shared. Sums are linear,
    so the mean over sets is what one table of their means would give.
    """

    def __init__(self, num_fields: int, dim: int, num_numeric: int) -> None:
        super().__init__()
        self.numeric_weight = nn.Parameter(torch.zeros(num_numeric))
        self.bias = nn.Parameter(torch.zeros(()))

    def interact(self, vectors: Tensor, numeric: Tensor) -> list[Tensor]:
        """The sum `[B]`."""
        return [vectors.sum(dim=(1, 2)) + numeric @ self.numeric_weight]

    def decide(self, found: Sequence[Tensor]) -> Tensor:
        """Logits `[B]`."""
        return found[0] + self.bias

    def drop_head(self) -> None:
        """Leave the bias to another network."""
        del self.bias


class DeepFM(Network):
    """Linear terms, pairwise products of the vectors, and an MLP, added up.

    Source: Guo et al., DeepFM, IJCAI 2017. Here the linear term of a field is a learned
    direction in its vector's space.

    Embedding sets: each has its own linear terms, pairwise products, numeric vectors and first
    layer of the MLP; the other layers and the bias are shared. Pairwise products are sums over
    components, so what a set adds to them it would add as a part of wider vectors, too: sets
    differ from width by the MLP's first layers.

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
        self.direction = nn.Parameter(drawn(width, std=width**-0.5)) if linear else None
        self.deep = mlp([width, *hidden, 1], dropout) if deep else None
        self.bias = nn.Parameter(torch.zeros(()))

    def interact(self, vectors: Tensor, numeric: Tensor) -> list[Tensor]:
        """What there is of: linear terms and products `[B]`, the first layer's units `[B,H]`."""
        vectors = self.numeric(vectors, numeric)
        flat = vectors.flatten(1)
        found: list[Tensor] = []
        if self.fm:
            # A compiler finds the few passes by itself.
            compiling = torch.compiler.is_compiling()
            how: Any = _LinearAndPairs.forward if compiling else _LinearAndPairs.apply
            found.append(how(vectors, self.direction))
        elif self.direction is not None:
            found.append(flat @ self.direction)
        if self.deep is not None:
            found.append(self.deep.first(flat))
        return found

    def decide(self, found: Sequence[Tensor]) -> Tensor:
        """Logits `[B]`."""
        logits: Tensor = self.bias.expand(found[0].shape[0])
        if self.fm or self.direction is not None:
            logits = logits + found[0]
        if self.deep is not None:
            logits = logits + self.deep.rest(found[-1]).squeeze(1)
        return logits

    def drop_head(self) -> None:
        """Leave the bias and the MLP's other layers to another network."""
        del self.bias
        if self.deep is not None:
            self.deep.drop_rest()


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


class DCNv2(Network):
    """Cross layers beside an MLP, joined by one linear layer.

    Source: Wang et al., DCN V2, WWW 2021.

    Embedding sets: each has its own cross layers and first layer of the MLP; the MLP's other layers
    and the linear layer are shared.

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
            self.deep = Layers(*mlp([width, *hidden], dropout), *last)
        self.out = mlp([width + (hidden[-1] if hidden else 0), 1])

    @staticmethod
    def _cross(width: int, rank: int) -> nn.Module:
        if rank:
            return nn.Sequential(
                _xavier(nn.Linear(width, rank, bias=False)), _xavier(nn.Linear(rank, width))
            )
        return _xavier(nn.Linear(width, width))

    def interact(self, vectors: Tensor, numeric: Tensor) -> list[Tensor]:
        """What the cross layers give `[B,F*D+N]`, and the first layer's units `[B,H]` if any."""
        first = torch.cat([vectors.flatten(1), numeric.to(vectors.dtype)], dim=1)
        crossed = first
        for layer in self.cross:
            crossed = first * layer(crossed) + crossed
        return [crossed] if self.deep is None else [crossed, self.deep.first(first)]

    def decide(self, found: Sequence[Tensor]) -> Tensor:
        """Logits `[B]`."""
        crossed = found[0]
        if self.deep is not None:
            crossed = torch.cat([crossed, self.deep.rest(found[1])], dim=1)
        logits: Tensor = self.out(crossed)
        return logits.squeeze(1)

    def drop_head(self) -> None:
        """Leave the linear layer and the MLP's other layers to another network."""
        del self.out
        if self.deep is not None:
            self.deep.drop_rest()


class DLRM(Network):
    """Dot products of all pairs of vectors, and an MLP on top.

    The numeric features pass a bottom MLP into one more vector; without numeric features it is a
    learned constant, whose products are the fields' first-order terms.

    Source: Naumov et al., Deep Learning Recommendation Model, 2019.

    Embedding sets: each has its own dot products, bottom MLP (or constant) and first layer of the
    top MLP; the top's other layers are shared. Dot products alone would not do: their mean over
    sets is that of wider vectors, up to a factor.

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
        self.constant = None if num_numeric else nn.Parameter(drawn(dim, std=dim**-0.5))
        count = num_fields + 1
        lower = torch.tril_indices(count, count, -1)
        self.register_buffer("pairs", lower[0] * count + lower[1], persistent=False)
        self.top = mlp([dim + lower.shape[1], *hidden, 1], dropout)

    def interact(self, vectors: Tensor, numeric: Tensor) -> list[Tensor]:
        """The units of the top's first layer `[B,H]`."""
        if self.bottom is None:
            dense = self.constant.to(vectors.dtype).expand(vectors.shape[0], -1)  # type: ignore[union-attr]
        else:
            dense = self.bottom(numeric).to(vectors.dtype)
        rows = torch.cat([dense.unsqueeze(1), vectors], dim=1)
        dots = torch.bmm(rows, rows.transpose(1, 2)).flatten(1)[:, self.pairs]
        return [self.top.first(torch.cat([dense, dots.to(dense.dtype)], dim=1))]

    def decide(self, found: Sequence[Tensor]) -> Tensor:
        """Logits `[B]`."""
        return self.top.rest(found[0]).squeeze(1)

    def drop_head(self) -> None:
        """Leave the top's other layers to another network."""
        self.top.drop_rest()


def _xavier(layer: nn.Linear) -> nn.Linear:
    if not for_shapes():
        nn.init.xavier_normal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
