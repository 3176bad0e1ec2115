"""A click model: embeddings below, a network above."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bitfold.nets.cold import ColdIds, ids_of
from bitfold.nets.sets import repeated

if TYPE_CHECKING:
    from bitfold.data.batch import Batch


class ClickModel(nn.Module):
    """Logits of a batch of rows.

    Args:
        embeddings: an `EmbeddingCollection` of F fields, or its serving form; with M embedding
            sets, of the fields of all sets, M*F.
        network: what turns vectors `[B,M*F,D]` and numeric features `[B,N]` into logits `[B]`.
        sets: M.
        cold: ids with few clicks, which lean on prototypes; one set alone.
    """

    def __init__(
        self,
        embeddings: nn.Module,
        network: nn.Module,
        sets: int = 1,
        cold: ColdIds | None = None,
    ) -> None:
        super().__init__()
        self.sets = sets
        self.embeddings = embeddings
        self.network = network
        self.cold = cold

    def forward(self, batch: "Batch") -> Tensor:
        """Logits `[B]` of a batch."""
        return self.logits(batch.ids, batch.offsets, batch.numeric)

    def logits(self, ids: Tensor, offsets: Tensor | None, numeric: Tensor) -> Tensor:
        """Logits `[B]` in float32 of ids `[B,F]`, or of bags: ids `[T]`, offsets `[F*B+1]`."""
        vectors = self.vectors(ids, offsets)
        logits: Tensor = self.network(vectors, numeric)
        if self.cold is not None:
            mine = ids_of(ids, offsets, self.cold.field, numeric.shape[0])
            logits = self.cold(logits, vectors, mine, numeric, self.network)
        return logits.float()

    def vectors(self, ids: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Vectors `[B,M*F,D]`, set after set, of ids `[B,F]`, or of bags."""
        if self.sets > 1:
            ids, offsets = repeated(ids, offsets, self.sets)
        found: Tensor = self.embeddings(ids) if offsets is None else self.embeddings(ids, offsets)
        return found


def click_loss(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Mean log loss of logits `[B]`; with weights `[B]`, their weighted mean.

    Example:
        >>> click_loss(torch.zeros(4), torch.tensor([0.0, 1.0, 1.0, 0.0]), None)
        tensor(0.6931)
    """
    if weights is None:
        return nn.functional.binary_cross_entropy_with_logits(logits, labels)
    losses = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (weights * losses).sum() / weights.sum().clamp_min(torch.finfo(losses.dtype).tiny)
