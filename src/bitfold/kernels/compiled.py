"""Kernels: functions of an address and a thread's number, compiled once and kept on disk.

A kernel is a function of C's: the address of what it is told (`call.py`) and which thread it is.
On one thread it is called through ctypes, on several by `_launch`, the one loop that Numba makes
parallel: such a loop takes as long to compile as a kernel, so there is one for all of them.

Numba keeps a result on disk under the function's own code and constants, but not those of what it
calls: so every function that is kept holds `STAMP`, a digest of the kernels' source. It finds a
result by what the function closes over, too, and a compiled function among that has another
name in each process: it would be compiled anew every time. Kernels choose between functions by
constants instead, and Numba leaves out the branch that is not taken.

Threads are OpenMP's, through Numba. OpenMP does not survive a fork: a forked child runs
on one (`bitfold.forks`).
"""

import ctypes
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.caching import FunctionCache, _CacheLocator
from numba.core.dispatcher import Dispatcher
from numba.extending import intrinsic

STAMP = crc32(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))))

_patching = threading.RLock()
_Function = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)


class Kernel(NamedTuple):
    """A compiled kernel; `compiled` keeps its code in memory."""

    call: Callable[[int, int], None]
    address: int
    compiled: Any


def kept(decorator: Callable[..., Any], *args: Any, **words: Any) -> Callable[[Any], Any]:
    """A decorator of Numba's, with the result kept on disk where there is a place to keep it."""

    def compiled(function: Any) -> Any:
        closed = [cell.cell_contents for cell in function.__closure__ or ()]
        assert not any(isinstance(each, Dispatcher) for each in closed), "never found on disk"
        # Nothing divides by zero, so there is no code for that error.
        words["error_model"] = "numpy"
        with _no_collection(), _also_read_only():
            try:
                return decorator(*args, cache=True, **words)(function)
            except (RuntimeError, OSError):  # nowhere to write: compiled anew by each process
                return decorator(*args, **words)(function)

    return compiled


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's garbage collector, which takes a tenth of a compilation, waits."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@contextmanager
def _also_read_only() -> Iterator[None]:
    """A folder that holds results is read, even if it may not be written to.

    Numba would pass over it, as over an image's that is mounted read-only.
    """
    locator: Any = _CacheLocator
    ensure = locator.ensure_cache_path

    def found(self: Any) -> None:
        try:
            ensure(self)
        except OSError:
            if not any(Path(self.get_cache_path()).glob("*.nbi")):
                raise

    with _patching:
        locator.ensure_cache_path = found
        try:
            yield
        finally:
            locator.ensure_cache_path = ensure


def cache_folder() -> Path | None:
    """Where results are kept: in `NUMBA_CACHE_DIR`, or beside the kernels' source, or, where that
    may not be written to, in the user's cache; None if nowhere.
    """
    try:
        with _also_read_only():
            return Path(FunctionCache(kept).cache_path)
    except RuntimeError:
        return None


def kernel(function: Callable[[Any, Any], None]) -> Kernel:
    """Compile a function of an address and a thread's number."""
    compiled = kept(numba.cfunc, "void(int64, int64)")(function)
    return Kernel(_Function(compiled.address), compiled.address, compiled)


@intrinsic
def call_kernel(typingctx: Any, function: Any, told: Any, t: Any) -> Any:
    """Call the kernel at an address."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [word, word]).as_pointer()
        builder.call(builder.inttoptr(args[0], kind), args[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), build


@lru_cache(maxsize=1)
def _launch() -> Any:
    stamp = STAMP

    @kept(numba.njit, "int64(int64, int64, int64)", parallel=True, nogil=True)
    def launch(function, told, threads):
        for t in numba.prange(threads):
            call_kernel(function, told, np.int64(t))
        return stamp

    return launch


def run(made: Kernel, told: int, threads: int) -> None:
    """Run a kernel once for each thread's number."""
    if threads == 1:
        made.call(told, 0)
    else:
        _launch()(made.address, told, threads)
