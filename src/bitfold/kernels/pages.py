"""Large pages: a table that is read at random misses the processor's page tables at every row.

With pages of 4 KiB each row of a large table costs a walk through the page tables on top of the
read. Linux gives pages of 2 MiB to memory that asks for them before it is first written.
"""

import ctypes
import mmap
from functools import cache
from typing import Any

from torch import Tensor

PAGE = 2 << 20
LEAST = 2 * PAGE  # below, a table lies in few pages anyway


@cache
def _advise() -> Any:
    """`madvise` of the C library, or None where there is none."""
    try:
        found = ctypes.CDLL(None, use_errno=True).madvise
    except (AttributeError, OSError, TypeError):
        return None
    found.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return found


def ask_for_large_pages(tensor: Tensor) -> Tensor:
    """Ask for large pages for a tensor that nothing was written to yet; returns the tensor.

    It is a wish: where the system does not know it, or has none left, nothing changes.
    """
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is None or not tensor.is_cpu or tensor.nbytes < LEAST or _advise() is None:
        return tensor
    begin = -(-tensor.data_ptr() // PAGE) * PAGE
    end = (tensor.data_ptr() + tensor.nbytes) // PAGE * PAGE
    if end > begin:
        _advise()(begin, end - begin, advice)
    return tensor
