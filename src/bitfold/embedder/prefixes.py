"""Rows that keep the first of their numbers: a pool for each length, and of each id its class.

Source: Yan et al., "Learning Effective and Efficient Embedding via an
Adaptively-Masked Twins-based Layer" (AMTL), CIKM 2021, arXiv 2108.11513. How lengths are learned
is in `bitfold.embedder.twins`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bitfold.address.stored import gather_bits, pack_bits, unpack_bits
from bitfold.address.tables import StoredTables
from bitfold.address.words import exporting
from bitfold.embedder.contract import Embedder, Progress
from bitfold.embedder.own import OwnEmbedder
from bitfold.embedder.ranges import limits_of
from bitfold.planning.plan import Plan
from bitfold.planning.spec import PoolSpec
from bitfold.planning.statistics import Statistics
from bitfold.pool.moved import RowMove

CLASSES = "classes"
"""The stored table of the ids' classes: 0, or the number of a pool."""
REST = "rest"
"""The pool of a row for each field, which its ids of class 0 share."""
AT_ONCE = 1 << 18  # ids


def popularity(sizes: Sequence[int]) -> Tensor:
    """What ids in order of frequency are expected to occur, float64 `[V]`: Zipf in each field.

    Example:
        >>> popularity([2, 1]).tolist()
        [0.6666666666666666, 0.3333333333333333, 1.0]
    """
    parts = []
    for size in sizes:
        found = 1 / torch.arange(1, size + 1, dtype=torch.float64)
        parts.append(found / found.sum())
    return torch.cat(parts)


def dealt(order: Tensor, rows: Sequence[int]) -> Tensor:
    """Classes of ids, int64 `[V]`: the last class to the first ids of an order, and so on to 0.

    Args:
        order: int64 `[V]`, all ids.
        rows: how many ids have class 1, 2, ...

    Example:
        >>> dealt(torch.tensor([2, 0, 3, 1]), [2, 1]).tolist()
        [1, 0, 2, 1]
    """
    found, begin = torch.zeros(len(order), dtype=torch.int64), 0
    for number in range(len(rows), 0, -1):
        found[order[begin : begin + rows[number - 1]]] = number
        begin += rows[number - 1]
    return found


def row_cost(spec: PoolSpec, width: int) -> int:
    """Bytes of a row of so many numbers, kept as those of a pool; with `scale=row` its step too.

    Example:
        >>> row_cost(PoolSpec("pool", 1, 8), 4)
        16
        >>> row_cost(PoolSpec("pool", 1, 8, "q4", slices=(0,)), 3)
        2
    """
    by_row = 2 * (spec.packed and spec.scale == "row")
    return -(-width * spec.bits // 8) + by_row


class Classes(StoredTables):
    """The class of each id, and its place among the ids of its class.

    Places follow from classes: they take four bytes an id in memory, and none in the state dict.

    Args:
        ids: `V`.
        bits: of a class.
        count: how many classes there are beside 0.
        device: where they live.

    Example:
        >>> classes = Classes(5, 2, 3)
        >>> classes.put("classes", pack_bits(torch.tensor([3, 0, 1, 3, 3]), 2))
        >>> classes.places.tolist()
        [0, 0, 0, 1, 2]
    """

    places: Tensor

    def __init__(
        self, ids: int, bits: int, count: int, device: torch.device | str | None = None
    ) -> None:
        self.ids, self.bits, self.count = ids, bits, count
        super().__init__([(CLASSES, -(-ids * bits // 8))], device)
        self._refresh()

    def at(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Class and place of ids, int64 as their index; what is no class is class 0."""
        if exporting():  # a graph has the classes alone; runtimes decode them when they load it
            known = self.all()
            return known[index], self.ranks(known)[index].long()
        found = gather_bits(self._tables[CLASSES], self.bits, index)
        return found.masked_fill(found > self.count, 0), self.places[index].long()

    def all(self) -> Tensor:
        """The class of every id, int64 `[V]`."""
        found = unpack_bits(self._tables[CLASSES], self.bits, self.ids)
        return found.masked_fill(found > self.count, 0)

    def write(self, classes: Tensor) -> None:
        """Give every id its class, int64 `[V]`."""
        self.put(CLASSES, pack_bits(classes, self.bits))

    def put(self, name: str, table: Tensor) -> None:
        """Write the classes; places follow."""
        super().put(name, table)
        self._refresh()

    def ranks(self, classes: Tensor) -> Tensor:
        """The place of each id among those of its class, int32 `[V]`; 0 in class 0."""
        places = torch.zeros_like(classes, dtype=torch.int32)
        for number in range(1, self.count + 1):
            here = classes == number
            places = torch.where(here, here.cumsum(0, dtype=torch.int32) - 1, places)
        return places

    @torch.no_grad()
    def _refresh(self) -> None:
        with torch.inference_mode(False):
            self.places = self.ranks(self.all())

    def _apply(self, fn: Any, recurse: bool = True) -> "Classes":
        super()._apply(fn, recurse)
        self._refresh()
        return self

    def _load_from_state_dict(self, *how: Any) -> None:
        super()._load_from_state_dict(*how)
        self._refresh()


class PrefixRows(OwnEmbedder):
    """What both have: ids of all fields numbered one after another, and a shared row a field."""

    bases: Tensor

    def __init__(self, plan: Plan, **more: Any) -> None:
        self.sizes = limits_of(plan.fields)
        self.total = sum(self.sizes)
        self.lengths = tuple(each for each in plan.group.pools if each.name != REST)
        self.shares = len(self.lengths) < len(plan.group.pools)
        self.seen: Tensor | None = None
        super().__init__(plan, **more)

    def _constants(self) -> dict[str, Tensor]:
        bases = torch.tensor([0, *self.sizes[:-1]]).cumsum(0)
        return super()._constants() | {"bases": bases}

    def placed(self, ids: Tensor, field: Tensor | None) -> tuple[Tensor, Tensor]:
        """The number of each id among those of all fields, and its field, in the shape of ids."""
        if field is None:
            field = torch.arange(self.num_fields, device=ids.device).expand(ids.shape)
        return ids + self.bases[field], field

    def shared(self, field: Tensor) -> Tensor:
        """What ids of class 0 read, `[..., D]`."""
        if self.shares:
            found: Tensor = self.get_submodule(REST)(field)
            return found
        zeros = torch.zeros((), dtype=self.pools()[0].dtype, device=field.device)
        return zeros.expand(*field.shape, self.dim)

    def counted(self, stats: Statistics) -> Tensor:
        """How often each id occurs, int64 `[V]`."""
        every = zip(self.plan.fields, self.sizes, strict=True)
        parts = [stats.counts(field.name, np.arange(size)) for field, size in every]
        return torch.from_numpy(np.concatenate(parts))

    def draw(self, std: float, generator: torch.Generator) -> None:
        """Normal numbers."""
        for pool in self.pools():
            noise = torch.randn(pool.weight.shape, generator=generator, dtype=torch.float32)
            pool.weight.copy_(noise * (std * (self.dim / noise.shape[1]) ** 0.5))

    def ending_rows(self) -> tuple[Tensor, Tensor, Tensor | None] | None:
        """What a search ends with: lengths `[V]`, rows `[V, D]`, shared ones `[F, D]` if any."""
        return None

    def decides(self) -> Any:
        """Classes decide, which are saved, and the fields."""
        return ["prefixes", self.sizes]

    takes_rows = True


class Prefixes(PrefixRows):
    """A pool for each length; an id has a class, which is the number of its pool.

    Args:
        plan: one group: pools in ascending order of width, and the classes.
        more: what `OwnEmbedder` takes.

    Shapes:
        int64 `[B, F]` -> class and place -> `w` numbers of its pool, then zeros: `[B, F, D]`.
    """

    prepares = True
    stored: Classes

    def __init__(self, plan: Plan, **more: Any) -> None:
        super().__init__(plan, **more)
        self.stored = self.new_stored(more.get("device"))
        self.is_dealt = False
        self.reset_parameters()

    def new_stored(self, device: torch.device | str | None) -> Classes:
        """What tells the class of each id."""
        (spec,) = self.plan.group.stored
        return Classes(self.total, spec.bits, len(self.lengths), device)

    def by_length(self) -> list[Any]:
        """The pools of class 1, 2, ..."""
        return [self.get_submodule(spec.name) for spec in self.lengths]

    def vectors(self, ids: Tensor, field: Tensor | None = None) -> Tensor:
        """The row of each id, and zeros behind it."""
        index, field = self.placed(ids, field)
        number, place = self.stored.at(index)
        found = self.shared(field)
        for each, (pool, spec) in enumerate(zip(self.by_length(), self.lengths, strict=True), 1):
            here = number == each
            cells = place.masked_fill(~here, 0).clamp(max=spec.rows - 1)
            rows = F.pad(pool(cells), (0, self.dim - spec.width))
            found = torch.where(here.unsqueeze(-1), rows, found)
        return found

    def put_classes(self, classes: Tensor) -> None:
        """Give every id its class, int64 `[V]`."""
        self.stored.write(classes)
        self.is_dealt = True

    def draw(self, std: float, generator: torch.Generator) -> None:
        """Normal numbers; classes by the order of ids, where nothing better is known."""
        super().draw(std, generator)
        if not self.is_dealt:
            self.put_classes(self.first_classes())

    def first_classes(self) -> Tensor:
        """The class of each id where nobody has found one, int64 `[V]`: longer ones come first."""
        order = popularity(self.sizes).argsort(descending=True, stable=True)
        return dealt(order, [spec.rows for spec in self.lengths])

    def classes_of(self, widths: Tensor) -> Tensor:
        """The class of each id, of the width that it should have, int64 `[V]`."""
        own = torch.tensor([0, *(spec.width for spec in self.lengths)])
        return torch.searchsorted(own, widths)

    def prepare(self, stats: Statistics) -> None:
        """Take which ids training has."""
        self.seen = self.counted(stats) > 0

    @torch.no_grad()
    def maintain(self, at: Progress) -> Sequence[RowMove]:
        """Give shared rows that no training id reads the mean of the field's vectors."""
        if self.seen is None or not self.shares or not self.fills_unseen:
            return ()
        rest, classes = self.get_submodule(REST), self.stored.all().cpu()
        begin = 0
        for number, size in enumerate(self.sizes):
            known = self.seen[begin : begin + size]
            reads = known & (classes[begin : begin + size] == 0)
            begin += size
            if known.any() and not known.all() and not reads.any():
                device = self.bases.device
                ids = known.nonzero().squeeze(1).to(device)
                where = torch.full_like(ids, number)
                sums = torch.zeros(self.dim, dtype=torch.float64, device=device)
                for some in torch.split(ids, AT_ONCE):
                    sums += self.vectors(some, where[: len(some)]).double().sum(0)
                rest.put(where[:1], (sums / len(ids)).unsqueeze(0))  # type: ignore[operator]
        return ()

    @torch.no_grad()
    def take(self, classes: Tensor, rows: Tensor, rest: Tensor | None) -> None:
        """Take every id's class, int64 `[V]`, the first numbers of rows `[V, D]`, shared rows."""
        self.put_classes(classes)
        device = self.bases.device
        for number, (pool, spec) in enumerate(zip(self.by_length(), self.lengths, strict=True), 1):
            ids = (classes == number).nonzero().squeeze(1).to(device)
            pool.put(torch.arange(len(ids), device=device), rows[ids, : spec.width])
        if rest is not None:
            self.get_submodule(REST).put(torch.arange(len(rest), device=device), rest)  # type: ignore[operator]
        for pool in self.pools():
            pool.refresh()

    @torch.no_grad()
    def put_rows(self, field: int, chunks: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Write the vectors of a field's ids, each as far as its length reaches."""
        sums = torch.zeros(self.dim, dtype=torch.float64, device=self.bases.device)
        mass = 0.0
        for ids, vectors, weights in chunks:
            number, place = self.stored.at(self.placed(ids, torch.full_like(ids, field))[0])
            for each, (pool, spec) in enumerate(
                zip(self.by_length(), self.lengths, strict=True), 1
            ):
                here = number == each
                pool.put(place[here], vectors[here, : spec.width])
            here = number == 0
            sums += (vectors[here].double() * weights[here, None]).sum(0)
            mass += float(weights[here].sum())
        self._put_shared(field, sums, mass)

    def _put_shared(self, field: int, sums: Tensor, mass: float) -> None:
        if self.shares and mass:
            where = torch.tensor([field], device=sums.device)
            self.get_submodule(REST).put(where, (sums / mass).unsqueeze(0))  # type: ignore[operator]
        for pool in self.pools():
            pool.refresh()

    def inherit(self, before: Embedder) -> None:
        """Take the lengths that the search has found, and the rows that it has trained."""
        found = before.ending_rows() if isinstance(before, PrefixRows) else None
        if found is not None:
            widths, rows, rest = found
            self.take(self.classes_of(widths), rows, rest)
