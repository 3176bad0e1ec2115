"""Rows of several precisions: a pool for each, and of each group of ids which pool it reads.

Source: Li et al., "Mixed-Precision Embeddings for Large-Scale Recommendation Models" (MPE), 2024,
arXiv 2409.20305. How precisions are searched is in `bitfold.embedder.precision_search`.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bitfold.address.stored import gather_bits, pack_bits
from bitfold.address.words import place_in
from bitfold.embedder.contract import Embedder, Progress
from bitfold.embedder.prefixes import AT_ONCE, CLASSES, REST, Classes, PrefixRows
from bitfold.kernels.choice import recorded, transformed
from bitfold.planning.plan import Plan
from bitfold.planning.statistics import Statistics
from bitfold.pool.moved import RowMove


def borders(size: int, groups: int, spread: float) -> list[int]:
    """Where the groups of a field's ids begin and end, most frequent ids first.

    Args:
        size: ids of the field.
        groups: how many there are at most.
        spread: they end at `size * (k / groups) ** spread`; 1: all are of one size.

    Example:
        >>> borders(100, 4, 2.0), borders(100, 4, 1.0), borders(2, 4, 2.0)
        ([0, 6, 25, 56, 100], [0, 25, 50, 75, 100], [0, 1, 2])
    """
    return sorted({round(size * (each / groups) ** spread) for each in range(groups + 1)})


def groups_of(sizes: Sequence[int], groups: int, spread: float) -> list[int]:
    """How many ids each group of all fields has.

    Example:
        >>> groups_of([100, 2], 4, 2.0)
        [6, 19, 31, 44, 1, 1]
    """
    return [b - a for size in sizes for a, b in pairwise(borders(size, groups, spread))]


class GroupClasses(Classes):
    """The class of each group of ids that lie one after another; an id's place follows.

    Args:
        sizes: ids of each group.
        bits: of a class.
        count: how many classes there are beside 0.
        device: where they live.

    Example:
        >>> classes = GroupClasses([2, 3, 1], 1, 1)
        >>> classes.put("classes", pack_bits(torch.tensor([1, 0, 1]), 1))
        >>> [each.tolist() for each in classes.at(torch.arange(6))]
        [[1, 1, 0, 0, 0, 1], [0, 1, 0, 1, 2, 2]]
    """

    def __init__(
        self,
        sizes: Sequence[int],
        bits: int,
        count: int,
        device: torch.device | str | None = None,
    ) -> None:
        self.sizes = list(sizes)
        super().__init__(len(self.sizes), bits, count, device)

    def at(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Class and place of ids, int64 as their index."""
        group = place_in(index, self.begins) - 1
        found = gather_bits(self._tables[CLASSES], self.bits, group)
        found = found.masked_fill(found > self.count, 0)
        return found, self.places[group] + index - self.begins[group]

    @torch.no_grad()
    def _refresh(self) -> None:
        with torch.inference_mode(False):
            found = self.all()
            sizes = torch.tensor(self.sizes, device="cpu").to(found.device)
            self.begins = sizes.cumsum(0) - sizes
            places = torch.zeros_like(sizes)
            for number in range(self.count + 1):
                here = found == number
                mine = torch.where(here, sizes, 0)
                places = torch.where(here, mine.cumsum(0) - mine, places)
            self.places = places


class PrecisionRows(PrefixRows):
    """What rows and their search share: groups of ids, by the order of ids or by their counts.

    Args:
        plan: one group.
        sizes: ids of each group of all fields, most frequent ids of each field first.
        chosen: the class of each group: 0, or the number of a pool.
        counted: whether the order is that of the counts, and not that of the ids.
        more: what `OwnEmbedder` takes.
    """

    begins: Tensor

    def __init__(
        self, plan: Plan, *, sizes: Sequence[int], chosen: Sequence[int], counted: bool, **more: Any
    ) -> None:
        self.group_sizes, self.chosen, self.by_counts = list(sizes), list(chosen), counted
        super().__init__(plan, **more)

    def _constants(self) -> dict[str, Tensor]:
        sizes = torch.tensor(self.group_sizes)
        return super()._constants() | {"begins": sizes.cumsum(0) - sizes}

    def ranks(self, counts: Tensor) -> Tensor:
        """Where each id would be if ids of a field were in order of their counts, int64 `[V]`."""
        parts, begin = [], 0
        for part in torch.split(counts, list(self.sizes)):
            order = part.argsort(descending=True, stable=True)
            rank = torch.empty_like(order)
            rank[order] = torch.arange(begin, begin + len(part))
            parts.append(rank)
            begin += len(part)
        return torch.cat(parts)

    def groups_at(self, ranks: Tensor) -> Tensor:
        """The group of each rank."""
        return torch.bucketize(ranks, self.begins.to(ranks.device), right=True) - 1

    def decides(self) -> Any:
        """Classes decide, which are saved, and what they are of."""
        return ["precisions", self.sizes, None if self.by_counts else self.group_sizes]


class Precisions(PrecisionRows):
    """A pool for each precision; a group of ids has a class, which is the number of its pool.

    Args:
        carries: whether the rows of the search are gone on with.
        plan, sizes, chosen, counted, more: as in `PrecisionRows`.

    Shapes:
        int64 `[B, F]` -> class and place -> rows of pools: `[B, F, D]`.
    """

    prepares = True
    stored: Classes

    def __init__(self, plan: Plan, *, carries: bool = False, **more: Any) -> None:
        super().__init__(plan, **more)
        (spec,) = plan.group.stored
        how = spec.bits, len(self.lengths), more.get("device")
        self.carries, self.is_dealt = carries, False
        made = Classes(self.total, *how) if self.by_counts else GroupClasses(self.group_sizes, *how)
        self.stored = made
        self.reset_parameters()

    def by_class(self) -> list[Any]:
        """The pools of class 1, 2, ..."""
        return [self.get_submodule(spec.name) for spec in self.lengths]

    def vectors(self, ids: Tensor, field: Tensor | None = None) -> Tensor:
        """The row of each id, of its group's precision."""
        index, field = self.placed(ids, field)
        number, place = self.stored.at(index)
        if torch.compiler.is_compiling() or recorded(number) or transformed() or number.is_meta:
            return self._masked(number, place, field)
        number, place, field = number.flatten(), place.flatten(), field.flatten()
        parts, where = list[Tensor](), list[Tensor]()
        if self._has_rest():
            where.append((number == 0).nonzero().squeeze(1))
            parts.append(self.shared(field[where[0]]))
        for each, pool in enumerate(self.by_class(), 1):
            where.append((number == each).nonzero().squeeze(1))
            parts.append(pool(place[where[-1]]))
        rows = torch.cat(parts)
        found = torch.empty_like(rows).index_copy(0, torch.cat(where), rows)
        return found.reshape(*index.shape, self.dim)

    def _masked(self, number: Tensor, place: Tensor, field: Tensor) -> Tensor:
        """All pools' rows, of which one counts: no shape follows from ids."""
        found: Tensor | None = self.shared(field) if self._has_rest() else None
        for each, (pool, spec) in enumerate(zip(self.by_class(), self.lengths, strict=True), 1):
            here = number == each
            rows = pool(place.masked_fill(~here, 0).clamp(max=spec.rows - 1))
            found = rows if found is None else torch.where(here.unsqueeze(-1), rows, found)
        assert found is not None, "there is a pool"
        return found

    def _has_rest(self) -> bool:
        """Whether ids may have class 0."""
        return self.shares or 0 in self.chosen

    def deal(self, ranks: Tensor | None = None) -> None:
        """Give groups, or ids by their ranks, the classes that were chosen."""
        classes = torch.tensor(self.chosen, device="cpu")
        if self.by_counts:
            every = torch.arange(self.total, device="cpu") if ranks is None else ranks
            classes = classes[self.groups_at(every)]
        self.stored.put(CLASSES, pack_bits(classes, self.stored.bits))

    def draw(self, std: float, generator: torch.Generator) -> None:
        """Normal numbers; classes by the order of ids, where nothing better is known."""
        super().draw(std, generator)
        if not self.is_dealt:
            self.deal()

    def prepare(self, stats: Statistics) -> None:
        """Take which ids training has; where counts decide, and nothing is trained, whose class."""
        counts = self.counted(stats)
        self.seen = counts > 0
        fresh = not any(int(pool.forwards) for pool in self.pools() if hasattr(pool, "forwards"))
        if self.by_counts and fresh and not self.is_dealt:
            self.deal(self.ranks(counts))

    @torch.no_grad()
    def maintain(self, at: Progress) -> Sequence[RowMove]:
        """Give rows that no training id reads the mean of the field's vectors."""
        if self.seen is None or not self.fills_unseen:
            return ()
        device, begin = self.bases.device, 0
        for number, size in enumerate(self.sizes):
            known = self.seen[begin : begin + size]
            begin += size
            if bool(known.any()) and not bool(known.all()):
                ids = known.nonzero().squeeze(1).to(device)
                total = torch.zeros(self.dim, dtype=torch.float64, device=device)
                for some in torch.split(ids, AT_ONCE):
                    total += self.vectors(some, torch.full_like(some, number)).double().sum(0)
                unseen = (~known).nonzero().squeeze(1).to(device)
                index = self.placed(unseen, torch.full_like(unseen, number))[0]
                mean = (total / len(ids)).expand(len(unseen), -1)
                read = self.stored.at(self.placed(ids, torch.full_like(ids, number))[0])[0] == 0
                self.put(index, mean)
                if self.shares and not bool(read.any()):
                    self.put_shared(number, mean[0])
        return ()

    def put(self, index: Tensor, vectors: Tensor) -> Tensor:
        """Write the rows of ids, those that have their own; returns which have none."""
        number, place = self.stored.at(index)
        for each, pool in enumerate(self.by_class(), 1):
            here = number == each
            pool.put(place[here], vectors[here])
        return number == 0

    def put_shared(self, field: int, vector: Tensor) -> None:
        """Write the row that ids of class 0 share."""
        where = torch.tensor([field], device=vector.device)
        self.get_submodule(REST).put(where, vector.unsqueeze(0))  # type: ignore[operator]

    @torch.no_grad()
    def take(self, rows: Tensor, rest: Tensor | None) -> None:
        """Take the rows `[V, D]` of all ids, and those that ids of class 0 share, `[F, D]`."""
        device = self.bases.device
        for index in torch.split(torch.arange(self.total, device=device), AT_ONCE):
            self.put(index, rows[index].to(device))
        if rest is not None and self.shares:
            for number in range(len(self.sizes)):
                self.put_shared(number, rest[number].to(device))
        for pool in self.pools():
            pool.refresh()

    @torch.no_grad()
    def put_rows(self, field: int, chunks: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Write the vectors of a field's ids; those of class 0 share their mean."""
        total = torch.zeros(self.dim, dtype=torch.float64, device=self.bases.device)
        mass = 0.0
        for ids, vectors, weights in chunks:
            lost = self.put(self.placed(ids, torch.full_like(ids, field))[0], vectors)
            total += (vectors[lost].double() * weights[lost, None]).sum(0)
            mass += float(weights[lost].sum())
        if self.shares and mass:
            self.put_shared(field, total / mass)
        for pool in self.pools():
            pool.refresh()

    def inherit(self, before: Embedder) -> None:
        """Take the order of ids that the search has found, and its rows where they go on."""
        if not isinstance(before, PrecisionRows):
            return
        found = before.ending_rows()
        if found is not None:
            ranks, rows, rest = found
            self.deal(ranks)
            self.is_dealt = True
            if self.carries:
                self.take(rows, rest)


def zipf(sizes: Sequence[int], parts: Sequence[int]) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """How frequent an id of each group is, by Zipf's law in each field, float64 `[G]`.

    Args:
        sizes: ids of each field.
        parts: ids of each group, field by field.
    """
    found, field, begin = [], 0, 0
    for part in parts:
        end = begin + part
        total = harmonic(sizes[field])
        found.append((harmonic(end) - harmonic(begin)) / total / part)
        begin = end
        if end == sizes[field]:
            field, begin = field + 1, 0
    return np.array(found)


def harmonic(number: int) -> float:
    """`1 + 1/2 + ... + 1/n`, to a thousandth."""
    if not number:
        return 0.0
    return float(np.log(number + 0.5)) + 0.5772156649015329 + 1 / (24 * (number + 0.5) ** 2)
