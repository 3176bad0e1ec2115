"""Lookups on the CPU: tensors in, tensors out, around the compiled walks.

Shapes: R pool rows, w width of a row, B rows of the batch, F fields, T ids, L lookups, D width of
a vector. `packed` is a program (`words.pack`); ids are `[B, F]`, or `[T]` with offsets
`[F * B + 1]`, field by field.
"""

import os
import threading
from functools import lru_cache
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitfold.errors import IdOutOfRange
from bitfold.kernels import walk
from bitfold.kernels.compiled import backward as compiled_backward
from bitfold.kernels.compiled import forked, touched
from bitfold.kernels.compiled import forward as compiled_forward
from bitfold.kernels.vectors import lanes_of
from bitfold.kernels.words import HEAD

SERIAL_NUMBERS = 1 << 15  # outputs below which waking a second thread costs more than it saves
PRIVATE_BYTES = 8 << 20  # sums of all threads up to here are private
KEPT_POOLS = 4  # for how many pools a thread keeps its marks
# What each pool's numbers are, and what they are added up in.
ITEMS: dict[torch.dtype, tuple[Any, Any, torch.dtype]] = {
    torch.float32: (np.float32(0), np.float32(1), torch.float32),
    torch.float64: (np.float64(0), np.float64(1), torch.float64),
    torch.bfloat16: (np.uint16(0), np.float32(1), torch.float32),
}
_local = threading.local()


@lru_cache(maxsize=1)
def cache_bytes() -> int:
    """Bytes of the last-level cache: an output beyond it is written past the caches."""
    try:
        size = max(os.sysconf("SC_LEVEL3_CACHE_SIZE"), os.sysconf("SC_LEVEL2_CACHE_SIZE"))
    except (OSError, ValueError):
        size = 0
    return size if size > 0 else 8 << 20


def _optional(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.detach().to(dtype).contiguous()


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


@lru_cache(maxsize=1)
def _most_threads() -> int:
    config: Any = numba.config
    return int(config.NUMBA_NUM_THREADS)


def threads_for(rows: int) -> int:
    """How many threads share a batch: torch's number, which Numba must not change.

    Both keep it in OpenMP, and a loop of Numba's sets it to Numba's own.
    """
    if forked():
        return 1
    threads = torch.get_num_threads()
    limit = min(threads, _most_threads())
    if numba.get_num_threads() != limit:
        numba.set_num_threads(limit)
    return max(1, min(threads, rows))


def _scratch(words: int) -> int:
    """The address of this thread's scratch, of at least that many 8-byte words."""
    kept: NDArray[np.int64] | None = getattr(_local, "scratch", None)
    if kept is None or kept.size < words:
        kept = _local.scratch = np.empty(words, np.int64)
        _local.address = kept.ctypes.data
    address: int = _local.address
    return address


def forward(
    pool: Tensor,
    importance: Tensor | None,
    ids: Tensor,
    offsets: Tensor | None,
    weights: Tensor | None,
    packed: Tensor,
    fusion: int,
    pooling: int,
    padding: int | None,
    fields: int,
    dim: int,
    room: int,
    top: Tensor | None = None,
) -> Tensor:
    """Vectors `[B, F, D]`.

    With pooling `TIES`, how many ids of each bag reach its maximum `top`, number by number.

    Raises:
        IdOutOfRange: for a dense id outside `0..V-1`.
    """
    width, dtype = pool.shape[1], pool.dtype
    item, one, wide = ITEMS[dtype]
    ids, pool = ids.contiguous(), pool.contiguous()
    if offsets is None and padding is None:
        rows = ids.shape[0]
        out = torch.empty((rows, fields, dim), dtype=dtype)
    else:
        rows = ids.shape[0] if offsets is None else (offsets.shape[0] - 1) // fields
        out = torch.zeros((rows, fields, dim), dtype=dtype)
    numbers = ids.numel() * dim
    threads = 1 if numbers < SERIAL_NUMBERS else threads_for(rows)
    lanes = lanes_of(width)
    streamed = numbers > 1 << 18 and out.nbytes > cache_bytes() and lanes * out.itemsize % 32 == 0
    importance, weights = _optional(importance, wide), _optional(weights, wide)
    offsets = _optional(offsets, torch.int64)
    serial, parallel = compiled_forward(lanes, item, one)
    position = (serial if threads == 1 else parallel)(
        threads, width, pool.data_ptr(), _address(importance), ids.data_ptr(), _address(offsets),
        _address(weights), packed.data_ptr(), fusion, pooling, padding is not None, padding or 0,
        _address(top), out.data_ptr(), streamed, rows, _scratch(threads * room), room,
    )  # fmt: skip
    if position >= 0:
        raise _out_of_range(ids, offsets, packed, fields, position)
    return out


def _out_of_range(
    ids: Tensor, offsets: Tensor | None, packed: Tensor, fields: int, position: int
) -> IdOutOfRange:
    field = position % fields
    if offsets is not None:
        bag = int(torch.searchsorted(offsets, position, right=True)) - 1
        field = bag // ((offsets.shape[0] - 1) // fields)
    limit = int(packed[HEAD + fields + 1 + field])
    return IdOutOfRange(
        "a dense id is outside 0..num_embeddings-1",
        got=f"{int(ids.reshape(-1)[position])} at position {position}, field {field}",
        expected=f"0 to {limit - 1}",
        fix="check how the ids were made, or use hashed ids (num_embeddings=None)",
    )


def backward(
    grad: Tensor,
    pool: Tensor,
    importance: Tensor | None,
    ids: Tensor,
    offsets: Tensor | None,
    weights: Tensor | None,
    packed: Tensor,
    fusion: int,
    pooling: int,
    padding: int | None,
    fields: int,
    dim: int,
    room: int,
    top: Tensor | None,
    sparse: bool,
    wants_importance: bool,
    wants_weights: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the pool, of the learned factors and of the per-sample weights.

    Args:
        grad: of the vectors, `[B, F, D]`.
        top: the vectors themselves, for a maximum.
        sparse: whether the pool's gradient is that of the rows read alone.
        wants_importance: whether the factors' gradient is wanted.
        wants_weights: whether the weights' gradient is wanted.

    Returns:
        The rows `[n]` in order and their gradient `[n, w]`; or no rows and the whole table's
        `[R, w]`. Then the other gradients, `[L]` and `[T]`, empty where unwanted.
    """
    width = pool.shape[1]
    item, one, wide = ITEMS[pool.dtype]
    ids, pool, grad = ids.contiguous(), pool.contiguous(), grad.contiguous()
    rows = ids.shape[0] if offsets is None else (offsets.shape[0] - 1) // fields
    offsets = _optional(offsets, torch.int64)
    if pooling == walk.POOL_MAX:  # those that reach the maximum share its gradient
        ties = forward(
            pool, importance, ids, offsets, None, packed, fusion, walk.TIES, padding, fields, dim,
            room, top,
        )  # fmt: skip
        grad = grad / ties.clamp(min=1)
    importance, weights = _optional(importance, wide), _optional(weights, wide)
    threads = 1 if ids.numel() * dim < SERIAL_NUMBERS else threads_for(rows)
    count = importance.shape[0] if wants_importance and importance is not None else 0
    factors = torch.zeros((threads, count), dtype=wide)
    shares = torch.zeros(ids.shape[0] if wants_weights else 0, dtype=wide)
    found, others, slots = torch.empty(0, dtype=torch.int64), None, 0
    private = not sparse and pool.numel() * wide.itemsize * threads <= PRIVATE_BYTES
    scratch = _scratch(threads * room)
    call = compiled_backward(lanes_of(width), item, one)[0 if threads == 1 else 1]
    common = (
        threads, width, pool.data_ptr(), _address(importance), ids.data_ptr(), _address(offsets),
        _address(weights), packed.data_ptr(), fusion, pooling, padding is not None, padding or 0,
        _address(top), grad.data_ptr(), rows, scratch, room,
    )  # fmt: skip
    extra = factors.data_ptr() if count else 0, shares.data_ptr() if wants_weights else 0
    if private:
        sums = torch.empty(pool.shape, dtype=wide)
        others = torch.empty((threads - 1, pool.numel()), dtype=wide)
        call(*common, sums.data_ptr(), _address(others), pool.numel(), *extra, False, 0)
    else:
        if sparse:
            marks, places = _marks(pool.shape[0])
            slots = places.ctypes.data
            array = touched()(
                threads, ids.data_ptr(), _address(offsets), packed.data_ptr(), pooling,
                padding is not None, padding or 0, rows, scratch, room,
                marks.ctypes.data, len(marks) // 8, slots,
            )  # fmt: skip
            found = torch.from_numpy(array)
        shape = (len(found), width) if sparse else pool.shape
        sums = torch.zeros(shape, dtype=wide)
        call(*common, sums.data_ptr(), 0, pool.numel(), 0, 0, True, slots)
        if count or wants_weights:
            call(*common, 0, 0, 0, *extra, False, 0)
    learned = factors.sum(0)
    return found, sums.to(pool.dtype), learned.to(pool.dtype), shares.to(pool.dtype)


def _marks(rows: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """This thread's marks and slots for a pool of `rows` rows, all zero."""
    kept: dict[int, Any] = _local.__dict__.setdefault("marks", {})
    if rows not in kept:
        while len(kept) >= KEPT_POOLS:
            kept.pop(next(iter(kept)))
        # A slot is the number of a row in a batch: 32 bits will do.
        kept[rows] = np.zeros(-(-rows // 8) * 8, np.uint8), np.zeros(rows, np.int32)
    marks: tuple[NDArray[np.uint8], NDArray[np.int32]] = kept[rows]
    return marks
