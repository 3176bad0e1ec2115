"""Clusters of ids that share a row, found once by a small table that was trained before.

Source: Ghaemmaghami et al., "Learning to Collide: Recommendation System Model Compression with
Learned Hash Functions", 2022, arXiv 2203.15837.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bitfold.address import Lookup, Mixed, Stored
from bitfold.address.mixing import derive_salt
from bitfold.address.stored import pack_bits, unpack_bits
from bitfold.embedder.contract import Embedder
from bitfold.embedder.corridor import Corridor
from bitfold.planning.plan import Plan
from bitfold.planning.spec import Group
from bitfold.planning.statistics import Statistics

AT_ONCE = 4096
"""Ids whose vectors are read in one turn, unless there are more clusters."""
PASSES = 10
"""How often each id is seen at most while centroids are looked for."""
TURNS = 100
"""Turns after which one pass is enough."""
SPREAD = 1024
"""Centroids that begin far from each other; of more, they begin as ids at random."""

Read = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""Vectors `[n, w]` of ids, by their numbers `[n]`."""


def pointed(group: Group) -> bool:
    """Whether a group has pointers to clusters."""
    return any(each.kind == "pointers" for each in group.stored)


def clustered(
    read: Read,
    counts: NDArray[np.float64],
    rows: int,
    *,
    frequency: float = 0.0,
    own: float = 0.0,
    seed: int = 0,
) -> NDArray[np.int64]:
    """The row of each id, int64 `[n]`; -1 for one that never occurs.

    Ids are clustered by their vectors and the logarithm of their counts, each as often as it
    occurs. Their vectors are read some at a time. Rows that no cluster takes go to the most
    frequent ids that would share one.

    Args:
        read: gives the vectors of ids.
        counts: how often each id occurs, `[n]`.
        rows: how many there are.
        frequency: what a deviation of the logarithm counts for, beside one of the vectors.
        own: the share of the rows that the most frequent ids own.
        seed: what centroids begin by.

    Example:
        >>> points = np.array([[0.0], [9.0], [0.1], [9.1], [5.0]], np.float32)
        >>> row = clustered(points.__getitem__, np.array([3.0, 2, 1, 1, 0]), 2)
        >>> bool(row[0] == row[2] != row[1] == row[3]), int(row[4])
        (True, -1)
    """
    found = np.full(len(counts), -1, np.int64)
    order = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
    if len(order) <= rows:
        found[order] = np.arange(len(order))
        return found
    hot = min(int(own * rows), rows - 1)
    found[order[:hot]] = np.arange(hot)
    rest, groups = order[hot:], rows - hot
    points = Points(read, counts, rest, frequency)
    found[rest] = hot + nearest(points, counts[rest], groups, seed)[0]
    vacant = np.flatnonzero(np.bincount(found[order], minlength=rows) == 0)
    _, last = np.unique(found[rest][::-1], return_index=True)  # of each cluster the rarest stays
    movers = np.delete(rest, len(rest) - 1 - last)[: len(vacant)]
    found[movers] = vacant[: len(movers)]
    return found


class Points:
    """Ids as points: their vectors, and the logarithm of their counts on the same scale."""

    def __init__(
        self,
        read: Read,
        counts: NDArray[np.float64],
        ids: NDArray[np.int64],
        frequency: float,
    ) -> None:
        self.read, self.counts, self.ids = read, counts, ids
        logs = np.log1p(counts[ids])
        self.mean, deviation = logs.mean(), logs.std()
        sample = read(ids[:: max(1, len(ids) // AT_ONCE)]).astype(np.float64)
        scale = np.sqrt(np.square(sample - sample.mean(0)).sum(1).mean()) or 1.0
        self.scale = 1 / scale
        self.weight = frequency / deviation if deviation > 0 else 0.0

    def __call__(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """The points at some places among the ids, `[n, w]`."""
        ids = self.ids[places]
        vectors = self.read(ids).astype(np.float64) * self.scale
        if not self.weight:
            return vectors
        logs = (np.log1p(self.counts[ids]) - self.mean) * self.weight
        return np.concatenate([vectors, logs[:, None]], 1)


Places = Callable[[NDArray[np.int64]], NDArray[np.float64]]


def nearest(
    points: Places, counts: NDArray[np.float64], count: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The cluster of each point, `[n]`, and the clusters' means, `[count, w]`.

    Args:
        points: gives those at some places, `[n, w]`.
        counts: what each counts, `[n]`.
        count: of clusters; there are more points than that.
        seed: what the means begin by.
    """
    from sklearn.cluster import MiniBatchKMeans  # with SciPy, which loads late

    size, total = max(AT_ONCE, count), len(counts)
    random = np.random.default_rng(seed)
    start = "k-means++" if count <= SPREAD else "random"
    means = MiniBatchKMeans(count, init=start, n_init=1, random_state=seed % (1 << 32))
    turns = -(-total // size)
    for _ in range(min(PASSES, max(1, TURNS // turns))):
        order = random.permutation(total)
        for begin in range(0, total, size):
            # The last turn is filled up, since a first one needs as many points as clusters.
            places = order[max(0, min(begin, total - size)) :][:size]
            means.partial_fit(points(places), sample_weight=counts[places])
    parts = [
        means.predict(points(np.arange(begin, min(begin + size, total))))
        for begin in range(0, total, size)
    ]
    return np.concatenate(parts).astype(np.int64), means.cluster_centers_.astype(np.float64)


class Sketch(Corridor):
    """The small table that is trained before: any corridor that tells ids apart.

    It keeps how often ids occur, beside the state, for those that are clustered by it.

    Args:
        plan: one group.
        how: as for every corridor.
    """

    def __init__(self, plan: Plan, **how: Any) -> None:
        self.seen: dict[int, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
        super().__init__(plan, **how)

    @property
    def prepares(self) -> bool:  # type: ignore[override]
        """Frequencies are clustered by."""
        return True

    def prepare(self, stats: Statistics) -> None:
        """Take how often ids occur."""
        super().prepare(stats)
        for number, field in enumerate(self.plan.fields):
            if field.num_embeddings is None:
                ids, counts = stats.top(field.name, stats.distinct(field.name))
            else:
                ids = np.arange(field.num_embeddings)
                counts = stats.counts(field.name, ids)
            self.seen[number] = ids, counts.astype(np.float64)

    def known(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """A field's ids and how often each occurs: once, where nobody has told."""
        if number in self.seen:
            return self.seen[number]
        ids = np.arange(self.plan.fields[number].num_embeddings or 0)
        return ids, np.ones(len(ids))


class Buckets(Corridor):
    """A corridor whose folded fields read rows by a stored pointer: one, or one for each digit.

    Pointers begin as a hash. `inherit` has ids that a `Sketch` found alike point to one row;
    those that never occurred stay where the hash has them.

    Args:
        plan: one group, of such a program.
        own: the share of a field's rows that its most frequent ids own.
        frequency: what an id's frequency counts for beside its vector.
        how: as for every corridor.
    """

    def __init__(self, plan: Plan, *, own: float = 0, frequency: float = 0, **how: Any) -> None:
        self.own, self.frequency = own, frequency
        super().__init__(plan, **how)

    @torch.no_grad()
    def inherit(self, before: Embedder) -> None:
        """Cluster the ids of every folded field by what was trained before, one field by one."""
        tables = before.stored.named() if isinstance(before, Corridor) else {}
        for name in self.stored.named().keys() & tables.keys():  # maps, and pointers that are there
            self.stored.put(name, tables[name])
        if isinstance(before, Sketch) and all(
            bool(p.isfinite().all()) for p in before.parameters()
        ):
            for number, lookups, source in self._folded():
                self._point(before, number, lookups, source)

    def codes(
        self, read: Read, counts: NDArray[np.float64], lookups: Sequence[Lookup], seed: int
    ) -> NDArray[np.int64]:
        """What each id of a field points to, int64 `[n]`; -1 for one that never occurs.

        Args:
            read: gives the vectors of ids.
            counts: how often each occurs, `[n]`.
            lookups: of the field.
            seed: what is drawn by.
        """
        rows = lookups[0].radix
        return clustered(read, counts, rows, frequency=self.frequency, own=self.own, seed=seed)

    def _point(
        self, before: Sketch, number: int, lookups: Sequence[Lookup], source: Stored
    ) -> None:
        """Write the pointers of a field."""
        ids, counts = before.known(number)
        device = before.pool.weight.device
        tables = {name: each.cpu() for name, each in self.stored.named().items()}

        def read(places: NDArray[np.int64]) -> NDArray[np.float32]:
            asked = torch.from_numpy(ids[places]).to(device)
            vectors = before.vectors(asked, torch.full_like(asked, number))
            found: NDArray[np.float32] = vectors.float().cpu().numpy()
            return found

        rows = self.codes(read, counts, lookups, derive_salt(self.seed or 0, number) >> 1)
        met = rows >= 0
        pointers = unpack_bits(tables[source.table], source.bits, source.length)
        index = source.of.code_torch(torch.from_numpy(ids[met]), tables)
        pointers[index] = torch.from_numpy(rows[met])
        self.stored.put(source.table, pack_bits(pointers, source.bits))

    def _folded(self) -> Iterator[tuple[int, Sequence[Lookup], Stored]]:
        """Each folded field's number, its lookups, and where its pointers are."""
        for number, lookups in enumerate(self.program.fields):
            source = lookups[0].source
            if isinstance(source, Stored):
                yield number, lookups, source

    def _draw(self, std: float, generator: torch.Generator) -> None:
        """Fresh rows, and pointers by a hash that is salted from the seed."""
        super()._draw(std, generator)
        salt = int(torch.randint(1 << 62, (1,), generator=generator))
        for number, lookups, source in self._folded():
            places, own = torch.arange(source.length), derive_salt(salt, number)
            hashed = torch.zeros_like(places)
            for m, lookup in enumerate(lookups):
                mixed = Mixed(derive_salt(own, m) if m else own)
                hashed += mixed.scaled_torch(places, lookup.radix) * lookup.divisor
            self.stored.put(source.table, pack_bits(hashed, source.bits))
