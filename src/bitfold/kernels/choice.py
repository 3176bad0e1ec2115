"""Which path a lookup takes: the kernels, or plain torch."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.bfloat16)

_forced = {"plain": False}


def by_kernel(pool: Tensor) -> bool:
    """Whether lookups in this pool take the kernels: on the CPU, in the types they know."""
    return (
        pool.is_cpu
        and pool.dtype in DTYPES
        and not _forced["plain"]
        and not torch._C._are_functorch_transforms_active()
    )


@contextmanager
def plain_torch() -> Iterator[None]:
    """Within this, lookups are plain torch operations everywhere, as on other devices.

    It serves to compare the two, for second derivatives, and to export a graph that needs
    nothing of bitfold. It holds for all threads.

    Example:
        >>> import bitfold, torch
        >>> embedding = bitfold.Embedding(1000, 8, budget="10x")
        >>> ids = torch.tensor([3, 999])
        >>> with bitfold.plain_torch():
        ...     plain = embedding(ids)
        >>> torch.testing.assert_close(embedding(ids), plain)
    """
    before = _forced["plain"]
    _forced["plain"] = True
    try:
        yield
    finally:
        _forced["plain"] = before
