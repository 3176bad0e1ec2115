"""What a checkpoint holds: tensors by name, size and type, whose rows are read when asked for."""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[Any]
"""Rows of a table as unsigned integers `[rows, width]`: the bits of its numbers."""

EXPONENTS: dict[str, tuple[type[np.unsignedinteger[Any]], int]] = {
    "float64": (np.uint64, 0x7FF0_0000_0000_0000),
    "float32": (np.uint32, 0x7F80_0000),
    "float16": (np.uint16, 0x7C00),
    "bfloat16": (np.uint16, 0x7F80),
    "float8_e5m2": (np.uint8, 0x7C),
    "float8_e4m3fn": (np.uint8, 0x7F),  # it has no infinity, and one NaN
}
"""The types that a table may have: their words, and the bits that are all set in NaN and inf."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a checkpoint; none of its numbers have been read.

    Args:
        name: its key.
        shape: its sizes.
        dtype: its type, as torch calls it.
        bytes: what it takes.
        place: where its numbers lie: tensors of one place are one.
        read: the words of rows `start` to `stop` of a 2-D tensor; None where there are none.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    place: Hashable = field(repr=False)
    read: Callable[[int, int], Words] | None = field(default=None, repr=False, compare=False)

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Weights:
    """The weights of a checkpoint.

    Args:
        path: the file or folder.
        form: `safetensors` or `torch`.
        tensors: all that belongs to the model, in the order of the file.
        size: bytes on the disk.
        beside: bytes of tensors that are no weights, such as an optimizer's state.
    """

    path: Path
    form: str
    tensors: tuple[StoredTensor, ...]
    size: int
    beside: int = 0

    @property
    def bytes(self) -> int:
        """Bytes of all weights; what several names share counts once."""
        return sum({tensor.place: tensor.bytes for tensor in self.tensors}.values())
