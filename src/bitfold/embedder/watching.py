"""What an embedder sees of a step: the gradients of its vectors, in anybody's loop."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from bitfold.embedder.contract import Embedder
from bitfold.fuse.bags import placed
from bitfold.kernels.choice import transformed


def watch(
    embedder: Embedder,
    ids: Tensor,
    offsets: Tensor | None,
    vectors: Tensor,
    padding_idx: int | None = None,
) -> None:
    """Have an embedder observe the gradient of vectors `[B, F, D]` when it comes.

    Under a compiler, and in transforms of `torch.func`, nothing is observed: what an embedder
    notes there would be lost, or noted once for all steps.

    Args:
        embedder: one that `observes`.
        ids: int64 `[B, F]`; or `[T]` with offsets.
        offsets: int64 `[F * B + 1]`, field by field.
        vectors: what it made of them; nothing happens if they need no gradient.
        padding_idx: an id that is nobody's: it is not observed.
    """
    if vectors.requires_grad and not is_compiling() and not transformed():
        found: Any = vectors
        found.register_hook(partial(_seen, embedder, ids, offsets, padding_idx))


@torch.no_grad()
def _seen(
    embedder: Embedder,
    ids: Tensor,
    offsets: Tensor | None,
    padding_idx: int | None,
    grad: Tensor | None,
) -> None:
    if grad is None:  # nothing came
        return
    rows, fields, width = grad.shape
    if offsets is None:
        field = torch.arange(fields, device=ids.device).expand(rows, fields)
        given = ids.reshape(-1), field.reshape(-1), grad.reshape(-1, width)
    else:
        bag, field = placed(offsets.long(), ids.shape[0], fields)
        given = ids, field, grad[bag % max(rows, 1), field]
    if padding_idx is not None:
        real = given[0] != padding_idx
        given = given[0][real], given[1][real], given[2][real]
    embedder.observe(*given)
