"""Rows of clusters of ids, and hashed helpers: ids that have come to be alike are clustered anew.

Source: Tsang, Ahle, "Clustering the Sketch: Dynamic Compression for Embedding Tables" (CCE),
NeurIPS 2023, arXiv 2210.05974, algorithm 3.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bitfold.address import Lookup, Salted, Stored
from bitfold.address.mixing import derive_salt
from bitfold.address.stored import pack_bits, unpack_bits
from bitfold.embedder.contract import Progress
from bitfold.embedder.corridor import Corridor
from bitfold.planning.plan import Plan
from bitfold.planning.statistics import Statistics
from bitfold.pool.moved import RowMove

TURN = "turn"
"""The stored number of clusterings: a part of every helper's salt."""
SAMPLED = 256  # ids a centroid, as in the paper
ROUNDS = 10
_AT_ONCE = 1 << 24  # distances


def k_means(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Centroids `[count, w]` of points `[n, w]`, at least one; of few points some are equal.

    They begin as distinct points. One that loses all of its own becomes the point that is farthest
    from its centroid.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [9.0], [11.0]])
        >>> k_means(points, 2, torch.Generator().manual_seed(0)).sort(0).values.tolist()
        [[0.5], [10.0]]
    """
    points, weights = torch.unique(points, dim=0, return_counts=True)
    order = torch.randperm(len(points), generator=generator)
    centroids = points[order[torch.arange(count) % len(points)]]
    for _ in range(ROUNDS):
        nearest, distance = closest(points, centroids)
        sizes = torch.bincount(nearest, weights, count).to(points.dtype)
        sums = torch.zeros_like(centroids).index_add_(0, nearest, points * weights.unsqueeze(1))
        centroids = sums / sizes.clamp_min(1).unsqueeze(1)
        empty = (sizes == 0).nonzero().squeeze(1)
        far = distance.argsort(descending=True, stable=True)[: len(empty)]
        centroids[empty[: len(far)]] = points[far]
        centroids[empty[len(far) :]] = points[0]
    return centroids


def closest(points: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centroid of each point, int64 `[n]`, and how far it is, squared."""
    parts = []
    for part in torch.split(points, max(1, _AT_ONCE // len(centroids))):
        product = part @ centroids.T
        squares = part.square().sum(1, True) + centroids.square().sum(1) - 2 * product
        parts.append(squares.min(1))
    found = [torch.cat(each) for each in zip(*parts, strict=True)]
    return found[1], found[0].clamp_min(0)


class Clustering(Corridor):
    """A corridor whose chunks are a cluster's row and a helper's, the clusters learned.

    A field's chunk has two lookups: a stored pointer of each id to a cluster, and a hash to a
    helper row. With the second epoch's first step, and those of the epochs after it, the sums of
    both are clustered: centroids become the clusters' rows, helpers start anew from zero, by
    another hash. Not at an epoch's end, so that what is measured there has been trained.

    Args:
        plan: one group, of such a program.
        times: how often ids are clustered anew.
        how: as for every corridor.
    """

    every = 1

    def __init__(self, plan: Plan, *, times: int, **how: Any) -> None:
        self.times = times
        self.known: dict[int, Tensor] = {}
        self.last: int | None = None
        super().__init__(plan, **how)

    @property
    def prepares(self) -> bool:  # type: ignore[override]
        """Ids that were trained are those whose vectors are clustered."""
        return True

    @property
    def turn(self) -> int:
        """How often ids were clustered."""
        return int.from_bytes(bytes(self.stored.named()[TURN].tolist()), "little")

    def prepare(self, stats: Statistics) -> None:
        """Take which ids training has."""
        super().prepare(stats)
        for number, field in enumerate(self.plan.fields):
            ids, _ = stats.top(field.name, stats.distinct(field.name))
            self.known[number] = torch.from_numpy(np.sort(ids))

    def maintain(self, at: Progress) -> Sequence[RowMove]:
        """Cluster, if this is an epoch's first step and there are times left."""
        ends, self.last = at.step == self.last, at.step  # an epoch ends with no step of its own
        if ends:
            return super().maintain(at)
        if self.turn >= min(self.times, at.epoch):
            return ()
        return self.cluster()

    @torch.no_grad()
    def cluster(self) -> Sequence[RowMove]:
        """Cluster the ids of every folded field, chunk by chunk; the same for the same weights."""
        turn, weight = self.turn, self.pool.weight
        if self._strange() or not bool(weight.isfinite().all()):
            return ()
        seed = derive_salt(self.seed or 0, turn) >> 1
        generator, rows = torch.Generator().manual_seed(seed), []
        for number, cluster, helper in self._pairs():
            pointers, sums, trained = self._sums(number, cluster, helper)
            chosen = torch.randperm(len(trained), generator=generator)[: SAMPLED * cluster.radix]
            centroids = k_means(sums[trained[chosen]], cluster.radix, generator)
            pointers, _ = closest(sums, centroids)
            source = cluster.source
            assert isinstance(source, Stored)
            self.stored.put(source.table, pack_bits(pointers, source.bits))
            weight[cluster.base : cluster.base + cluster.radix] = centroids.to(weight)
            weight[helper.base : helper.base + helper.radix] = 0
            rows += [torch.arange(each.base, each.base + each.radix) for each in (cluster, helper)]
        self._put_turn(turn + 1)
        self.pool.refresh()
        target = torch.cat(rows).to(weight.device)
        return [RowMove(weight, torch.full_like(target, -1), target)]

    def _strange(self) -> bool:
        """Whether there are ids that nobody has told of: hashed ones, of a run that goes on."""
        fields = enumerate(self.plan.fields)
        return any(
            not field.num_embeddings and number not in self.known for number, field in fields
        )

    def _sums(self, number: int, cluster: Lookup, helper: Lookup) -> tuple[Tensor, Tensor, Tensor]:
        """Of a field's chunk, on the CPU: pointers, what ids sum up to by their index, which are
        trained.
        """
        source, tables = cluster.source, {k: v.cpu() for k, v in self.stored.named().items()}
        assert isinstance(source, Stored)
        assert isinstance(helper.source, Salted)
        weight = self.pool.weight.detach().float().cpu()
        pointers = unpack_bits(tables[source.table], source.bits, source.length) % cluster.radix
        sums = weight[cluster.base + pointers]
        every = self.plan.fields[number].num_embeddings
        known = self.known.get(number, torch.empty(0, dtype=torch.int64))
        ids = torch.arange(every) if every else known
        index = source.of.code_torch(ids, tables)
        sums[index] += weight[helper.base + helper.source.code_torch(ids, tables)]
        trained = source.of.code_torch(known, tables) if len(known) else torch.arange(len(sums))
        return pointers, sums, trained

    def _pairs(self) -> Iterator[tuple[int, Lookup, Lookup]]:
        """Each folded field's number, and the two lookups of each of its chunks."""
        for number, lookups in enumerate(self.program.fields):
            if len(lookups) > self.program.chunks:
                for cluster, helper in zip(lookups[::2], lookups[1::2], strict=True):
                    yield number, cluster, helper

    def _put_turn(self, turn: int) -> None:
        word = torch.tensor(list(turn.to_bytes(8, "little")), dtype=torch.uint8)
        self.stored.put(TURN, word)

    def _draw(self, std: float, generator: torch.Generator) -> None:
        """Fresh rows, and pointers to clusters at random."""
        super()._draw(std, generator)
        for _, cluster, _ in self._pairs():
            source = cluster.source
            assert isinstance(source, Stored)
            drawn = torch.randint(cluster.radix, (source.length,), generator=generator)
            self.stored.put(source.table, pack_bits(drawn, source.bits))
        if TURN in self.stored.named():
            self._put_turn(0)
