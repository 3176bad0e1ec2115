"""Two towers above one collection: users and items in one space.

Shapes: `n` rows, `F` fields of both towers, `N` numbers of one, `D` the width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bitfold.nets.layers import NumericVectors, mlp
from bitfold.retrieval.positives import Layout, Read


class Tower(nn.Module):
    """Vectors of one side: those of its fields joined, and a network above if it has layers.

    Args:
        slots: the fields that it reads.
        numbers: N.
        width: D.
        pooling: `sum` or `mean` over its fields.
        hidden: sizes of hidden layers; none leaves the network out.
        dropout: share of hidden units dropped in training.
        unit: whether vectors get length 1.

    Example:
        >>> tower = Tower([1], 0, 2, unit=True)
        >>> tower(torch.tensor([[[9.0, 9.0], [3.0, 4.0]]]), torch.empty(1, 0))
        tensor([[0.6000, 0.8000]])
    """

    def __init__(
        self,
        slots: Sequence[int],
        numbers: int,
        width: int,
        *,
        pooling: str = "sum",
        hidden: Sequence[int] = (),
        dropout: float = 0.0,
        unit: bool = True,
    ) -> None:
        super().__init__()
        self.slots, self.pooling, self.unit = list(slots), pooling, unit
        self.numeric = NumericVectors(numbers, width) if numbers else None
        self.network = mlp([width, *hidden, width], dropout) if hidden else None

    def forward(self, vectors: Tensor, numeric: Tensor) -> Tensor:
        """Vectors `[n, F, D]` of all fields and numbers `[n, N]` -> `[n, D]`."""
        mine = vectors[:, self.slots]
        if self.numeric is not None:
            mine = self.numeric(mine, numeric)
        found: Tensor = mine.sum(1) if self.pooling == "sum" else mine.mean(1)
        if self.network is not None:
            found = self.network(found)
        return nn.functional.normalize(found, dim=1) if self.unit else found


class TwoTowers(nn.Module):
    """The user's tower and the item's, which read one collection.

    Args:
        embeddings: an `EmbeddingCollection` of the fields of both, or its serving form.
        user: the user's tower.
        item: the item's tower.
        prior: what a log-popularity counts for in a score `u . v`. Vectors to search by have one
            more number for it: 1 of a user, `prior` times the log-popularity of an item.
    """

    def __init__(self, embeddings: nn.Module, user: Tower, item: Tower, prior: float = 0.0) -> None:
        super().__init__()
        self.prior = prior
        self.embeddings = embeddings
        self.user, self.item = user, item

    def users(self, read: Read) -> Tensor:
        """Vectors `[n, D]` of users."""
        return self._side(self.user, read)

    def items(self, read: Read) -> Tensor:
        """Vectors `[n, D]` of items."""
        return self._side(self.item, read)

    def pairs(self, ids: Tensor, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of users and of items, `[n, D]` each, of one batch of ids `[n, F]`."""
        vectors = self.embeddings(ids)
        return self.user(vectors, user), self.item(vectors, item)

    def _side(self, tower: Tower, read: Read) -> Tensor:
        found: Tensor = tower(self.embeddings(read.ids, read.offsets), read.numeric)
        return found


def build_towers(
    embeddings: nn.Module,
    layout: Layout,
    width: int,
    *,
    pooling: str,
    hidden: Sequence[int],
    dropout: float,
    unit: bool,
    seed: int,
    prior: float = 0.0,
) -> TwoTowers:
    """Two fresh towers above given embeddings; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        user, item = (
            Tower(
                layout.slots(item=side),
                len(layout.numbers(item=side)),
                width,
                pooling=pooling,
                hidden=hidden,
                dropout=dropout,
                unit=unit,
            )
            for side in (False, True)
        )
    return TwoTowers(embeddings, user, item, prior)
