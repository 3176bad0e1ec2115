"""What each thread keeps from call to call: scratch, sums, lists and marks; new pages cost time."""

import threading
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitfold.kernels.sharing import threads_for

KEPT_POOLS = 4  # for how many pools a thread keeps its marks and lists
_local = threading.local()


def scratch(words: int) -> int:
    """The address of this thread's scratch, of at least that many 8-byte words."""
    kept: NDArray[np.int64] | None = getattr(_local, "scratch", None)
    if kept is None or kept.size < words:
        kept = _local.scratch = np.empty(words, np.int64)
        _local.address = kept.ctypes.data
    address: int = _local.address
    return address


def first_word(t: int, room: int) -> int:
    """The first word of the scratch of a call's thread `t`, of so much room each."""
    return int(_local.scratch.item(t * room))


def sums_of(pool: Tensor, threads: int) -> tuple[Tensor, Tensor]:
    """This thread's sums `[R, w]` and those of other threads; kept, since new pages cost time."""
    kept: Tensor | None = _local.__dict__.get("sums")
    if kept is None or kept.numel() < threads * pool.numel():
        kept = _local.sums = torch.empty(threads * pool.numel())
    own = pool.numel()
    return kept[:own].view(pool.shape), kept[own : threads * own].view(threads - 1, own)


class Lists(NamedTuple):
    """Where each thread lists the rows it meets: their sums, their slots, their numbers."""

    sums: NDArray[np.float32]
    slots: NDArray[np.int32]
    found: NDArray[np.int64]


def lists_of(pool: Tensor, threads: int, room: int) -> Lists:
    """This thread's lists for pools of a shape, with room for so many rows; slots are zero."""
    rows, width = pool.shape
    kept: dict[tuple[int, int], Lists] = _local.__dict__.setdefault("lists", {})
    lists = kept.get((rows, width))
    if lists is None or lists.found.shape[0] < threads or lists.found.shape[1] < room:
        _make_room(kept)
        lists = Lists(
            np.empty(threads * room * width, np.float32),
            np.zeros(rows, np.int32),
            np.empty((threads, room), np.int64),
        )
        kept[rows, width] = lists
    return lists


def forget_lists() -> None:
    """Drop this thread's lists: a step was interrupted, and slots may be left."""
    _local.lists.clear()


def moving_bytes(pool: Tensor) -> int:
    """Bytes at most that moving such a pool's rows takes beside it: its sums, or its lists."""
    lists = _local.__dict__.get("lists", {}).get(tuple(pool.shape))
    if lists is None:
        return pool.nbytes * threads_for(2**62)
    return sum(array.nbytes for array in lists)


def marking_bytes(rows: int) -> int:
    """Bytes that naming the rows of a batch takes beside a pool of so many rows."""
    return sum(array.nbytes for array in _local.__dict__.get("marks", {}).get(rows, ()))


def marks_of(rows: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """This thread's marks and slots for a pool of `rows` rows, all zero."""
    kept: dict[int, Any] = _local.__dict__.setdefault("marks", {})
    if rows not in kept:
        _make_room(kept)
        # A slot is the number of a row in a batch: 32 bits will do.
        kept[rows] = np.zeros(-(-rows // 8) * 8, np.uint8), np.zeros(rows, np.int32)
    marks: tuple[NDArray[np.uint8], NDArray[np.int32]] = kept[rows]
    return marks


def _make_room(kept: dict[Any, Any]) -> None:
    while len(kept) >= KEPT_POOLS:
        kept.pop(next(iter(kept)))
