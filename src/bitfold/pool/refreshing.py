"""When centres and steps follow their weights: at some forwards of training, never in between.

Fresh weights move far in their first steps, so the first refreshes come early: at forwards 0, 1,
2, 4, 8, ..., then at every multiple of `every`. Under a compiler the same is an operator, since a
graph cannot depend on a number that it counts.
"""

import ctypes

import torch
from torch import Tensor

from bitfold.kernels.choice import looked_on, transformed
from bitfold.pool.rounding import scales_of
from bitfold.pool.sliced import runs_of

MOST_ROWS = 1 << 16
"""Rows of a slice that a refresh looks at: a walk over a large pool would cost more than a step."""


def due(forwards: int, every: int) -> bool:
    """Whether the steps are refreshed at this forward, counted from 0.

    Example:
        >>> [n for n in range(50) if due(n, 16)]
        [0, 1, 2, 4, 8, 16, 32, 48]
    """
    return forwards % every == 0 or (forwards < every and forwards & (forwards - 1) == 0)


@torch.no_grad()
def refresh(
    weight: Tensor, centres: Tensor, steps: Tensor | None, slices: tuple[int, ...], bits: int
) -> None:
    """Write the centres and steps that follow from a weight `[R, w]`, in place."""
    for number, (begin, end) in enumerate(runs_of(slices, len(weight))):
        # Of many rows some tell a mean and a deviation as well: every so many-th of them.
        apart = -(-(end - begin) // MOST_ROWS) or 1
        centre, step = scales_of(weight[begin:end:apart], bits)
        centres[number] = centre
        if steps is not None:
            steps[number] = step


def count_forward(
    weight: Tensor, centres: Tensor, steps: Tensor | None, forwards: Tensor,
    slices: tuple[int, ...], bits: int, every: int,
) -> None:  # fmt: skip
    """Count a forward of training, and refresh where it is due.

    Under `torch.func`'s transforms nothing is counted: a function may not write.
    """
    if weight.is_meta or transformed():
        return
    if looked_on():
        # Without a gradient by itself, and not by a mode: an exported graph would keep the mode.
        given = weight.detach(), centres, steps, forwards, slices, bits, every
        torch.ops.bitfold.count_forward(*given)
    elif forwards.is_cpu and type(forwards) is Tensor and forwards.dtype is torch.int64:
        # Two calls of torch cost as much as a lookup.
        there = ctypes.c_int64.from_address(forwards.data_ptr())
        number, there.value = there.value, there.value + 1
        if due(number, every):
            refresh(weight, centres, steps, slices, bits)
    else:
        _count(weight.detach(), centres, steps, forwards, slices, bits, every)


def _count(
    weight: Tensor, centres: Tensor, steps: Tensor | None, forwards: Tensor,
    slices: tuple[int, ...], bits: int, every: int,
) -> None:  # fmt: skip
    if due(int(forwards), every):
        refresh(weight, centres, steps, slices, bits)
    forwards += 1


_library = torch.library.Library("bitfold", "FRAGMENT")
_library.define(
    "count_forward(Tensor weight, Tensor(a!) centres, Tensor(b!)? steps, Tensor(c!) forwards, "
    "int[] slices, int bits, int every) -> ()"
)
_library.impl(
    "count_forward",
    lambda weight, centres, steps, forwards, slices, *rest: _count(
        weight, centres, steps, forwards, tuple(slices), *rest
    ),
    "CompositeExplicitAutograd",
)
torch.library.register_fake("bitfold::count_forward", lambda *given: None, lib=_library)
