"""Words of 64 bits in torch, whose integers are signed: written once, spelled in two ways.

*Eager*: torch's shifts, whose sign bits are masked off: the quickest there is.

*Export form*, while `export_form` holds: what all runtimes of exported graphs compute rightly. One
or the other has no right shift, or is wrong in `//` or `%` of negative numbers; some divide by way
of floats, and ONNX Runtime adds up a dimension of int64 in doubles. So the sign bit is cleared
first; then there is nothing but `//` and `%` of numbers that are not negative, `^`, `&`, `+`, `-`,
wrapping `*`, comparisons, and reads of small tables.

Both are the same to the bit, for every int64.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar, overload

import torch
from torch import Tensor

MOST = (1 << 63) - 1
_LEAST = -(1 << 63)
_POWERS = [*(1 << by for by in range(63)), _LEAST]
_exporting: ContextVar[bool] = ContextVar("bitfold_export_form", default=False)
Word = TypeVar("Word", int, Tensor)


def exporting() -> bool:
    """Whether operations are written in their export form; never within `torch.compile`."""
    return not torch.compiler.is_dynamo_compiling() and _exporting.get()


@contextmanager
def export_form() -> Iterator[None]:
    """Within this, and in this thread alone, operations are written in their export form.

    Example:
        >>> word = torch.tensor([-1, 5])
        >>> with export_form():
        ...     found = run_of(word, 60, 15)
        >>> found.tolist(), run_of(word, 60, 15).tolist()
        ([15, 0], [15, 0])
    """
    token = _exporting.set(True)
    try:
        yield
    finally:
        _exporting.reset(token)


def run_of(word: Word, first: Tensor | int, mask: Tensor | int) -> Word:
    """The bits of words from bit `first` on that a mask of `2**n - 1` leaves: a logical shift.

    Args:
        word: any int64.
        first: 0 to 63.
        mask: `2**n - 1` as int64, -1 for 64 bits; at most `64 - first` of them are ones.
    """
    if not exporting() or not isinstance(word, Tensor):
        return (word >> first) & mask  # type: ignore[return-value]
    if isinstance(first, int) and not 0 < first < 63:
        found = word if first == 0 else (word < 0).long()
        return low(found, mask)
    divisor: Tensor | int
    top: Tensor | int
    clear: Tensor | int = MOST
    if isinstance(first, int):
        divisor, top = 1 << first, _POWERS[63 - first]
    else:
        divisor = _read([*_POWERS[:63], _POWERS[62]], first)
        top = _read(_POWERS[::-1], first)
        clear = _read([MOST] * 63 + [0], first)
    found = (word & clear) // divisor
    if not isinstance(top, int) or not isinstance(mask, int) or mask & top:
        found = found + torch.where(word < 0, top, 0)
    ints = isinstance(first, int) and isinstance(mask, int)
    return found if ints and mask == (1 << 64 - first) - 1 else found & mask


def low(word: Tensor, mask: Tensor | int) -> Tensor:
    """The lowest bits of words, as many as a mask has; -1 leaves all."""
    return word if isinstance(mask, int) and mask == -1 else word & mask


def down(word: Word, by: Tensor | int) -> Word:
    """Words that are not negative, shifted right by 0 to 62 bits."""
    if not exporting() or not isinstance(word, Tensor):
        return word >> by  # type: ignore[return-value]
    return word // power(by)


def up(word: Word, by: Tensor | int) -> Word:
    """Words shifted left by 0 to 63 bits; what leaves the upper end is lost."""
    if not exporting() or not isinstance(word, Tensor):
        return word << by  # type: ignore[return-value]
    return word if isinstance(by, int) and by == 0 else word * power(by)


def quotient(word: Tensor, by: Tensor | int) -> Tensor:
    """The whole quotient of numbers from 0 on and of a divisor from 1 on."""
    return (word & MOST) // by if exporting() else word // by


def remainder(word: Tensor, by: Tensor | int) -> Tensor:
    """What such a division leaves."""
    return (word & MOST) % by if exporting() else word % by


def total(words: Tensor) -> Tensor:
    """The sum over the last dimension, `[..., n]` of `n` from 1 on; it wraps."""
    if not exporting():
        return words.sum(-1)
    while (count := words.shape[-1]) > 1:
        half = count // 2
        rest = words[..., 2 * half :]
        words = torch.cat([words[..., :half] + words[..., half : 2 * half], rest], -1)
    return words.squeeze(-1)


@overload
def power(of: Tensor) -> Tensor: ...
@overload
def power(of: int) -> int: ...
def power(of: Tensor | int) -> Tensor | int:
    """Two to a power of 0 to 63, as the int64 with that bit; of 64 in a tensor nothing is left."""
    if isinstance(of, int):
        return _POWERS[of]
    return _read([*_POWERS, 0], of) if exporting() else 1 << of


def place_in(values: Tensor, bounds: Tensor) -> Tensor:
    """How many of the ascending `bounds` `[n]` are at most as large as each value: int64.

    Example:
        >>> place_in(torch.tensor([0, 4, 5, 9]), torch.tensor([0, 5, 9])).tolist()
        [1, 1, 2, 3]
    """
    if not exporting():
        return torch.bucketize(values, bounds, right=True)
    count = bounds.shape[0]
    found = torch.zeros_like(values, dtype=torch.int64)
    for step in reversed([1 << bit for bit in range(count.bit_length())]):
        tried = found + step
        here = bounds[tried.clamp(max=count) - 1]
        found = torch.where((tried <= count) & (here <= values), tried, found)
    return found


def _read(table: list[int], at: Tensor) -> Tensor:
    return torch.tensor(table, device=at.device)[at]
