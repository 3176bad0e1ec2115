"""Ids whose widths go up and down: pieces of their own, dealt by rank to what a policy says.

Source: Qu et al., "Scalable Dynamic Embedding Size Search for Streaming Recommendation" (SCALL),
CIKM 2024, arXiv 2407.15411.
"""

import time
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitfold.address import Mapped
from bitfold.address.tables import StoredTables
from bitfold.embedder.actor_critic import Shape
from bitfold.embedder.contract import Progress
from bitfold.embedder.counted import Counted, slots_of
from bitfold.embedder.draws import drawn_seed
from bitfold.embedder.hot import Hot
from bitfold.embedder.size_policy import SizePolicy
from bitfold.embedder.sizes import dealt, even_shares, group_means, ranked
from bitfold.planning.plan import Plan
from bitfold.planning.statistics import Statistics
from bitfold.pool.moved import RowMove

IDS, COUNTS, SIZES, POLICY = "sketch_ids", "sketch_counts", "sketch_sizes", "policy"
WORKING = {IDS: (8, np.int64), COUNTS: (4, np.float32), SIZES: (1, np.uint8)}
"""Tables that training needs and serving does not: bytes of a slot, and what they hold."""
LEVELS, SHAPES = 4.0, 16.0  # how far an action goes from the middle, as a factor, either way


class Resizing(Hot):
    """A corridor in which ids own the first pieces of their vectors, more of them or fewer.

    One map of all fields holds each owned piece under the id mixed by its piece's salt, and the
    place that it gives is a row. Pieces that an id does not own are read from shared rows.

    Args:
        plan: one group; each field has a lookup a piece.
        policy: what decides the distributions of sizes (`size_policy.POLICIES`).
        bands: `g`, groups of ids by frequency, whose mean frequencies the policy sees.
        distributions: how many distributions there are: one for each of the largest fields, the
            last for the others together.
        shape: the power of the rank that sizes follow at the middle of all actions.
        power: the power of the frequency that sizes follow with `policy="frequency"`.
        drawn: whether sizes are drawn, or stand at even shares of their distribution.
        slots: of the sketch, for each owned piece.
        every: steps between two changes.
        decay: what counts are multiplied with then.
        hidden: width of the policy's hidden layers.
        discount: what a reward counts one change later.
        how: as for every corridor.
    """

    observes = True
    hears = True
    prepares = False

    def __init__(
        self,
        plan: Plan,
        *,
        policy: str,
        bands: int,
        distributions: int,
        shape: float,
        power: float,
        drawn: bool,
        slots: float,
        every: int,
        decay: float,
        hidden: int,
        discount: float,
        **how: Any,
    ) -> None:
        self.policy, self.bands, self.drawn = policy, bands, drawn
        self.middle, self.power, self.decay = shape, power, decay
        self.pieces = plan.program.chunks
        self.sources: list[list[Mapped]] = [
            [lookup.source for lookup in lookups if isinstance(lookup.source, Mapped)]
            for lookups in plan.program.fields
        ]
        self.kinds = kinds_of([field.size for field in plan.fields], distributions)
        count = max(self.kinds) + 1
        self.networks = Shape(count * bands, 2 * count, hidden, discount=discount)
        counted = [(field.size, not field.hashed) for field in plan.fields]
        self.slots = slots_of(counted, int(self.sources[0][0].ids * slots))
        self.policy_seconds = 0.0
        super().__init__(plan, **how)
        self.every = every
        self.waits = False

    @property
    def owned(self) -> int:  # type: ignore[override]
        """Rows at the head of the pool that single ids own."""
        return self.sources[0][0].ids

    def _tables(self, device: torch.device | str | None) -> StoredTables:
        served = [(each.name, each.bytes) for each in self.plan.group.stored]
        working = [(name, size * sum(self.slots)) for name, (size, _) in WORKING.items()]
        policy = (POLICY, SizePolicy.size(self.policy, self.networks))
        return StoredTables([*served, *working, policy], device)

    def prepare(self, stats: Statistics) -> None:
        """Nothing: what is frequent is counted while training."""

    def hear(self, loss: float) -> None:
        """Take a step's loss, which pays the policy."""
        if not self.pool.weight.is_meta:
            with self.working() as held:
                held.policy.hear(loss)

    @torch.no_grad()
    def observe(self, ids: Tensor, field: Tensor, grad: Tensor) -> None:
        """Count the ids that have a gradient, which those of padding have not."""
        felt = grad.any(1)
        names, fields = ids[felt].cpu().numpy(), field[felt].cpu().numpy()
        with self.working() as held:
            held.policy.count_step()
            for number, counted in enumerate(held.fields):
                distinct, times = np.unique(names[fields == number], return_counts=True)
                if len(distinct):
                    counted.add(distinct, times)

    @torch.no_grad()
    def maintain(self, at: Progress) -> Sequence[RowMove]:
        """Every so many steps that were seen, deal sizes anew: pieces stay, go, or begin.

        A piece begins as the row that its id has read, with what optimizers keep of it.
        """
        if not self.observes or self.pool.weight.is_meta:
            return ()
        with self.working() as held:
            if held.policy.steps < self.every:  # as at the end of an epoch
                return ()
            known = [counted.known for counted in held.fields]
            if not any(map(len, known)):
                return ()
            sizes, changed = self._sizes(held, known), False
            keys, shared = [], []
            for number, (counted, slots, now) in enumerate(
                zip(held.fields, known, sizes, strict=True)
            ):
                before = counted.sizes.copy()
                counted.sizes[:] = 0
                counted.sizes[slots] = now
                changed = changed or not np.array_equal(before, counted.sizes)
                counted.fade(self.decay)
                ids = torch.from_numpy(counted.ids[slots])
                for piece, source in enumerate(self.sources[number]):
                    some = ids[torch.from_numpy(now > piece)]
                    keys.append(source.of.code_torch(some, {}).numpy())
                    shared.append(source.miss.scaled_torch(some, source.misses).numpy())
        if not changed:
            return ()
        return self._moved(np.concatenate(keys), np.concatenate(shared) + self.hot)

    def _moved(self, keys: NDArray[np.int64], shared: NDArray[np.int64]) -> Sequence[RowMove]:
        """Give these keys rows; each begins as the one it had, or the shared one of its piece."""
        source, shape = self.maps[0], self.maps[0].map
        had = shape.places(self.stored.named()[source.table].cpu().numpy(), keys)
        rows = np.where(had < 0, shared, had)
        self.put_map(keys)
        target = shape.places(self.stored.named()[source.table].cpu().numpy(), keys)
        weight = self.pool.weight
        free = np.setdiff1d(np.arange(self.hot), target)  # of nobody, but some id may hit it
        moved = torch.from_numpy(np.concatenate([target, free])).to(weight.device)
        origin = torch.from_numpy(np.concatenate([rows, np.full(len(free), -1)]))
        origin = origin.to(weight.device)
        fresh = weight[self.hot :].mean(0)
        weight[moved] = torch.where((origin < 0)[:, None], fresh, weight[origin.clamp_min(0)])
        return [RowMove(weight, origin, moved)]

    def _sizes(self, held: "Working", known: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
        """How many pieces each known id of each field has from now on."""
        counts = [
            counted.counts[at].astype(np.float64)
            for counted, at in zip(held.fields, known, strict=True)
        ]
        whose = np.repeat(np.arange(len(counts)), [len(each) for each in counts])
        kind, every = np.array(self.kinds)[whose], np.concatenate(counts)
        orders = [
            np.flatnonzero(kind == number)[np.argsort(-every[kind == number], kind="stable")]
            for number in range(max(self.kinds) + 1)
        ]
        began = time.perf_counter()
        means = np.concatenate([group_means(every[order], self.bands) for order in orders])
        action = held.policy.choose((np.log1p(means) / 8).astype(np.float32))
        self.policy_seconds += time.perf_counter() - began
        if self.policy == "frequency":
            wanted = [every[order] ** self.power for order in orders]
        else:
            levels, shapes = LEVELS ** action[::2], self.middle * SHAPES ** action[1::2]
            wanted = [
                ranked(self._shares(len(order), held), float(level), float(shape))
                for order, level, shape in zip(orders, levels, shapes, strict=True)
            ]
        order = np.concatenate(orders)
        found = np.empty(len(every), np.int64)
        found[order] = dealt(np.concatenate(wanted), self.pieces, self.hot)
        return np.split(found, np.cumsum([len(each) for each in counts])[:-1])

    def _shares(self, count: int, held: "Working") -> NDArray[np.float64]:
        if not self.drawn:
            return even_shares(count)
        rng = np.random.default_rng([abs(int(held.policy.whole[0])), held.policy.changes, count])
        return np.sort(rng.random(count))[::-1]

    def working(self) -> "Working":
        """Counts and policy, in the memory of the stored tables where that is the CPU's."""
        return Working(self)

    def serving(self) -> Self:
        """A frozen copy without counts and policy, which lookups do not need."""
        made, tables = super().serving(), self.stored.named()
        served = [spec.name for spec in self.plan.group.stored]
        made.stored = StoredTables([(name, len(tables[name])) for name in served])
        made.stored._tables = {name: tables[name].clone() for name in served}
        made.observes = made.hears = False
        return made

    def resume(self) -> Self:
        """A copy that can be trained on, whose counts and policy begin anew.

        Who owns pieces stays so until the first change, and beyond it where ids were seen since.
        """
        made, tables = super().resume(), self.stored.named()
        some = next(iter(tables.values()))
        made.stored = self._tables(some.device)
        for name, table in tables.items():
            made.stored.put(name, table)
        made.observes = made.hears = True
        if not some.is_meta and POLICY not in tables:
            with made.working() as held:
                held.policy.begin(drawn_seed(None) if self.seed is None else self.seed)
        return made

    def bytes(self, phase: str = "serving") -> dict[str, int]:
        """Bytes by kind; training has a sketch and a policy, which serving does without."""
        kinds = super().bytes(phase)
        if phase == "training":
            tables = self.stored.named()
            kinds["sketch"] = sum(tables[name].nbytes for name in WORKING if name in tables)
            kinds["policy"] = tables[POLICY].nbytes if POLICY in tables else 0
        return kinds

    def _draw(self, std: float, generator: torch.Generator) -> None:
        """Fresh rows, which nobody owns, and a policy that has learned nothing."""
        super()._draw(std, generator)
        for table in self.stored.named().values():
            table.zero_()
        seed = torch.empty((), dtype=torch.int64).random_(generator=generator)
        with self.working() as held:
            held.policy.begin(int(seed))

    def _load_from_state_dict(self, *given: Any) -> None:
        super()._load_from_state_dict(*given)
        self.waits = False


class Working:
    """The counts of each field and the policy; what is written comes back to other devices.

    Args:
        embedder: whose they are.
    """

    def __init__(self, embedder: Resizing) -> None:
        self.tables = embedder.stored
        named = self.tables.named()
        self.held = {name: named[name].cpu().numpy() for name in (*WORKING, POLICY)}
        ends = np.cumsum(embedder.slots)[:-1]
        parts = [np.split(self.held[name].view(kind), ends) for name, (_, kind) in WORKING.items()]
        exact = [
            field.num_embeddings == slots
            for field, slots in zip(embedder.plan.fields, embedder.slots, strict=True)
        ]
        self.fields = [Counted(*each) for each in zip(*parts, exact, strict=True)]
        self.policy = SizePolicy(embedder.policy, embedder.networks, self.held[POLICY])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *given: object) -> None:
        for name, values in self.held.items():
            if not self.tables.named()[name].is_cpu:
                self.tables.put(name, torch.from_numpy(values))


def kinds_of(sizes: Sequence[int | None], distributions: int) -> list[int]:
    """Which distribution the sizes of each field's ids have: the largest fields their own.

    Args:
        sizes: ids of each field; None where nobody knows, which counts as the largest.
        distributions: how many there may be.

    Example:
        >>> kinds_of([6040, 2, 7, 3706], 3), kinds_of([5, None], 3), kinds_of([5, 6], 1)
        ([0, 2, 2, 1], [1, 0], [0, 0])
    """
    order = sorted(range(len(sizes)), key=lambda f: (sizes[f] is not None, -(sizes[f] or 0)))
    place = {field: rank for rank, field in enumerate(order)}
    return [min(place[field], distributions - 1) for field in range(len(sizes))]
