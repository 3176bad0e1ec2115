"""The second room of the corridor: cells to pieces."""

from typing import Any

import torch

from bitfold.errors import BitfoldError
from bitfold.planning.spec import PoolSpec
from bitfold.pool.dense import DensePool
from bitfold.pool.flat import FlatPool

__all__ = ["DensePool", "FlatPool", "pool_of"]


def pool_of(
    spec: PoolSpec,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    sparse: bool = False,
) -> Any:
    """The pool that a spec describes, as it is trained.

    Raises:
        BitfoldError: there is no such pool.
    """
    if spec.packed:
        raise BitfoldError("no pool keeps such numbers", got=spec.numbers, expected="a float type")
    if spec.step:
        return FlatPool(spec.rows, spec.width, device=device, dtype=dtype)
    return DensePool(spec.rows, spec.width, sparse=sparse, device=device, dtype=dtype)
