"""What an embedder sees of a step: the gradients of its vectors, in anybody's loop."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from bitfold.embedder.contract import Embedder
from bitfold.fuse.bags import bags_of


def watch(embedder: Embedder, ids: Tensor, offsets: Tensor | None, vectors: Tensor) -> None:
    """Have an embedder observe the gradient of vectors `[B, F, D]` when it comes.

    Args:
        embedder: one that `observes`.
        ids: int64 `[B, F]`; or `[T]` with offsets.
        offsets: int64 `[F * B + 1]`, field by field.
        vectors: what it made of them; nothing happens if they need no gradient.
    """
    if vectors.requires_grad:
        found: Any = vectors
        found.register_hook(partial(_seen, embedder, ids, offsets))


@torch.no_grad()
def _seen(embedder: Embedder, ids: Tensor, offsets: Tensor | None, grad: Tensor) -> None:
    rows, fields, width = grad.shape
    if offsets is None:
        field = torch.arange(fields, device=ids.device).expand(rows, fields)
        embedder.observe(ids.reshape(-1), field.reshape(-1), grad.reshape(-1, width))
        return
    bag = bags_of(offsets.long(), ids.shape[0])
    field = bag // max(rows, 1)
    embedder.observe(ids, field, grad[bag % max(rows, 1), field])
