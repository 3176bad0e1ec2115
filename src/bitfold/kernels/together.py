"""Lookups of several pools, their heads and whole tables beside them, as one node of autograd.

Where tables are small, a step is the nodes: each costs more than the rows that it reads. Vectors
are `[B, D]` of each field, tensors of their own, which whoever gets them may write to.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bitfold.kernels import ops
from bitfold.kernels.reading import Reading


@cache
def _kernels() -> Any:
    from bitfold.kernels import lookup

    return lookup


@cache
def _backward() -> Any:
    from bitfold.kernels.gradients import backward

    return backward


@cache
def _whole() -> Any:
    from bitfold.kernels import whole

    return whole


class Part(NamedTuple):
    """A lookup of single ids by the kernels.

    Args:
        given: a `Reading` as a plain tuple; no factors, bags or codes that are trained.
        head: `[f, w, D]` that lifts its `f` fields; None where vectors are `D` wide.
        sparse: whether the pool's gradient is that of the rows read alone.
    """

    given: tuple[Any, ...]
    head: Tensor | None
    sparse: bool

    @property
    def fields(self) -> int:
        """`f`."""
        return int(self.given[9])


class Beside(NamedTuple):
    """Whole tables that are read with the parts.

    Args:
        weights: float32 `[V, D]` each, one after another in memory.
        ids: int64 `[B, ...]`, a column for each table.
        columns: which column is whose.
        paddings: an id of each that learns nothing, or None.
        sparse: whether the gradient is that of the rows read alone.
    """

    weights: tuple[Tensor, ...]
    ids: Tensor
    columns: tuple[int, ...]
    paddings: tuple[int | None, ...]
    sparse: tuple[bool, ...]


def together(parts: Sequence[Part], beside: Beside | None) -> list[Tensor]:
    """Vectors `[B, D]` of all fields of the parts, part by part, then of the tables beside.

    Raises:
        IdOutOfRange: for an id that has no row.
        BitfoldError: for a tensor whose memory is not what the kernels read.
    """
    weights = [part.given[0] for part in parts]
    weights += [part.head for part in parts if part.head is not None]
    if beside is not None:
        weights += beside.weights
    if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
        apply: Any = _Together.apply
        return list(apply((tuple(parts), beside), *weights))
    return _read(parts, beside)[0]


def _read(parts: Sequence[Part], beside: Beside | None) -> tuple[list[Tensor], list[Tensor | None]]:
    """The vectors, and those of each part before its head."""
    forward = _kernels().forward
    columns: list[Tensor] = []
    narrow: list[Tensor | None] = []
    for part in parts:
        found, head = forward(part.given), part.head
        if head is None:
            columns += _own(found, 1) if part.fields > 1 else [found.squeeze(1)]
        else:
            columns += [found[:, f] @ head[f] for f in range(part.fields)]
        narrow.append(None if head is None else found)
    if beside is not None:
        columns += _whole().rows_of(beside)
    return columns, narrow


_own: Any = torch.unbind_copy


class _Together(torch.autograd.Function):
    """Vectors of parts and tables; the weights are arguments so that autograd sees them."""

    @staticmethod
    def forward(
        ctx: Any, given: tuple[tuple[Part, ...], Beside | None], *weights: Tensor
    ) -> tuple[Tensor, ...]:
        """Vectors, and what their gradient needs."""
        parts, beside = given
        columns, narrow = _read(parts, beside)
        ctx.set_materialize_grads(False)
        ctx.held, saved = [], list[Tensor | None]()
        for part, each in zip(parts, narrow, strict=True):
            reading = Reading._make(part.given)
            values = _kernels().needs_values(reading.packed, reading.fusion)
            held, kept = ops.Held.of(reading, None, values)
            ctx.held.append((held, len(kept), part.fields, part.sparse))
            saved += (*kept, each, part.head)
        ctx.beside = None
        if beside is not None:
            saved.append(beside.ids)
            ctx.beside = beside._replace(ids=beside.ids[:0])
            ctx.beside = ctx.beside._replace(weights=tuple(w.detach() for w in beside.weights))
        ctx.save_for_backward(*saved)
        return tuple(columns)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of the weights, in their order; None of what no vector was needed of."""
        with torch.no_grad():
            pools, heads, tables = _differentiated(ctx, grads)
        found = [*pools, *heads, *tables]
        if (
            torch.is_grad_enabled()
        ):  # a graph of the gradient is wanted, and refused once it is used
            sources = [each for each in grads if each is not None and each.requires_grad]
            once: Any = ops.Once.apply
            rest = iter(once(len(sources), *sources, *(v for _, v, _ in found if v is not None)))
            found = [(r, v if v is None else next(rest), t) for r, v, t in found]
        return None, *(
            values if rows is None or values is None else ops.of_rows(rows, values, table)
            for rows, values, table in found
        )


Found = tuple[Tensor | None, Tensor | None, Tensor]
"""The rows of a gradient that has some alone, its values, and of what it is."""


def _differentiated(
    ctx: Any, grads: Sequence[Tensor | None]
) -> tuple[list[Found], list[Found], list[Found]]:
    backward = _backward()
    saved, at, field = ctx.saved_tensors, 0, 0
    pools: list[Found] = []
    heads: list[Found] = []
    for held, count, fields, sparse in ctx.held:
        reading, _ = held.restored(saved[at : at + count])
        narrow, head = saved[at + count : at + count + 2]
        own, at, field = grads[field : field + fields], at + count + 2, field + fields
        there = next((each for each in own if each is not None), None)
        if there is None:
            pools.append((None, None, reading.pool))
            if head is not None:
                heads.append((None, None, head))
            continue
        filled = [torch.zeros_like(there) if each is None else each for each in own]
        if head is None:
            grad = torch.stack(filled, 1) if fields > 1 else filled[0].unsqueeze(1)
        else:
            lifted = torch.stack(filled) if fields > 1 else filled[0].unsqueeze(0)
            heads.append((None, torch.bmm(narrow.permute(1, 2, 0), lifted), head))
            grad = torch.bmm(lifted, head.transpose(1, 2)).transpose(0, 1)
        rows, values, _, _ = backward(grad, reading, None, sparse, False, False)
        pools.append((rows if sparse else None, values, reading.pool))
    tables = [] if ctx.beside is None else _whole().sums_of(ctx.beside, saved[at], grads[field:])
    return pools, heads, tables
