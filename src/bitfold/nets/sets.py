"""Several embedding sets under one network: an interaction for each, and one head.

Source: Guo et al., On the Embedding Collapse when Scaling up Recommendation Models, ICML 2024
(arXiv 2310.04400), section 5.

Shapes: `B` rows, `M` sets, `F` fields, `D` the width of each set, `N` numeric features.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from bitfold.nets.layers import Network


class SetsNetwork(nn.Module):
    """The interactions of M embedding sets, averaged, and the head of the first network.

    Args:
        networks: one a set, alike in shape; all but the first lose their heads.
    """

    def __init__(self, networks: Sequence["Network"]) -> None:
        super().__init__()
        for network in networks[1:]:
            network.drop_head()
        self.sets = nn.ModuleList(networks)

    def forward(self, vectors: Tensor, numeric: Tensor) -> Tensor:
        """Vectors `[B,M*F,D]`, set after set, and numeric features `[B,N]` -> logits `[B]`."""
        every: Sequence[Network] = self.sets  # type: ignore[assignment]
        parts = vectors.chunk(len(every), dim=1)
        found = [each.interact(part, numeric) for each, part in zip(every, parts, strict=True)]
        return every[0].decide([torch.stack(each).mean(0) for each in zip(*found, strict=True)])


def repeated(ids: Tensor, offsets: Tensor | None, sets: int) -> tuple[Tensor, Tensor | None]:
    """A batch as collections of M sets take it: the fields' ids, set after set.

    Args:
        ids: `[B,F]`, or with offsets `[T]`.
        offsets: `[F*B+1]`, field by field, or None.
        sets: M.

    Returns:
        `[B,M*F]` and None, or `[M*T]` and `[M*F*B+1]`.

    Example:
        >>> repeated(torch.tensor([[7, 8]]), None, 2)[0]
        tensor([[7, 8, 7, 8]])
        >>> repeated(torch.tensor([7, 8, 9]), torch.tensor([0, 1, 3]), 2)
        (tensor([7, 8, 9, 7, 8, 9]), tensor([0, 1, 3, 4, 6]))
    """
    if offsets is None:
        return ids.repeat(1, sets), None
    more = [offsets[1:] + number * ids.shape[0] for number in range(1, sets)]
    return ids.repeat(sets), torch.cat([offsets, *more])
