"""Item vectors of earlier batches as further negatives (cross-batch memory).

Sources: Wang et al., Cross-Batch Memory for Embedding Learning, CVPR 2020; Ajanthan et al.,
Adaptive Cross Batch Normalization for Metric Learning, 2023 (arXiv 2303.17127).

A stored vector was made by weights that have moved since. `plain` takes it as it was.
`batch` gives the stored ones the mean and deviation of this batch's; `adaptive` those that a
Kalman filter makes of all batches' so far.

Shapes: `B` rows of a batch, `M` the memory's size, `D` the width.
"""

import math

import torch
from torch import Tensor, nn

from bitfold.retrieval.moments import Moments, moments, renormalised


class Memory:
    """The last `M` item vectors, with the items that they are of.

    Args:
        size: M; 0 keeps nothing.
        kind: `none`, `plain`, `batch` or `adaptive`.
        walk: for `adaptive`, the variance that a step adds to the moments.
        noise: for `adaptive`, the variance of a batch's moments.
        unit: whether vectors have length 1, and get it again when they were renormalised.

    Example:
        >>> memory = Memory(3, "plain")
        >>> memory.put(torch.eye(2), torch.tensor([7, 8]))
        >>> memory.put(2 * torch.eye(2), torch.tensor([9, 5]))
        >>> memory.places.tolist()  # the oldest went
        [5, 8, 9]
    """

    def __init__(
        self,
        size: int,
        kind: str,
        *,
        walk: float = 0.01,
        noise: float = 0.1,
        unit: bool = False,
    ) -> None:
        self.size, self.kind, self.unit = size, kind, unit
        self.filter = Moments(walk, noise)
        self.vectors = torch.zeros(0, 0)
        self.places = torch.zeros(0, dtype=torch.int64)
        self.next = 0  # where the oldest is, once the memory is full

    def __len__(self) -> int:
        return len(self.places)

    @torch.no_grad()
    def read(self, batch: Tensor) -> Tensor:
        """The stored vectors `[M, D]` as this step takes them.

        Args:
            batch: `[B, D]`, the item vectors of this step: what moments are measured on.
        """
        if self.kind == "adaptive":
            current = self.filter.update(moments(batch))
        elif self.kind == "batch":
            current = moments(batch)
        if not len(self) or self.kind == "plain":
            return self.vectors
        found = renormalised(self.vectors, moments(self.vectors), current)
        return nn.functional.normalize(found, dim=1) if self.unit else found

    @torch.no_grad()
    def put(self, vectors: Tensor, places: Tensor) -> None:
        """Store a batch's item vectors `[B, D]` and their items `[B]` over the oldest."""
        vectors, places = vectors.detach()[-self.size :], places[-self.size :]
        room = min(self.size - len(self), len(vectors))
        if room:
            kept = self.vectors if len(self) else vectors[:0]
            self.vectors = torch.cat([kept, vectors[:room]])
            self.places = torch.cat([self.places, places[:room]])
        if room < len(vectors):
            rest = len(vectors) - room
            where = (self.next + torch.arange(rest)) % self.size
            self.vectors[where], self.places[where] = vectors[room:], places[room:]
            self.next = (self.next + rest) % self.size

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        if not len(self):
            return self.filter.tensors()
        held = {"vectors": self.vectors, "places": self.places, "next": torch.tensor([self.next])}
        return held | self.filter.tensors()

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        if "vectors" in tensors:
            self.vectors, self.places = tensors["vectors"].clone(), tensors["places"].clone()
            self.next = int(tensors["next"])
        self.filter.load(tensors)


def made(kind: str, size: int, *, walk: float, noise: float, unit: bool) -> Memory | None:
    """The memory of a training, or None."""
    if kind == "none":
        return None
    return Memory(size, kind, walk=walk, noise=noise, unit=unit)


def weighed(log_q: Tensor | None, held: int, batch: int, share: float) -> Tensor | None:
    """What is taken off the scores of a memory, so that all of it counts for `share` batches.

    Args:
        log_q: `[M]`, what is taken off anyway, or None.
        held: M.
        batch: rows of the batch.
        share: 1 counts as much as the batch; 0 leaves each vector as one of the batch.

    Example:
        >>> weighed(None, 4, 2, 1.0)  # each counts half: log 2
        tensor([0.6931, 0.6931, 0.6931, 0.6931])
    """
    if not share:
        return log_q
    more = torch.full((held,), math.log(held / (share * batch)))
    return more if log_q is None else log_q + more
