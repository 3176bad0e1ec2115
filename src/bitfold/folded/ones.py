"""Bags of one id each, which any pooling leaves as they are."""

from functools import lru_cache

import torch
from torch import Tensor

FEW = 64
"""Ids of a column up to which they are compared as Python's integers, which is quicker."""


def of_ones(ids: Tensor, offsets: Tensor | None, with_end: bool) -> bool:
    """Whether every bag holds one id.

    Args:
        ids: `[T]` with offsets, or `[B, N]`.
        offsets: `[B]`, where bags begin.
        with_end: whether they have the end of the last bag, too.
    """
    count = ids.shape[0] if ids.dim() else 0
    if offsets is None:
        return ids.dim() == 2 and ids.shape[1] == 1
    if ids.dim() != 1 or not count or offsets.shape != (count + with_end,):
        return False
    if count <= FEW:
        return bool(offsets.tolist() == list(range(count + with_end)))
    return torch.equal(offsets, _counted(count + with_end, offsets.dtype))


@lru_cache(maxsize=8)
def _counted(count: int, dtype: torch.dtype) -> Tensor:
    """0, 1, 2, ...; nobody writes to it."""
    with torch.inference_mode(False):
        return torch.arange(count, dtype=dtype, device="cpu")
