"""Fusions: how the `K` terms of a chunk become one piece of the vector.

Chunks are concatenated whatever the fusion; *concat* is the case of one term per chunk. Each
fusion knows how its pool starts, so that a vector's components have standard deviation `std`
whatever the number of terms.
"""

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from bitfold.address import Lookup, Program
from bitfold.address.constants import WithConstants
from bitfold.errors import unknown_name

FieldOf = Tensor | None
# Fresh weights are drawn alike whatever torch's default dtype and device.
HOST: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}


class Fusion(nn.Module):
    """Reduces pieces `[..., C, K, w]` to `[..., C, w]`; absent terms are passed as `present`."""

    name: str

    def forward(self, pieces: Tensor, present: Tensor | None, field: FieldOf = None) -> Tensor:
        """Fuse.

        Args:
            pieces: `[B, F, C, K, w]`, or `[T, C, K, w]` with the field of each id.
            present: bool `[F, C, K]` or `[T, C, K]`; None where every term is real.
            field: int64, the field of each id `[T]` or column `[F]`; None: columns in order.
        """
        raise NotImplementedError

    def starts(
        self, rows: int, program: Program, std: float, number: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Mean and deviation `[R]` of fresh rows of pool `number`, for components of `std`."""
        scales = torch.ones(rows, **HOST)
        for lookups, terms in zip(program.fields, program.terms, strict=True):
            for lookup in _of_pool(lookups, number):
                scales[lookup.base : lookup.base + lookup.span] = self.scale(std, terms)
        return torch.zeros(rows, **HOST), scales

    def reset_parameters(self) -> None:
        """Let what is learned beside the rows start afresh."""

    def scale(self, std: float, terms: int) -> float:
        """The deviation of one term's numbers when `terms` of them are fused."""
        raise NotImplementedError

    def share(self, field: int, terms: int) -> Tensor | None:
        """What each of a field's `terms` counts in a sum, as `[C, K]` or one number for all.

        None where terms are not added.
        """
        return None


def _of_pool(lookups: Sequence[Lookup], number: int) -> list[Lookup]:
    return [lookup for lookup in lookups if lookup.pool == number]


def _only(pieces: Tensor, present: Tensor | None, neutral: float) -> Tensor:
    if present is None:
        return pieces
    return pieces.masked_fill(~present.unsqueeze(-1), neutral)


class Sum(Fusion):
    """The sum of the terms."""

    name = "sum"

    def forward(self, pieces: Tensor, present: Tensor | None, field: FieldOf = None) -> Tensor:
        """Fuse."""
        if pieces.shape[-2] == 1:
            return pieces.squeeze(-2)
        return _only(pieces, present, 0.0).sum(-2)

    def scale(self, std: float, terms: int) -> float:
        """Variances add."""
        return std / math.sqrt(terms)

    def share(self, field: int, terms: int) -> Tensor:
        """All count 1."""
        return torch.ones(())


class Mean(Fusion):
    """The mean of the terms."""

    name = "mean"

    def forward(self, pieces: Tensor, present: Tensor | None, field: FieldOf = None) -> Tensor:
        """Fuse."""
        total = _only(pieces, present, 0.0).sum(-2)
        if present is None:
            return total / pieces.shape[-2]
        return total / present.sum(-1, keepdim=True).to(total.dtype)

    def scale(self, std: float, terms: int) -> float:
        """A mean of `K` has a `K`-th of the variance of one."""
        return std * math.sqrt(terms)

    def share(self, field: int, terms: int) -> Tensor:
        """Each counts a `K`-th."""
        return torch.tensor(1 / terms)


class Concat(Sum):
    """One term per chunk: the chunks alone make the vector."""

    name = "concat"


class Product(Fusion):
    """The elementwise product of the terms.

    The first term starts around zero and carries the deviation; the others start around one, so
    that every block's gradient is alive from the first step.
    """

    name = "product"
    spread = 0.1

    def forward(self, pieces: Tensor, present: Tensor | None, field: FieldOf = None) -> Tensor:
        """Fuse."""
        if pieces.shape[-2] == 1:
            return pieces.squeeze(-2)
        return reduce(torch.mul, _only(pieces, present, 1.0).unbind(-2))

    def scale(self, std: float, terms: int) -> float:
        """The deviation of the first term: what the others' spread adds is taken off."""
        return float(std / (1 + self.spread**2) ** ((terms - 1) / 2))

    def starts(
        self, rows: int, program: Program, std: float, number: int = 0
    ) -> tuple[Tensor, Tensor]:
        """The first slices start around zero, the others around one; a shared pool around zero.

        Where fields of different numbers of terms share rows, the deviation is `std` on average
        of its logarithm.
        """
        scales, means = torch.full((rows,), self.spread, **HOST), torch.ones(rows, **HOST)
        uses, shares, first = torch.zeros(3, rows, **HOST)
        for lookups, terms in zip(program.fields, program.terms, strict=True):
            for position, lookup in enumerate(lookups):
                if lookup.pool != number:
                    continue
                cells = slice(lookup.base, lookup.base + lookup.span)
                uses[cells] += 1
                shares[cells] += 1 / terms
                if position % terms == 0:
                    scales[cells], means[cells] = self.scale(std, terms), 0.0
                    first[cells] += 1
        alike = (first > 0) & (first < uses)  # one row plays both parts: all terms start alike
        scales[alike] = torch.pow(std, shares[alike] / uses[alike])
        means[alike] = 0.0
        return means, scales


class Weighted(WithConstants, Fusion):
    """A sum with one learned weight per lookup, starting at 1."""

    name = "weighted"
    places: Tensor

    def __init__(
        self,
        program: Program,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        with torch.inference_mode(False):  # it can be trained wherever it was built
            learned = torch.empty(program.lookups, device=device, dtype=dtype)
            self.importance = nn.Parameter(learned)
        position, rows = 0, []
        most = max(program.terms)
        for terms in program.terms:
            row = []
            for _ in range(program.chunks):
                row.append([*range(position, position + terms), *([0] * (most - terms))])
                position += terms
            rows.append(row)
        self._places = rows
        self.place_constants(device)

    def forward(self, pieces: Tensor, present: Tensor | None, field: FieldOf = None) -> Tensor:
        """Fuse."""
        places = self.places if field is None else self.places[field]
        weights = self.importance[places[..., : pieces.shape[-2]]]
        return (_only(pieces, present, 0.0) * weights.unsqueeze(-1)).sum(-2)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The weights are 1."""
        self.importance.fill_(1.0)

    def scale(self, std: float, terms: int) -> float:
        """As for a sum: the weights start at 1."""
        return std / math.sqrt(terms)

    def share(self, field: int, terms: int) -> Tensor:
        """What was learned."""
        return self.importance.detach()[self.places[field, :, :terms]]

    def _constants(self) -> dict[str, Tensor]:
        return {"places": torch.tensor(self._places)}


FUSIONS = ("sum", "mean", "product", "concat", "weighted")


def fusion_named(
    name: str,
    program: Program,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Fusion:
    """The fusion of that name for a program."""
    if name == "weighted":
        return Weighted(program, device=device, dtype=dtype)
    for kind in (Sum, Mean, Product, Concat):
        if kind.name == name:
            return kind()
    raise unknown_name("fusion", name, FUSIONS)
