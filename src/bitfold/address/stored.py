"""Stored integers: pointers of a few bits each, one after another in a row of bytes.

Integer `i` of `b` bits begins at bit `i * b`; bits are counted from each byte's lowest on. Nothing
is padded but the last byte, so `n` integers take `ceil(n * b / 8)` bytes.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitfold.address.words import down, up
from bitfold.errors import BitfoldError

MOST_BITS = 40
_AT_ONCE = 1 << 16  # integers; a multiple of 8, so that each turn fills whole bytes


def stored_bytes(length: int, bits: int) -> int:
    """Bytes of `length` integers of `bits` bits.

    Example:
        >>> stored_bytes(1000, 5)
        625
    """
    return -(-length * bits // 8)


def bytes_of_one(bits: int) -> int:
    """How many bytes one integer reaches into, at most.

    Example:
        >>> [bytes_of_one(bits) for bits in (1, 4, 5, 8, 12, 40)]
        [1, 1, 2, 1, 2, 5]
    """
    return -(-(bits + 8 - math.gcd(bits, 8)) // 8)


def pack_bits(values: Tensor | NDArray[np.int64], bits: int) -> Tensor:
    """Integers `[n]` below `2**bits` as bytes, uint8 `[ceil(n * bits / 8)]`, on the CPU.

    Raises:
        BitfoldError: for an integer that does not fit, or bits that are not 1 to 40.

    Example:
        >>> pack_bits(torch.tensor([1, 2, 3, 30]), 5).tolist()
        [65, 12, 15]
    """
    _check_bits(bits)
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.ndim != 1 or array.dtype != np.int64:
        raise BitfoldError(
            "stored integers come as one array",
            got=f"{array.dtype} {list(array.shape)}",
            expected="int64 [n]",
        )
    if array.size and not 0 <= array.min() <= array.max() < 1 << bits:
        raise BitfoldError(
            f"an integer does not fit {bits} bits",
            got=f"{array.min()} to {array.max()}",
            expected=f"0 to {(1 << bits) - 1}",
        )
    out, places = np.empty(stored_bytes(array.size, bits), np.uint8), np.arange(bits)
    for begin in range(0, array.size, _AT_ONCE):
        ones = (array[begin : begin + _AT_ONCE, None] >> places & 1).astype(np.uint8)
        packed = np.packbits(ones, bitorder="little")
        out[begin * bits // 8 :][: packed.size] = packed
    return torch.from_numpy(out)


def unpack_bits(table: Tensor, bits: int, length: int) -> Tensor:
    """The integers that `pack_bits` packed, int64 `[length]`, where the table is.

    Example:
        >>> unpack_bits(pack_bits(torch.tensor([1, 2, 3, 30]), 5), 5, 4).tolist()
        [1, 2, 3, 30]
    """
    return gather_bits(table, bits, torch.arange(length, device=table.device))


def gather_bits(table: Tensor, bits: int, index: Tensor, begin: Tensor | int = 0) -> Tensor:
    """Some of a table's integers, int64, in the shape of `index` (int64, within the table).

    Where several tables lie one after another, `begin` is the first byte of each index's own.
    """
    start = index * bits
    first, shift = down(start, 3), start & 7
    if isinstance(begin, Tensor):
        first = first + begin
    word = table[first].long()
    for more in range(1, bytes_of_one(bits)):
        # What lies beyond the last byte is masked off: any byte will do.
        byte = table[(first + more).clamp(max=table.shape[0] - 1)].long()
        word = word + up(byte, 8 * more)
    return down(word, shift) & (1 << bits) - 1


def bits_int(table: Sequence[int], bits: int, index: int) -> int:
    """One of a table's integers: the definition."""
    first, shift = index * bits // 8, index * bits % 8
    word = int.from_bytes(bytes(table[first : first + bytes_of_one(bits)]), "little")
    return word >> shift & (1 << bits) - 1


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= MOST_BITS:
        raise BitfoldError(
            "stored integers are of a few bits", got=bits, expected=f"1 to {MOST_BITS}"
        )
