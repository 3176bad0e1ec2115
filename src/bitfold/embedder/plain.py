"""The corridor in plain torch: on every device, in every type, under every transform of torch."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from bitfold.address import Address
from bitfold.address.words import exporting
from bitfold.embedder.ranges import guarded, spoiled
from bitfold.fuse.bags import by_field, check_offsets, placed, pool
from bitfold.kernels.choice import recorded

if TYPE_CHECKING:
    from bitfold.embedder.corridor import Corridor


def single(
    corridor: "Corridor", weight: Tensor, ids: Tensor, padding_idx: int | None, reads: bool
) -> Tensor:
    """Vectors `[B, F, w]` of ids `[B, F]`, before the head.

    Args:
        corridor: what runs.
        weight: that of its first pool.
        ids: int64.
        padding_idx: the id whose vector is zero; of a table that `reads` it, whatever is there.
        reads: whether the weight is the only field's table, a row an id.
    """
    bad = corridor.bad(ids)
    if exporting():
        found = _read(corridor, weight, guarded(ids, bad), None, reads)
        if padding_idx is not None and not reads:
            found = found.masked_fill((ids == padding_idx).unsqueeze(-1), 0.0)
        return spoiled(found, bad)
    found = _read(corridor, weight, ids, bad, reads, padding_idx)
    if padding_idx is None or reads:
        return found
    return found.masked_fill((ids == padding_idx).unsqueeze(-1), 0.0)


def _read(
    corridor: "Corridor",
    weight: Tensor,
    ids: Tensor,
    bad: Tensor | None,
    reads: bool,
    padding_idx: int | None = None,
) -> Tensor:
    if reads:
        return F.embedding(ids, weight, padding_idx, sparse=corridor.sparse)
    address: Address = corridor.address
    cells = _cells(corridor, ids, bad)
    factors = _factors(corridor, ids)
    if address.ragged:
        parts = _ragged(corridor, weight, cells, factors)
        found = torch.cat(parts, 1)[:, address.order]
    else:
        found = _fused(corridor, address, pieces(corridor, address, weight, cells[0]), factors)
    return found


def bags(
    corridor: "Corridor",
    weight: Tensor,
    ids: Tensor,
    offsets: Tensor,
    weights: Tensor | None,
    mode: str,
    padding_idx: int | None,
) -> Tensor:
    """Vectors `[B, F, w]` of bags, before the head; lifted ones of a maximum."""
    count = offsets.shape[0] - 1
    # A recording holds them against the ids when it is run; a compiler's graph asserts.
    if torch.compiler.is_compiling() or not recorded(offsets):
        check_offsets(offsets, ids.shape[0])
    bag, field = placed(offsets, ids.shape[0], corridor.num_fields)
    bad = corridor.bad(ids, field)
    if exporting():
        fused = spoiled(each(corridor, weight, guarded(ids, bad), field), bad)
    else:
        fused = each(corridor, weight, ids, field, bad)
    if mode == "max" and corridor.head is not None:
        fused = corridor.head(fused, field)
    keep = None if padding_idx is None else ids != padding_idx
    pooled = pool(fused, bag, count, mode, weights=weights, keep=keep)
    return by_field(pooled, corridor.num_fields)


def each(
    corridor: "Corridor", weight: Tensor, ids: Tensor, field: Tensor, bad: Tensor | None = None
) -> Tensor:
    """Vectors `[T, w]` of ids `[T]` with the field of each, before the head."""
    cells = corridor.address.cells(ids, field, corridor.stored.named())
    if bad is not None:
        cells = cells.masked_fill(bad[:, None, None], _outside(corridor))
    found = pieces(corridor, corridor.address, weight, cells, field)
    factors = _factors(corridor, ids, field)
    if factors is not None:
        found = found * factors.unsqueeze(-1)
    fused: Tensor = corridor.fuse(found, corridor.address.present(field), field)
    return fused.flatten(-2)


def pieces(
    corridor: "Corridor",
    address: Address,
    weight: Tensor,
    cells: Tensor,
    field: Tensor | None = None,
) -> Tensor:
    """Pieces `[..., C, K, w]` at cells `[..., C, K]` of an address, each from its lookup's pool."""
    if not corridor.more:
        only: Tensor = corridor.pool.at(weight, cells)
        return only
    whose = address.pools if field is None else address.pools[field]
    found: Tensor = corridor.pool.at(weight, cells.where(whose == 0, cells.new_zeros(())))
    for number, other in enumerate(corridor.pools()[1:], start=1):
        here = whose == number
        there = other.at(other.weight, cells.where(here, cells.new_zeros(())))
        found = torch.where(here.unsqueeze(-1), there, found)
    return found


def _factors(corridor: "Corridor", ids: Tensor, field: Tensor | None = None) -> Tensor | None:
    """What each piece is multiplied with `[..., C, K]`, its sign included; None for nothing."""
    factors, signs = corridor.factors(ids, field), corridor.address.signs(ids, field)
    if signs is None:
        return factors
    signs = signs.to(corridor.pool.dtype)
    return signs if factors is None else factors * signs


def _cells(corridor: "Corridor", ids: Tensor, bad: Tensor | None) -> list[Tensor]:
    """The cells of ids `[B, F]`, of fields of the same number of terms together.

    Cells of `bad` ids lie outside the pool.
    """
    address = corridor.address
    parts = list(address.parts) if address.ragged else [address]
    columns = [ids if part.columns is None else ids[:, part.columns] for part in parts]
    tables = corridor.stored.named()
    cells = [part.cells(each, None, tables) for part, each in zip(parts, columns, strict=True)]
    if bad is None:
        return cells
    outside = _outside(corridor)
    marks = [bad if part.columns is None else bad[:, part.columns] for part in parts]
    return [
        each.masked_fill(mark[..., None, None], outside)
        for each, mark in zip(cells, marks, strict=True)
    ]


def _outside(corridor: "Corridor") -> int:
    """A cell that no pool has."""
    return max(corridor.program.rows, *corridor.program.more_rows, 0)


def _ragged(
    corridor: "Corridor", weight: Tensor, cells: list[Tensor], factors: Tensor | None
) -> list[Tensor]:
    """Vectors of the fields, those of the same number of terms together: nothing is padded."""
    parts = list(corridor.address.parts)
    if corridor.more or not corridor.sparse:
        return [
            _fused(corridor, part, pieces(corridor, part, weight, each), factors)
            for part, each in zip(parts, cells, strict=True)
        ]
    # All rows at once: inductor cannot add up the sparse gradients of several lookups.
    counts = [each.shape[1:].numel() for each in cells]
    flat = torch.cat([each.flatten(1) for each in cells], 1)
    rows = torch.split(corridor.pool.at(weight, flat), counts, 1)
    return [
        _fused(corridor, part, row.reshape(*cell.shape, row.shape[-1]), factors)
        for part, cell, row in zip(parts, cells, rows, strict=True)
    ]


def _fused(corridor: "Corridor", address: Address, found: Tensor, factors: Tensor | None) -> Tensor:
    """Vectors of fields that all have the same number of terms."""
    if factors is not None:
        if address.columns is not None:
            factors = factors[:, address.columns, :, : found.shape[-2]]
        found = found * factors.unsqueeze(-1)
    fused: Tensor = corridor.fuse(found, None, address.columns)
    return fused.flatten(-2)
