"""Tensor trains: an id's digits each pick a slice of a core, and the slices are multiplied."""

from typing import Any

import torch
from torch import Tensor

from bitfold.address import Address
from bitfold.embedder.own import OwnEmbedder
from bitfold.errors import BitfoldError
from bitfold.planning.plan import Plan

CORES = 3


def core_widths(dim: int, first: int, second: int) -> tuple[int, int, int]:
    """Numbers of a slice of each core, `d1 r1`, `r1 d2 r2` and `r2 d3`, for ranks `r1` and `r2`.

    Example:
        >>> core_widths(16, 3, 5)
        (12, 30, 10)
    """
    a, b, c = factors(dim)
    return a * first, first * b * second, second * c


def factors(dim: int) -> tuple[int, int, int]:
    """`dim` as a product of three, as even as can be; the middle core, the largest, gets the least.

    Example:
        >>> factors(16), factors(6), factors(7)
        ((4, 2, 2), (3, 1, 2), (7, 1, 1))
    """
    found = [
        (a, b, dim // a // b)
        for a in range(1, dim + 1)
        if dim % a == 0
        for b in range(1, dim // a + 1)
        if dim // a % b == 0 and b <= dim // a // b <= a
    ]
    return min(found, key=sum)


class TensorTrain(OwnEmbedder):
    """Three cores for all fields, each field with slices of its own in them.

    Args:
        plan: one group, its address three digits an id, each with a pool.
        more: what `OwnEmbedder` takes.

    Shapes:
        int64 `[B, F]` -> slices `[d1, r1]`, `[r1, d2, r2]`, `[r2, d3]` of each id -> `[B, F, D]`.
    """

    multiplies = True

    def __init__(self, plan: Plan, **more: Any) -> None:
        super().__init__(plan, **more)
        widths = [spec.width for spec in plan.group.pools]
        self.splits = factors(plan.embedding_dim)
        self.ranks = widths[0] // self.splits[0], widths[-1] // self.splits[-1]
        if tuple(widths) != core_widths(plan.embedding_dim, *self.ranks):
            raise BitfoldError(
                "these cores make no vectors of the plan's width",
                got=f"slices of {widths} numbers, width {plan.embedding_dim}",
                expected=f"{list(core_widths(plan.embedding_dim, *self.ranks))}",
                fix="plan it again",
            )
        self.address = Address(plan.program, more.get("device"))
        self.reset_parameters()

    def vectors(self, ids: Tensor, field: Tensor | None = None) -> Tensor:
        """The product of the three slices that an id's digits pick."""
        cells = self.address.cells(ids, field, self.stored.named()).squeeze(-2)
        one, two, three = (core(cells[..., m]) for m, core in enumerate(self.pools()))
        (a, b, c), (first, second) = self.splits, self.ranks
        left = one.reshape(*ids.shape, a, first) @ two.reshape(*ids.shape, first, b * second)
        left = left.reshape(*ids.shape, a * b, second)
        found: Tensor = left @ three.reshape(*ids.shape, second, c)
        return found.flatten(-2)

    def draw(self, std: float, generator: torch.Generator) -> None:
        """Normal numbers: a component is a sum of `r1 r2` products of three of them."""
        first, second = self.ranks
        deviation = (std / (first * second) ** 0.5) ** (1 / CORES)
        for core in self.pools():
            noise = torch.randn(core.weight.shape, generator=generator, dtype=torch.float32)
            core.weight.copy_(noise * deviation)
