"""The second room of the corridor: cells to pieces."""

from typing import Any

import torch

from bitfold.errors import BitfoldError
from bitfold.planning.spec import PoolSpec
from bitfold.pool.dense import DensePool
from bitfold.pool.flat import FlatPool
from bitfold.pool.lowbit import LowBitPool, PackedPool
from bitfold.pool.lowprecision import LowPrecisionPool
from bitfold.pool.pruned import MaskedPool, PrunedPool

__all__ = [
    "DensePool", "FlatPool", "LowBitPool", "LowPrecisionPool", "MaskedPool", "PackedPool",
    "PrunedPool", "pool_of",
]  # fmt: skip


def pool_of(
    spec: PoolSpec,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    sparse: bool = False,
    low_precision: bool = False,
) -> Any:
    """The pool that a spec describes, as it is trained; in low precision as codes.

    Raises:
        BitfoldError: there is no such pool.
    """
    if spec.packed:
        if spec.step:
            raise BitfoldError(
                "no flat array keeps its numbers in few bits",
                got=f"numbers={spec.numbers}, step={spec.step}",
                expected="a float type, or rows",
            )
        if low_precision:
            return LowPrecisionPool(
                spec.rows, spec.width, spec.bits, spec.slices, sparse=sparse, device=device,
                dtype=dtype,
            )  # fmt: skip
        return LowBitPool(
            spec.rows, spec.width, spec.bits, spec.slices, scale=spec.scale, sparse=sparse,
            device=device, dtype=dtype,
        )  # fmt: skip
    if spec.kept is not None:
        return MaskedPool(
            spec.rows, spec.width, spec.kept, sparse=sparse, device=device, dtype=dtype
        )
    if spec.step:
        return FlatPool(spec.rows, spec.width, device=device, dtype=dtype)
    return DensePool(spec.rows, spec.width, sparse=sparse, device=device, dtype=dtype)
