"""Product quantization that is learned: full rows choose centroids, and only the choice is served.

Source: Chen, Li, Sun, "Differentiable Product Quantization for End-to-End Embedding Compression"
(DPQ), ICML 2020, arXiv 1908.09756, the form of vector quantization. Tiers: Kang, Cheng, Chen, Yi,
Lin, Hong, Chi, "Learning Multi-granular Quantized Embeddings for Large-Vocab Categorical Features
in Recommender Systems" (MGQE), WWW 2020 companion, arXiv 2002.08530.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitfold.address import Address, Stored
from bitfold.address.stored import gather_bits, pack_bits
from bitfold.address.words import down, power, up
from bitfold.embedder.contract import Progress
from bitfold.embedder.corridor import Corridor
from bitfold.embedder.group import GroupEmbedder
from bitfold.embedder.own import OwnEmbedder
from bitfold.embedder.preparing import unseen_places
from bitfold.fuse.fusion import HOST
from bitfold.kernels.choice import recorded
from bitfold.planning.plan import Plan
from bitfold.planning.spec import StoredSpec
from bitfold.planning.statistics import Statistics
from bitfold.pool.dense import DensePool
from bitfold.pool.moved import RowMove

_AT_ONCE = 1 << 24  # distances


@dataclass(frozen=True)
class Quantized:
    """How a field's ids are quantized, as the plan says it.

    Args:
        field: its number.
        source: where the first chunk's pointers stand; `of` says which of them is an id's.
        chunks: `C`.
        centroids: `K` of a chunk; those of all chunks are rows `base..base + C * K - 1`.
        base: the first of them.
        at: the first of its ids' rows among the queries.
        popular: how many ids may choose all centroids; 0 where all may.
        more: bits that pointers of popular ids have beyond those of the others.

    The others choose from the first `2**bits` centroids alone, of `bits` as in `source`.
    """

    field: int
    source: Stored
    chunks: int
    centroids: int
    base: int
    at: int
    popular: int = 0
    more: int = 0

    @property
    def ids(self) -> int:
        """Its ids, or places of a map."""
        return self.source.length

    @property
    def mask(self) -> str:
        """The table that tells which ids are popular, a bit each."""
        return popular_name(self.field)

    def stored(self, chunk: int) -> tuple[str, str]:
        """The tables of a chunk's pointers: their lower bits, and the upper ones of the popular."""
        return pointers_name(self.field, chunk), more_name(self.field, chunk)

    def index(self, ids: Tensor, tables: dict[str, Tensor]) -> Tensor:
        """Which of its pointers are those of ids; of ids of other fields, any."""
        return self.source.of.code_torch(ids, tables).clamp(0, self.ids - 1)

    def is_popular(self, index: Tensor, tables: dict[str, Tensor]) -> Tensor:
        """Whether an id may choose all centroids."""
        return gather_bits(tables[self.mask], 1, index) != 0


def pointers_name(field: int, chunk: int) -> str:
    """The table of a field's pointers for a chunk."""
    return f"pointers_{field}_{chunk}"


def popular_name(field: int) -> str:
    """The table of which ids of a field are popular."""
    return f"popular_{field}"


def more_name(field: int, chunk: int) -> str:
    """The table of the upper bits of popular ids' pointers."""
    return f"more_{field}_{chunk}"


def quantized(plan: Plan) -> list[Quantized]:
    """The fields of a plan that have pointers; the others are whole."""
    found: list[Quantized] = []
    stored = {each.name: each for each in plan.group.stored}
    at = 0
    for number, lookups in enumerate(plan.program.fields):
        first = lookups[0]
        if not isinstance(first.source, Stored):
            continue
        more: StoredSpec | None = stored.get(more_name(number, 0))
        tiers = (0, 0) if more is None else (more.length, more.bits)
        made = Quantized(number, first.source, len(lookups), first.radix, first.base, at, *tiers)
        found.append(made)
        at += made.ids
    return found


def nearest(queries: Tensor, centroids: Tensor, rare: Tensor | None = None, few: int = 0) -> Tensor:
    """The nearest centroid of each chunk, int64 `[n, C]`; of equally near ones the first.

    Differences are squared one by one and added in one order, so that an id's choice is the same
    in a batch of any size, and a query that is a centroid chooses it.

    Args:
        queries: `[n, C, w]`.
        centroids: `[C, K, w]`.
        rare: bool `[n]`, which of them choose from the first `few` centroids alone.
        few: how many those are.

    Example:
        >>> centroids = torch.tensor([[[0.0], [1.0], [3.0]]])
        >>> queries = torch.tensor([[[0.9]], [[2.5]], [[2.5]]])
        >>> nearest(queries, centroids, torch.tensor([False, False, True]), 2).flatten().tolist()
        [1, 2, 1]
    """
    if queries.dtype in (torch.float16, torch.bfloat16):
        queries, centroids = queries.float(), centroids.float()
    distance = queries.new_zeros(())
    for column in range(centroids.shape[-1]):
        off = queries[..., column].unsqueeze(-1) - centroids[..., column]
        distance = distance + off * off
    if rare is not None:
        beyond = torch.arange(centroids.shape[1], device=queries.device) >= few
        distance = distance.masked_fill(rare[:, None, None] & beyond, torch.inf)
    return distance.argmin(-1)


class Quantizing(OwnEmbedder):
    """What is trained: a query row for each id, and the centroids that it chooses, chunk by chunk.

    A vector is the nearest centroid of each chunk of the id's query. Its gradient goes to the
    centroids, and past the choice, as it is, to the query. Fields without pointers are whole.

    Args:
        plan: one group, of one term a chunk.
        more: what `OwnEmbedder` takes.

    Shapes:
        int64 `[B, F]` -> queries `[B, F, D]` -> choices `[B, F, C]` -> vectors `[B, F, D]`.
    """

    pool: Any
    estimates = True

    def __init__(self, plan: Plan, *, sparse: bool = False, **more: Any) -> None:
        super().__init__(plan, sparse=sparse, **more)
        self.fields = quantized(plan)
        folded = {each.field for each in self.fields}
        self.whole = [number for number in range(self.num_fields) if number not in folded]
        rows = sum(each.ids for each in self.fields)
        self.queries = DensePool(
            rows, self.dim, sparse=sparse, device=more.get("device"), dtype=self.dtype
        )
        self.whole_unseen: dict[int, Tensor] = {}
        self.unseen: dict[int, Tensor] = {}
        self.reset_parameters()

    def pools(self) -> list[Any]:
        """What has rows that are trained: the plan's pool, and the queries."""
        return [*super().pools(), self.queries]

    @property
    def prepares(self) -> bool:  # type: ignore[override]
        """Counts say which ids are popular, and which are never met."""
        return True

    def prepare(self, stats: Statistics) -> None:
        """Build maps, and take which ids are popular and which are never met."""
        super().prepare(stats)
        self.whole_unseen = unseen_places(self.plan.program, self.plan.fields, self.stored, stats)
        for each in self.fields:
            counts = self._counts(each, stats)
            if each.popular:
                self._put_popular(each, np.argsort(-counts, kind="stable")[: each.popular])
            unseen = counts == 0
            if unseen.any() and not unseen.all():
                self.unseen[each.field] = torch.from_numpy(unseen)

    def _counts(self, each: Quantized, stats: Statistics) -> NDArray[np.int64]:
        """How often each id of a field occurs, by its index."""
        name, source = self.plan.fields[each.field].name, each.source.of
        if self.plan.fields[each.field].num_embeddings is not None:
            return stats.counts(name, np.arange(each.ids))
        ids, often = stats.top(name, stats.distinct(name))
        tables = {key: table.cpu() for key, table in self.stored.named().items()}
        places = source.code_torch(torch.from_numpy(ids.copy()), tables).numpy()
        counts = np.zeros(each.ids, np.int64)
        np.add.at(counts, places, often)
        return counts

    def _put_popular(self, each: Quantized, index: NDArray[np.int64]) -> None:
        bits = np.zeros(each.ids, np.int64)
        bits[index] = 1
        self.stored.put(each.mask, pack_bits(bits, 1))

    @torch.no_grad()
    def maintain(self, at: Progress) -> Sequence[RowMove]:
        """Give ids that were never met the mean of the field's other queries, or rows."""
        if not self.fills_unseen:
            return ()
        for field, unseen in self.whole_unseen.items():
            for lookup in self.plan.program.fields[field]:
                _fill(self.pool, lookup.base, unseen)
        for each in self.fields:
            if each.field in self.unseen:
                _fill(self.queries, each.at, self.unseen[each.field])
        return ()

    def vectors(self, ids: Tensor, field: Tensor | None = None) -> Tensor:
        """Vectors `[B, F, D]` of ids `[B, F]`; or `[T, D]` of ids `[T]` with the field of each."""
        read: Tensor = self.pool(lambda weight: self._read(weight, ids, field))
        return read

    def _read(self, weight: Tensor, ids: Tensor, field: Tensor | None) -> Tensor:
        self.pool.count_forward(weight)
        tables = self.stored.named()
        if field is not None:
            return self._read_each(weight, ids, field)
        index = [each.index(ids[:, each.field], tables) for each in self.fields]
        rows = [each.at + place for each, place in zip(self.fields, index, strict=True)]
        queries = self.queries(torch.stack(rows, 1))
        columns = {each: self.own_rows(each, ids[:, each]) for each in self.whole}
        for number, (each, place) in enumerate(zip(self.fields, index, strict=True)):
            columns[each.field] = self._chosen(weight, each, queries[:, number].detach(), place)
        cells = torch.stack([columns[number] for number in range(self.num_fields)], 1)
        found = list(self.pool.at(weight, cells).flatten(-2).unbind(1))
        for number, each in enumerate(self.fields):
            found[each.field] = found[each.field] + _straight(queries[:, number])
        return torch.stack(found, 1)

    def _read_each(self, weight: Tensor, ids: Tensor, field: Tensor) -> Tensor:
        """Of ids with the field of each: every field chooses for all of them, no shape follows."""
        tables, rows = self.stored.named(), torch.zeros_like(ids)
        cells = ids.new_zeros(()).expand(*ids.shape, self.plan.program.chunks)
        for number in self.whole:
            cells = torch.where((field == number).unsqueeze(1), self.own_rows(number, ids), cells)
        index = [each.index(ids, tables) for each in self.fields]
        own = [field == each.field for each in self.fields]
        for each, place, here in zip(self.fields, index, own, strict=True):
            rows = torch.where(here, each.at + place, rows)
        queries = self.queries(rows)
        some = torch.zeros_like(own[0])
        for each, place, here in zip(self.fields, index, own, strict=True):
            chosen = self._chosen(weight, each, queries.detach(), place)
            cells, some = torch.where(here.unsqueeze(1), chosen, cells), some | here
        found: Tensor = self.pool.at(weight, cells).flatten(-2)
        return found + _straight(queries).masked_fill(~some.unsqueeze(1), 0.0)

    def own_rows(self, field: int, ids: Tensor) -> Tensor:
        """Rows of the pool `[n, C]` of ids of a field that is whole; of other fields' ids, any."""
        lookups = self.plan.program.fields[field]
        code = lookups[0].source.code_torch(ids, self.stored.named()) % lookups[0].radix
        bases = torch.tensor([lookup.base for lookup in lookups], device=ids.device)
        return code.unsqueeze(-1) + bases

    def _chosen(self, weight: Tensor, each: Quantized, queries: Tensor, index: Tensor) -> Tensor:
        """Rows of the pool `[n, C]` that queries `[n, D]` of a field choose."""
        turned = torch.arange(each.chunks, device=queries.device) * each.centroids
        return self.choices(weight, each, queries, index) + each.base + turned

    def choices(self, weight: Tensor, each: Quantized, queries: Tensor, index: Tensor) -> Tensor:
        """The centroid `[n, C]` of each chunk that queries `[n, D]` of a field choose."""
        codes = each.chunks * each.centroids
        cells = torch.arange(each.base, each.base + codes, device=queries.device)
        centroids = self.pool.at(weight.detach(), cells).detach()
        centroids = centroids.reshape(each.chunks, each.centroids, -1)
        rare = None
        if each.popular:
            rare = ~each.is_popular(index, self.stored.named())
        queries = queries.reshape(queries.shape[0], each.chunks, centroids.shape[-1])
        few = 1 << each.source.bits
        if torch.compiler.is_compiling() or recorded(queries):
            return nearest(queries, centroids, rare, few)
        size = max(1, _AT_ONCE // codes)
        parts = torch.split(queries, size)
        rares = [None] * len(parts) if rare is None else torch.split(rare, size)
        pairs = zip(parts, rares, strict=True)
        return torch.cat([nearest(one, centroids, other, few) for one, other in pairs])

    @torch.no_grad()
    def draw(self, std: float, generator: torch.Generator) -> None:
        """Normal numbers; the first ids of a field are popular until they are counted."""
        for pool in self.pools():
            _draw_rows(pool, std, generator)
        tables = self.stored.named()
        for each in self.fields:
            for name in (name for chunk in range(each.chunks) for name in each.stored(chunk)):
                if name in tables:  # nothing is chosen for good before `serving`
                    tables[name].zero_()
            if each.popular:
                self._put_popular(each, np.arange(each.popular))

    def bytes(self, phase: str = "serving") -> dict[str, int]:
        """Bytes by kind; training has a query for each id, as the full table has a row."""
        kinds = super().bytes(phase)
        if phase == "training":
            kinds["queries"] = self.queries.weight.nbytes
            kinds["weights"] -= kinds["queries"]
        return kinds

    @torch.no_grad()
    def serving(self) -> Any:
        """Pointers and centroids: a corridor, or what reads tiers; without the queries."""
        kind = TieredPointers if any(each.popular for each in self.fields) else Pointed
        made = kind(self.plan, std=self.std, seed=self.seed, device="meta")
        made.pool = copy.deepcopy(self.pool).serving()
        made.stored = copy.deepcopy(self.stored)
        made.waits = self.waits
        if not self.pool.weight.is_meta:
            for each in self.fields:
                self._point(each, made.stored)
        made._place_all(self.pool.weight.device)
        return made.eval().requires_grad_(False)

    def _point(self, each: Quantized, stored: Any) -> None:
        """Write the pointers of a field."""
        device, weight = self.queries.weight.device, self.pool.weight.detach()
        index = torch.arange(each.ids, device=device)
        queries = self.queries.weight.detach()
        size = max(1, _AT_ONCE // (each.chunks * each.centroids))
        chosen = torch.cat(
            [
                self.choices(weight, each, queries[each.at + part], part)
                for part in torch.split(index, size)
            ]
        ).cpu()
        lower = (1 << each.source.bits) - 1
        popular = each.is_popular(index, stored.named()).cpu() if each.popular else None
        for chunk in range(each.chunks):
            name, more = each.stored(chunk)
            stored.put(name, pack_bits(chosen[:, chunk] & lower, each.source.bits))
            if popular is not None:
                upper = chosen[popular, chunk] >> each.source.bits
                stored.put(more, pack_bits(upper, each.more))

    def resume(self) -> Any:
        """A copy of itself: it is what is trained."""
        return copy.deepcopy(self).train().requires_grad_(True)


class Pointed(Corridor):
    """What is served of one tier: an ordinary corridor of stored pointers."""

    def resume(self) -> Any:
        """What is trained, each query as the centroids that its id points to."""
        return resumed(self)


class TieredPointers(OwnEmbedder):
    """What is served of several tiers: lower bits of all pointers, upper ones of popular ids'.

    Kernels know no pointers of two parts, so plain torch reads them.
    """

    pool: Any

    def __init__(self, plan: Plan, **more: Any) -> None:
        super().__init__(plan, **more)
        self.address = Address(plan.program, more.get("device"))
        self.fields = [each for each in quantized(plan) if each.popular]
        self.reset_parameters()

    def vectors(self, ids: Tensor, field: Tensor | None = None) -> Tensor:
        """Vectors `[B, F, D]` of ids `[B, F]`; or `[T, D]` of ids `[T]` with the field of each."""
        tables = self.stored.named()
        cells = self.address.cells(ids, field, tables).squeeze(-1)
        if field is None:
            columns = list(cells.unbind(1))
            for each in self.fields:
                index = each.index(ids[:, each.field], tables)
                columns[each.field] = widened(each, columns[each.field], index, tables)
            cells = torch.stack(columns, 1)
        else:
            for each in self.fields:
                whole = widened(each, cells, each.index(ids, tables), tables)
                cells = torch.where((field == each.field).unsqueeze(1), whole, cells)
        found: Tensor = self.pool(cells)
        return found.flatten(-2)

    def draw(self, std: float, generator: torch.Generator) -> None:
        """Normal centroids."""
        _draw_rows(self.pool, std, generator)

    def resume(self) -> Any:
        """What is trained, each query as the centroids that its id points to."""
        return resumed(self)


def widened(each: Quantized, cells: Tensor, index: Tensor, tables: dict[str, Tensor]) -> Tensor:
    """The cells `[n, C]` of a field's ids by all bits of their pointers.

    A popular id's place among its kind is how many bits of the mask are set before its own.

    Args:
        each: the field, with tiers.
        cells: by the lower bits.
        index: which pointers are the ids', `[n]`.
        tables: the stored ones.
    """
    mask = tables[each.mask].long()
    count, at = ones(mask), down(index, 3)
    rank = (count.cumsum(0) - count)[at] + ones(mask[at] & power(index & 7) - 1)
    rank = rank.clamp(max=each.popular - 1)
    names = [each.stored(chunk)[1] for chunk in range(each.chunks)]
    upper = torch.stack([gather_bits(tables[name], each.more, rank) for name in names], 1)
    upper = up(upper, each.source.bits)
    ends = torch.arange(1, each.chunks + 1, device=cells.device) * each.centroids + each.base - 1
    # Any bytes are a table: no pointer leaves its centroids.
    whole = torch.minimum(cells + upper, ends)
    return torch.where(each.is_popular(index, tables).unsqueeze(1), whole, cells)


def ones(values: Tensor) -> Tensor:
    """How many bits of bytes are set.

    Example:
        >>> ones(torch.tensor([0, 1, 6, 255])).tolist()
        [0, 1, 2, 8]
    """
    values = values - (down(values, 1) & 0x55)
    values = (values & 0x33) + (down(values, 2) & 0x33)
    return values + down(values, 4) & 0x0F


@torch.no_grad()
def resumed(served: "Pointed | TieredPointers") -> Quantizing:
    """The embedder that is trained, whose queries are what the served one reads.

    Raises:
        BitfoldError: with a step for each row, which would follow from other numbers.
    """
    if any(spec.packed and spec.scale == "row" for spec in served.plan.group.pools):
        GroupEmbedder.resume(served)  # it says why not
    weight = served.pool.weight
    made = Quantizing(served.plan, std=served.std, seed=served.seed, device=weight.device)
    made.pool = copy.deepcopy(served.pool).resume()
    made.stored = copy.deepcopy(served.stored)
    made.waits = served.waits
    made.queries.to(made.pool.dtype)
    for each in () if weight.is_meta else made.fields:
        for index in torch.split(
            torch.arange(each.ids, device=weight.device), _AT_ONCE // made.dim
        ):
            cells = _pointed(each, index, made.stored.named())
            read = made.pool.at(made.pool.weight, cells)
            made.queries.weight[each.at + index] = read.flatten(-2)
    return made.train().requires_grad_(True)


def _pointed(each: Quantized, index: Tensor, tables: dict[str, Tensor]) -> Tensor:
    """The rows of the pool `[n, C]` that ids of a field point to."""
    found = []
    for chunk in range(each.chunks):
        name, _ = each.stored(chunk)
        pointers = gather_bits(tables[name], each.source.bits, index) % each.centroids
        found.append(each.base + chunk * each.centroids + pointers)
    cells = torch.stack(found, 1)
    return widened(each, cells, index, tables) if each.popular else cells


def _draw_rows(pool: Any, std: float, generator: torch.Generator) -> None:
    """Normal rows, alike whatever torch's default dtype."""
    pool.draw(
        torch.zeros(len(pool.weight), **HOST),
        torch.full((len(pool.weight),), std, **HOST),
        generator,
    )


def _straight(queries: Tensor) -> Tensor:
    """Nothing, with the gradient of queries; a difference of infinities is none."""
    return (queries - queries.detach()).nan_to_num(0.0, 0.0, 0.0)


def _fill(pool: Any, base: int, unseen: Tensor) -> None:
    """Give some of the rows from `base` on the mean of the others."""
    unseen = unseen.to(pool.weight.device)
    rows = base + torch.arange(len(unseen), device=unseen.device)
    mean = pool.numbers(rows[~unseen]).mean(0)
    pool.put(rows[unseen], mean.expand(int(unseen.sum()), -1))
