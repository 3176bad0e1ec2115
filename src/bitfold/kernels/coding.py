"""Codes of a few rows to numbers and back, compiled: what low-precision training does each step.

The same to the bit as `bitfold.pool.rounding` and `bitfold.pool.chance`, which say what is done;
here the rows of a batch are walked once, without a table of them for each operation.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from bitfold.kernels.compiled import STAMP, kept
from bitfold.kernels.held import check_tensor, refused
from bitfold.kernels.reading import APART, MIX, ODD, TURNS, row_bytes

_ODD, _MIX, _WORD = np.uint64(ODD), np.uint64(MIX), np.uint64(32)
_UNIT = np.float32(2.0**-24)
_APART, _LAST, _TOP = np.uint32(APART), np.uint32(16), np.uint32(8)
(_DOWN, _FACTOR), (_DOWN_AGAIN, _FACTOR_AGAIN) = (
    (np.uint32(down), np.uint32(factor)) for down, factor in TURNS
)
# Codes, lowest values, steps, slices, bits, rows, numbers.
_ROWS = (
    "uint8[:, ::1], float32[:, ::1], float32[:, ::1], int64[::1], int64, int64[::1], "
    "float32[:, ::1]"
)
_once: Any = numba.njit(inline="always")


class Coded(NamedTuple):
    """Rows of codes, and what their numbers follow from.

    Args:
        codes: uint8 `[R, bytes]`.
        lowest: float32 `[S, w]`, the value of code 0 in each slice.
        steps: float32 `[S, w]`.
        slices: int64 `[S]`, the first row of each.
        bits: of a code.
    """

    codes: Tensor
    lowest: Tensor
    steps: Tensor
    slices: Tensor
    bits: int

    def check(self, rows: Tensor) -> None:
        """Raise unless everything has its size and every row is one of them.

        Raises:
            BitfoldError: a walk would read or write elsewhere.
        """
        count, width = self.lowest.shape if self.lowest.dim() == 2 else (0, 0)
        check_tensor("lowest", self.lowest, (count, width), torch.float32)
        check_tensor("steps", self.steps, (count, width), torch.float32)
        check_tensor("slices", self.slices, (count,), torch.int64)
        size = row_bytes(width, self.bits)
        check_tensor("codes", self.codes, (len(self.codes), size), torch.uint8)
        check_tensor("rows", rows, (len(rows),), torch.int64)
        if not 1 <= self.bits <= 8 or not count or int(self.slices[0]) != 0:
            raise refused("bits and slices", f"{self.bits}, {count}", "1 to 8, and the first at 0")
        for tensor in (self.lowest, self.steps, self.slices, self.codes, rows):
            if not tensor.is_contiguous():
                raise refused("a tensor's layout", tensor.stride(), "contiguous")
        if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= len(self.codes)):
            raise refused(
                "rows", f"{int(rows.min())} to {int(rows.max())}", f"0 to {len(self.codes) - 1}"
            )


@_once
def _slice_of(slices, row, near):
    """The slice of a row; rows come in order mostly, so the search begins where the last was."""
    count = len(slices)
    if row < slices[near]:
        near = 0
    while near + 1 < count and slices[near + 1] <= row:
        near += 1
    return near


@_once
def seed_of(row, moves):
    """What the chances of a row's columns follow from, in a move."""
    mixed = np.uint64(row) * _ODD + np.uint64(moves) * _MIX
    mixed = (mixed ^ (mixed >> _WORD)) * _MIX
    mixed = (mixed ^ (mixed >> _WORD)) * _MIX
    return np.uint32(mixed >> _WORD)


@lru_cache(maxsize=1)
def _decode() -> Any:
    stamp = STAMP

    @kept(
        numba.njit,
        f"int64({_ROWS})",
        nogil=True,
    )
    def walk(codes, lowest, steps, slices, bits, rows, numbers):
        width, near = numbers.shape[1], 0
        mask = (1 << bits) - 1
        for i in range(len(rows)):
            row = rows[i]
            near = _slice_of(slices, row, near)
            held, room, at = 0, 0, 0
            for j in range(width):
                if room < bits:
                    held |= np.int64(codes[row, at]) << room
                    at, room = at + 1, room + 8
                code = np.float32(held & mask)
                held, room = held >> bits, room - bits
                numbers[i, j] = lowest[near, j] + steps[near, j] * code
        return stamp

    return walk


@lru_cache(maxsize=1)
def _encode() -> Any:
    stamp = STAMP

    @kept(
        numba.njit,
        f"int64({_ROWS}, int64)",
        nogil=True,
    )
    def walk(codes, lowest, steps, slices, bits, rows, numbers, moves):
        width, near = numbers.shape[1], 0
        most, zero, unit = np.float32((1 << bits) - 1), np.float32(0), np.float32(1)
        for i in range(len(rows)):
            row = rows[i]
            near = _slice_of(slices, row, near)
            held, room, at = 0, 0, 0
            seed = seed_of(row, moves)
            for j in range(width):
                word = np.uint32(seed + np.uint32(j) * _APART)
                word = np.uint32((word ^ (word >> _DOWN)) * _FACTOR)
                word = np.uint32((word ^ (word >> _DOWN_AGAIN)) * _FACTOR_AGAIN)
                chance = np.float32(np.int64((word ^ (word >> _LAST)) >> _TOP)) * _UNIT
                step = steps[near, j]
                inverse = unit / step if step > zero else zero
                drawn = np.floor((numbers[i, j] - lowest[near, j]) * inverse + chance)
                code = np.int64(min(max(drawn, zero), most))
                held |= code << room
                room += bits
                if room >= 8:
                    codes[row, at] = np.uint8(held & 255)
                    held, room, at = held >> 8, room - 8, at + 1
            if room > 0:
                codes[row, at] = np.uint8(held & 255)
        return stamp

    return walk


def decode(coded: Coded, rows: Tensor) -> Tensor:
    """The numbers of rows `[n]`: float32 `[n, w]`."""
    coded.check(rows)
    numbers = torch.empty(len(rows), coded.lowest.shape[1])
    _decode()(*_arrays(coded), rows.numpy(), numbers.numpy())
    return numbers


def encode(coded: Coded, rows: Tensor, numbers: Tensor, moves: int) -> None:
    """Write the codes of finite numbers, float32 `[n, w]`, rounded by the chance of a move."""
    coded.check(rows)
    check_tensor("numbers", numbers, (len(rows), coded.lowest.shape[1]), torch.float32)
    _encode()(*_arrays(coded), rows.numpy(), numbers.contiguous().numpy(), moves)
    torch.autograd.graph.increment_version(coded.codes)


def _arrays(coded: Coded) -> tuple[Any, ...]:
    tensors = coded.codes, coded.lowest, coded.steps, coded.slices
    return *(each.detach().numpy() for each in tensors), coded.bits
