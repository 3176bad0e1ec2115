"""Mixing: a salted bijection that spreads an id over all the bits of a word.

`mix(id, salt, bits)` is one to one on `bits`-bit words, so no two ids meet before the code is
cut. It is written three times - torch, NumPy, plain Python - and the three agree bit for bit.
torch has no unsigned shift: a right shift is arithmetic there and the sign bits are masked off.
"""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitfold.address.words import low, run_of

MIX_VERSION = 1
WORD = (1 << 64) - 1
_FIRST = 0xD6E8FEB86659FD93
_SECOND = 0xA0761D6478BD642F


def signed(word: int) -> int:
    """The int64 with the same 64 bits.

    Example:
        >>> signed(2**64 - 1)
        -1
    """
    word &= WORD
    return word - (1 << 64) if word >> 63 else word


FIRST, SECOND = signed(_FIRST), signed(_SECOND)


def shift_of(bits: int) -> int:
    """How far `mix` folds the high half down: half the word, rounded up."""
    return (bits + 1) // 2


def mix_int(value: int, salt: int, bits: int = 64) -> int:
    """The definition: `value` mixed within `bits` bits, as a nonnegative integer."""
    mask, shift = (1 << bits) - 1, shift_of(bits)
    x = (value ^ salt) & mask
    x ^= x >> shift
    x = (x * _FIRST) & mask
    x ^= x >> shift
    x = (x * _SECOND) & mask
    x ^= x >> shift
    return x


def derive_salt(seed: int, *path: int) -> int:
    """A 64-bit salt from a seed and a path of small numbers, such as (field, lookup).

    Example:
        >>> derive_salt(0, 1) != derive_salt(0, 2) != derive_salt(1, 2)
        True
    """
    word = mix_int(seed & WORD, 0x9E3779B97F4A7C15)
    for step in path:
        word = mix_int((word + 0x9E3779B97F4A7C15 * (step + 1)) & WORD, 0xE7037ED1A0B428DB)
    return word


def field_salt(seed: int, name: str, *path: int) -> int:
    """A salt that follows from a field's name: other fields beside it change nothing.

    Example:
        >>> field_salt(0, "user", 1) != field_salt(0, "movie", 1)
        True
    """
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return derive_salt(seed, int.from_bytes(digest, "little"), *path)


def mix_torch(
    ids: Tensor, salt: Tensor, shift: Tensor | int, mask: Tensor | int, high: Tensor | int
) -> Tensor:
    """Mix int64 ids elementwise; all arguments broadcast.

    Args:
        ids: any int64.
        salt: the salt, int64.
        shift: `shift_of(bits)`.
        mask: `2**bits - 1` as int64 (-1 for 64 bits).
        high: `2**(bits - shift) - 1`, what is left of a word after a logical right shift.
    """
    x = low(ids ^ salt, mask)
    x = x ^ run_of(x, shift, high)
    x = low(x * FIRST, mask)
    x = x ^ run_of(x, shift, high)
    x = low(x * SECOND, mask)
    return x ^ run_of(x, shift, high)


def mix_numpy(ids: NDArray[np.int64], salt: int, bits: int = 64) -> NDArray[np.uint64]:
    """Mix an array of int64 ids; the result is unsigned."""
    mask, shift = np.uint64((1 << bits) - 1), np.uint64(shift_of(bits))
    x = (ids.view(np.uint64) ^ np.uint64(salt & WORD)) & mask
    x ^= x >> shift
    x = (x * np.uint64(_FIRST)) & mask
    x ^= x >> shift
    x = (x * np.uint64(_SECOND)) & mask
    return np.asarray(x ^ (x >> shift), dtype=np.uint64)


def int64(values: object) -> Tensor:
    """Python integers of up to 64 bits as an int64 tensor with the same bits."""
    array = np.array(values, dtype=object)
    flat = [signed(int(value)) for value in array.reshape(-1)]
    return torch.tensor(flat, dtype=torch.int64).reshape(array.shape)
