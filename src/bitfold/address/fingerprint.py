"""Fingerprints: weights that come from a file, or from somebody's arithmetic, belong to an address.

A fingerprint is a digest of 64 bits that lies beside the weights in a state dict. Who averages
state dicts key by key averages it too: of models with one address it stays the same number, but
for rounding and for sums that left 64 bits. Of models with other addresses it becomes another.
"""

import hashlib
import json
from collections.abc import Sequence

import torch
from torch import Tensor

from bitfold.address.mixing import signed
from bitfold.address.program import Program
from bitfold.errors import BitfoldError

# What float32 arithmetic leaves of 24 bits: of one rounding, and of a sum over many models.
_ROUNDED, _SUMMED = 2.0**-22, 2.0**-18
_MOST = 64  # state dicts that are added up as integers and then divided


def fingerprint_of(program: Program, names: Sequence[str]) -> int:
    """A signed 64-bit digest of an address and of the fields that it is for.

    A program knows fields by their number: two of equal size change places without a trace in it.

    Args:
        program: the address.
        names: of its fields, in their order.
    """
    text = json.dumps([program.fingerprint, *names])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return signed(int.from_bytes(digest, "little"))


def check_fingerprint(got: Tensor, *expected: int) -> None:
    """Raise unless a fingerprint is an expected one, or an average of it with itself.

    Args:
        got: from a state dict; one value.
        expected: the module's own, and those that older versions gave it.

    Raises:
        BitfoldError: for the fingerprint of another address, an average over several addresses, or
            one that was rounded to 16 bits.

    Example:
        >>> check_fingerprint(torch.tensor(12345678901234567), 12345678901234567)
        >>> check_fingerprint(torch.tensor(12345678901234567) * 0.5 * 2, 12345678901234567)
    """
    if got.is_meta:
        return
    if got.numel() == 1:
        value = got.detach().cpu().reshape(())
        if any(_is_average(value, each) for each in expected):
            return
    raise BitfoldError(
        "these weights belong to another address: every row would be wrong",
        got=f"fingerprint {got.item() if got.numel() == 1 else list(got.shape)} ({got.dtype})",
        expected=f"fingerprint {expected[0]} (torch.int64)",
        fix="build the module from the plan that was saved with the weights; average state dicts "
        "of one plan alone, in float32 or float64, or leave integers as they are",
    )


def _is_average(got: Tensor, expected: int) -> bool:
    counts = range(1, _MOST + 1)
    if got.dtype == torch.int64:  # as it was, divided as integers, or written back from float32
        wholes = (signed(expected * count) // count for count in counts)
        value = int(got)
        return any(0 <= value - whole <= 1 for whole in wholes) or _near(value, expected, _ROUNDED)
    if got.dtype not in (torch.float32, torch.float64):
        return False
    number = float(got)
    sums = (signed(expected * count) / count for count in counts)
    return _near(number, expected, _SUMMED) or any(_near(number, each, _ROUNDED) for each in sums)


def _near(value: float, expected: float, bound: float) -> bool:
    return abs(value - expected) <= bound * abs(expected)
