"""Codes of numbers, rounded by chance: what lies between two levels goes to either.

A number a third of the way from one level to the next goes to the next one in a third of the cases,
so its code's value is the number on average. The chance of a number follows from its row, its
column and how many moves there were, and from nothing else: not from the order of rows, the
threads or the device.
"""

import torch
from torch import Tensor

from bitfold.address.mixing import signed
from bitfold.kernels.reading import APART, MIX, ODD, TURNS
from bitfold.pool.rounding import lowest_of

_ODD, _MIX = signed(ODD), signed(MIX)
_WORD = 0xFFFFFFFF
_UNITS = 1 << 24  # a float32 has all of these


def chances(rows: Tensor, width: int, moves: int) -> Tensor:
    """A number from 0 to below 1 for each column of each row `[n]`: float32 `[n, w]`.

    Example:
        >>> drawn = chances(torch.arange(1000), 16, moves=3)
        >>> round(drawn.mean().item(), 2), bool((drawn < 1).all())
        (0.5, True)
    """
    columns = torch.arange(width, device=rows.device)
    mixed = rows * _ODD + signed(moves * MIX)  # as an int64 wraps around
    for _ in range(2):
        mixed = (mixed ^ (mixed >> 32 & _WORD)) * _MIX
    drawn = ((mixed >> 32).unsqueeze(-1) + columns * APART) & _WORD
    for down, factor in TURNS:
        drawn = (drawn ^ (drawn >> down)) * factor & _WORD
    return ((drawn ^ (drawn >> 16)) >> 8).float() / _UNITS


def codes_by_chance(
    numbers: Tensor, centre: Tensor, step: Tensor, bits: int, rows: Tensor, moves: int
) -> Tensor:
    """The codes of finite numbers `[n, w]`, uint8: those beyond the last level get the last one.

    Args:
        numbers: float32.
        centre, step: float16 `[n, w]` or `[w]`.
        bits: of a code.
        rows: int64 `[n]`, where the numbers belong.
        moves: how many moves there were.

    Example:
        >>> numbers, half = torch.full((1000, 1), 0.2), torch.tensor([0.0], dtype=torch.half)
        >>> codes = codes_by_chance(numbers, half, half + 1, 2, torch.arange(1000), moves=0)
        >>> codes.unique().tolist(), round(codes.float().mean().item(), 1)
        ([1, 2], 1.7)
    """
    step = step.float()
    inverse = torch.where(step > 0, 1 / step, 0.0)
    steps = (numbers - lowest_of(centre, step, bits)) * inverse
    drawn = (steps + chances(rows, numbers.shape[-1], moves)).floor()
    return drawn.clamp(0, (1 << bits) - 1).to(torch.uint8)
