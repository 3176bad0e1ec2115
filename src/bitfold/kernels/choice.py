"""Which path a lookup takes: the kernels at once, their operator, or plain torch."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.uint8)  # uint8: packed rows
PLAIN, OPERATOR, DIRECT = range(3)

_forced = {"plain": False}


class _Mine(threading.local):
    plain = False


_mine = _Mine()
_OURS = (Tensor, nn.Parameter)  # whose memory is what it says
_tracing_state = torch._C._get_tracing_state
_dispatch_modes = torch._C._len_torch_dispatch_stack
_in_function_mode = torch._C._is_torch_function_mode_enabled
_transformed = torch._C._are_functorch_transforms_active


def way_of(pool: Tensor) -> int:
    """How lookups in this pool are made.

    Returns:
        `DIRECT`: a call, which nothing but autograd sees; `OPERATOR`: through torch's dispatcher,
        where a compiler, a tracer or a mode looks on; `PLAIN`: torch's own operations, on other
        devices, in types that the kernels do not know, under `torch.func`'s transforms and with
        tangents (forward-mode AD).
    """
    if not pool.is_cpu or pool.dtype not in DTYPES or _forced["plain"] or _transformed():
        return PLAIN
    if is_compiling():
        return OPERATOR
    if _mine.plain or forward_ad._current_level >= 0:
        return PLAIN
    if type(pool) not in _OURS:  # a DTensor, say: the operator does not know how it is kept
        return OPERATOR if isinstance(pool, FakeTensor | FunctionalTensor) else PLAIN
    if _dispatch_modes() or _in_function_mode() or _tracing_state() is not None:
        return OPERATOR
    return DIRECT


def transformed() -> bool:
    """Whether one of `torch.func`'s transforms runs."""
    return bool(_transformed())


def looked_on() -> bool:
    """Whether a compiler, a tracer or a mode looks on, which sees operators of torch alone."""
    return bool(
        is_compiling() or _dispatch_modes() or _in_function_mode() or _tracing_state() is not None
    )


def all_plain() -> bool:
    """Whether somebody asked for plain torch in all threads: no kernel is wanted."""
    return _forced["plain"]


def torchs_own() -> bool:
    """Whether nobody asked for plain torch, and nothing has a tangent."""
    return not _forced["plain"] and forward_ad._current_level < 0


def alone() -> bool:
    """Whether nobody looks on and nothing is transformed: Python may look at values."""
    if is_compiling():  # first: a compiler can see no more than this
        return False
    seen = _dispatch_modes() or _in_function_mode() or _transformed()
    return not seen and _tracing_state() is None


def recorded(ids: Tensor) -> bool:
    """Whether nothing may depend on the value of `ids`: they are traced, or stand for many."""
    if _tracing_state() is not None or _dispatch_modes():
        return True
    return _transformed() and torch._C._functorch.is_functorch_wrapped_tensor(ids)


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


@contextmanager
def plain_here() -> Iterator[None]:
    """As `plain_torch`, for this thread alone: others may use the kernels, or compile them."""
    before = _mine.plain
    _mine.plain = True
    try:
        yield
    finally:
        _mine.plain = before
