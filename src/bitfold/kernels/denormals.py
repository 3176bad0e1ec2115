"""Numbers too small for the processor's normal form, as zeros, in all threads of a computation.

Moments and weights of units that no longer learn decay below 1e-38, where x86 processors take a
hundred cycles an operation. `torch.set_flush_denormal` speaks to the thread that calls it alone,
so the halves of one tensor would follow different rules.
"""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from bitfold.kernels.call import tell
from bitfold.kernels.compiled import STAMP, Kernel, kernel, run
from bitfold.kernels.sharing import threads_for
from bitfold.kernels.vectors import get, pointer, put

X86 = ("x86_64", "AMD64")
_MASK = np.int32(0x8040)  # of the control register: denormal results are zeros, and so are operands


def _register(name: str) -> Any:
    """The instruction that stores the control register at an address, or loads it from there."""

    def typed(typingctx: Any, address: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            byte = ir.IntType(8).as_pointer()
            kind = ir.FunctionType(ir.VoidType(), [byte])
            function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.sse.{name}")
            builder.call(function, [builder.bitcast(args[0], byte)])
            return context.get_dummy_value()

        return types.void(address), build

    typed.__name__ = typed.__qualname__ = name
    return intrinsic(typed)


_save, _restore = _register("stmxcsr"), _register("ldmxcsr")


@lru_cache(maxsize=1)
def _swapping() -> Kernel:
    """Thread t keeps its control register in `words[t]` and sets the bits, or restores it.

    Told are the address of `words`, int32 `[threads]`, and whether to restore.
    """
    stamp = STAMP

    @kernel
    def swap(address, t):
        told = pointer(address, np.int64(stamp))
        word = pointer(get(told, 0) + 4 * t, np.int32(0))
        if get(told, 1) == 0:
            _save(word)
            before = get(word, 0)
            put(word, 0, before | _MASK)
            _restore(word)
            put(word, 0, before)
        else:
            _restore(word)

    return swap


@contextmanager
def no_denormals() -> Iterator[None]:
    """Within this, what this thread and the threads that share its work compute has no denormals.

    Elsewhere than on x86 nothing changes: other processors take no longer for them.

    Example:
        >>> import torch
        >>> with no_denormals():
        ...     small = torch.full((3,), 1e-30) * 1e-10
        >>> if platform.machine() in X86:
        ...     assert small.count_nonzero() == 0
    """
    if platform.machine() not in X86:
        yield
        return
    threads = threads_for(2**62)
    words = np.zeros(threads, np.int32)
    run(_swapping(), tell(words.ctypes.data, 0), threads)
    try:
        yield
    finally:
        run(_swapping(), tell(words.ctypes.data, 1), threads)
