"""One field of an embedder, as an embedder of its own that reads the same numbers.

Tables of a model that share a budget share pools; whoever calls them one by one reads a column of
the embedder that has them all.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bitfold.address.program import Program
from bitfold.embedder.contract import Embedder
from bitfold.embedder.corridor import Corridor
from bitfold.embedder.grouped import Grouped
from bitfold.embedder.head import Head
from bitfold.embedder.ranges import as_int64, guarded, spoiled
from bitfold.fuse.bags import bags_of, check_bags, check_offsets, pool
from bitfold.kernels.choice import recorded, transformed
from bitfold.planning.field import check_columns
from bitfold.planning.plan import Plan


def column(embedder: Embedder, field: int) -> Embedder:
    """Field `field` of an embedder: same numbers, no parameter of its own.

    Example:
        >>> from bitfold import EmbeddingCollection, Field
        >>> both = EmbeddingCollection([Field("a", 50), Field("b", 90)], 8, budget="2x").embedder
        >>> ids = torch.tensor([[3, 80]])
        >>> torch.equal(column(both, 1)(ids[:, 1:]), both(ids)[:, 1:])
        True
    """
    if isinstance(embedder, Grouped):
        group = next(n for n, each in enumerate(embedder.plan.groups) if field in each.fields)
        part: Any = embedder.parts[group]
        return column(part, embedder.plan.groups[group].fields.index(field))
    # A subclass keeps more of its fields than its pools and head.
    if type(embedder) is Corridor and not embedder.weighted:
        return _CorridorColumn(embedder, field)
    return _Column(embedder, field)


def column_plan(plan: Plan, field: int) -> Plan:
    """A plan of one field, whose pools are those of all."""
    number = next(n for n, each in enumerate(plan.groups) if field in each.fields)
    part = plan.part(number)
    group, place = part.group, plan.groups[number].fields.index(field)
    program = group.program
    if program is not None:
        program = Program(program.chunks, (program.fields[place],), program.rows, program.more_rows)
    return Plan(
        fields=(plan.fields[field],),
        embedding_dim=plan.embedding_dim,
        budget=None,
        method=plan.method,
        options=plan.options,
        groups=(replace(group, fields=(0,), program=program),),
        phase=plan.phase,
    )


class _CorridorColumn(Corridor):
    """A corridor of one field, whose pools, tables and head are another's."""

    def __init__(self, whole: Corridor, field: int) -> None:
        super().__init__(
            column_plan(whole.plan, field),
            std=whole.std,
            device="meta",
            low_precision=whole.low_precision,
        )
        for name in whole.pool_names:
            self._modules[name] = whole._modules[name]
        self.stored = whole.stored
        if whole.head is not None:
            self.head = HeadColumn(whole.head, field)
        self.limits = whole.limits[field : field + 1]
        self.training = whole.training
        self.whole = (whole,)  # not as a submodule: its parameters are there once

    def check_maps(self) -> None:
        """Those of the whole."""
        self.whole[0].check_maps()

    def _way(self, weight: Tensor) -> int:
        """The whole knows whether it is trained: nobody sets that of a column."""
        self.training = self.whole[0].training
        return super()._way(weight)


class HeadColumn(Head):
    """The matrix of one field of a head that has those of all."""

    def __init__(self, head: Head, field: int) -> None:
        nn.Module.__init__(self)
        self.head, self.field = (head,), field

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The matrix `[1, w, D]`."""
        return self.head[0].weight[self.field : self.field + 1]


class _Column(Embedder):
    """A column of any embedder, by torch's own operations around its `vectors`."""

    def __init__(self, whole: Embedder, field: int) -> None:
        super().__init__()
        self.plan, self.field = column_plan(whole.plan, field), field
        self.whole = (whole,)

    def forward(self, ids: Tensor, padding_idx: int | None = None) -> Tensor:
        """Vectors `[B, 1, D]` of ids `[B, 1]`."""
        ids = as_int64(ids)
        check_columns(ids.shape, 1)
        found = self._read(ids.reshape(-1))
        if padding_idx is not None:
            found = found.masked_fill((ids == padding_idx), 0.0)
        return found.unsqueeze(1)

    def forward_bags(
        self,
        ids: Tensor,
        offsets: Tensor,
        weights: Tensor | None = None,
        mode: str = "sum",
        padding_idx: int | None = None,
    ) -> Tensor:
        """Vectors `[B, 1, D]` of bags."""
        check_bags(ids, offsets, weights, mode, 1)
        ids, offsets = as_int64(ids), offsets.long()
        if torch.compiler.is_compiling() or not recorded(offsets):
            check_offsets(offsets, ids.shape[0])
        keep = None if padding_idx is None else ids != padding_idx
        bag = bags_of(offsets, ids.shape[0])
        found = self._read(ids)
        pooled = pool(found, bag, offsets.shape[0] - 1, mode, weights=weights, keep=keep)
        return pooled.unsqueeze(1)

    def vectors(self, ids: Tensor, field: Tensor) -> Tensor:
        """Vectors `[T, D]` of ids that are in range."""
        return self.whole[0].vectors(ids, torch.full_like(field, self.field))

    def _read(self, ids: Tensor) -> Tensor:
        whole: Any = self.whole[0]
        field = torch.full_like(ids, self.field)
        whole.check_maps()
        bad = whole.bad(ids, field)
        found: Tensor = spoiled(whole.vectors(guarded(ids, bad), field), bad)
        untold = torch.compiler.is_compiling() or transformed()  # as in `watching.watch`
        if whole.observes and found.requires_grad and not untold:
            seen: Any = found
            seen.register_hook(partial(_seen, whole, ids, field))
        return found


@torch.no_grad()
def _seen(whole: Embedder, ids: Tensor, field: Tensor, grad: Tensor | None) -> None:
    if grad is not None:
        whole.observe(ids, field, grad)
