"""Rows that keep the first of their numbers: how many is learned by twins, then stays.

Source: Yan, Wang, Wang, Li, et al., "Learning Effective and Efficient Embedding via an
Adaptively-Masked Twins-based Layer" (AMTL), CIKM 2021, arXiv 2108.11513.

`PrefixSearch` trains rows of the full width and the twins; `Prefixes` has a pool for each length.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitfold.address.stored import gather_bits, pack_bits, unpack_bits
from bitfold.address.tables import StoredTables
from bitfold.embedder.contract import Embedder, Progress
from bitfold.embedder.own import OwnEmbedder
from bitfold.embedder.ranges import limits_of
from bitfold.planning.plan import Plan
from bitfold.planning.spec import PoolSpec, steps_bytes
from bitfold.planning.statistics import Statistics
from bitfold.pool.moved import RowMove

CLASSES = "classes"
"""The stored table of the ids' classes: 0, or the number of a pool."""
FEATURES, PRICE = "features", "price"
"""The stored tables of what the twins are told of each id, and of the price: float32, as bytes."""
REST = "rest"
"""The pool of a row for each field, which its ids of class 0 share."""
TOLD = 3  # numbers that the twins are told of an id
HIDDEN = 16  # width of a twin
EVERY = 20  # steps between two prices
SAMPLED = 1 << 16  # ids that a price is found by while it trains
HALVINGS = 60
_AT_ONCE = 1 << 18  # ids


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


def features_of(popular: Tensor, sizes: Sequence[int]) -> Tensor:
    """What the twins are told of ids, float64 `[V, 3]`.

    The logarithm of the popularity, of the most popular id's; the same with mean 0 and deviation 1;
    the id's rank in its field, from 0 for the most frequent to 1.
    """
    logs = (popular / popular.max()).log()
    spread = logs.std(correction=0)
    ranks = []
    for part in torch.split(popular, list(sizes)):
        order = part.argsort(descending=True, stable=True)
        rank = torch.empty(len(part), dtype=torch.float64)
        rank[order] = torch.arange(len(part), dtype=torch.float64) / max(len(part) - 1, 1)
        ranks.append(rank)
    return torch.stack([logs, (logs - logs.mean()) / spread.clamp_min(1e-6), torch.cat(ranks)], 1)


def fitting(scores: Tensor, widths: Tensor, costs: Tensor, limit: int) -> tuple[float, Tensor]:
    """The price of a whole row at which the best lengths fit a limit, and those lengths.

    Args:
        scores: `[V, K]`, what each length is worth to each id; the more frequent ids first.
        widths: `[K]`, lengths as parts of the whole, ascending from 0.
        costs: int64 `[K]`, bytes of a row of each length, the first 0.
        limit: bytes of all rows.

    Returns:
        The price, and the number of each id's length, int64 `[V]`. What bytes the price leaves
        over, because many ids change their length at once, lengthens the first of those.

    Example:
        >>> scores, costs = torch.tensor([[0.0, 3.0], [0.0, 1.0], [0.0, 2.0]]), torch.tensor([0, 8])
        >>> price, lengths = fitting(scores, torch.tensor([0.0, 1.0]), costs, 16)
        >>> 1 <= price < 2, lengths.tolist()
        (True, [1, 0, 1])
    """

    def at(price: float) -> Tensor:
        return (scores - price * widths).argmax(1)

    def fits(lengths: Tensor) -> bool:
        return int(costs[lengths].sum()) <= limit

    reach = float(scores.max() - scores.min()) / float(widths.diff().min()) + 1
    low, high = -reach, reach
    longest = at(low)
    if fits(longest):
        return low, longest
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(at(middle)) else (middle, high)
    found, longer = at(high), at(low)
    more = (costs[longer] - costs[found]).clamp_min(0)
    room = limit - int(costs[found].sum())
    return high, torch.where(more.cumsum(0) <= room, longer, found)


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
        found = gather_bits(self._tables[CLASSES], self.bits, index)
        return found.masked_fill(found > self.count, 0), self.places[index].long()

    def all(self) -> Tensor:
        """The class of every id, int64 `[V]`."""
        found = unpack_bits(self._tables[CLASSES], self.bits, self.ids)
        return found.masked_fill(found > self.count, 0)

    def put(self, name: str, table: Tensor) -> None:
        """Write the classes; places follow."""
        super().put(name, table)
        self._refresh()

    @torch.no_grad()
    def _refresh(self) -> None:
        with torch.inference_mode(False):
            found = self.all()
            places = torch.zeros_like(found, dtype=torch.int32)
            for number in range(1, self.count + 1):
                here = found == number
                places = torch.where(here, here.cumsum(0, dtype=torch.int32) - 1, places)
            self.places = places

    def _apply(self, fn: Any, recurse: bool = True) -> "Classes":
        super()._apply(fn, recurse)
        self._refresh()
        return self

    def _load_from_state_dict(self, *how: Any) -> None:
        super()._load_from_state_dict(*how)
        self._refresh()


class _Rows(OwnEmbedder):
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

    def decides(self) -> Any:
        """Classes decide, which are saved, and the fields."""
        return ["prefixes", self.sizes]

    takes_rows = True


class Prefixes(_Rows):
    """A pool for each length; an id has a class, which is the number of its pool.

    Args:
        plan: one group: pools in ascending order of width, and the classes.
        more: what `OwnEmbedder` takes.

    Shapes:
        int64 `[B, F]` -> class and place `[B, F]` -> `[B, F, w]` of its pool, then zeros, `[B, F, D]`.
    """

    prepares = True
    stored: Classes

    def __init__(self, plan: Plan, **more: Any) -> None:
        super().__init__(plan, **more)
        (spec,) = plan.group.stored
        self.stored = Classes(self.total, spec.bits, len(self.lengths), more.get("device"))
        self.is_dealt = False
        self.reset_parameters()

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
        self.stored.put(CLASSES, pack_bits(classes, self.stored.bits))
        self.is_dealt = True

    def draw(self, std: float, generator: torch.Generator) -> None:
        """Normal numbers; classes by the order of ids, where nothing better is known."""
        super().draw(std, generator)
        if not self.is_dealt:
            order = popularity(self.sizes).argsort(descending=True, stable=True)
            self.put_classes(dealt(order, [spec.rows for spec in self.lengths]))

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
                for some in torch.split(ids, _AT_ONCE):
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
        if isinstance(before, PrefixSearch):
            own = [0, *(spec.width for spec in self.lengths)]
            classes = torch.tensor([own.index(w) if w in own else 0 for w in before.widths])
            self.take(classes[before.ending()], before.numbers(), before.shared_rows())


class Twins(nn.Module):
    """Two networks of one hidden layer each, for frequent and for rare ids, blended.

    Args:
        out: how many lengths they score.
        how: device and dtype.

    Shapes:
        features `[..., 3]` -> scores `[..., out]`.
    """

    def __init__(self, out: int, **how: Any) -> None:
        super().__init__()
        with torch.inference_mode(False):
            self.first = nn.Parameter(torch.empty(2, HIDDEN, 2, **how))
            self.bias = nn.Parameter(torch.empty(2, HIDDEN, **how))
            self.last = nn.Parameter(torch.empty(2, out, HIDDEN, **how))
            self.shift = nn.Parameter(torch.empty(2, out, **how))

    def forward(self, features: Tensor) -> Tensor:
        """`a h + (1 - a) l`, where `a` is the sigmoid of the standardized log count."""
        told = features[..., 1:]
        frequent, rare = (
            F.linear(
                F.relu(F.linear(told, self.first[twin], self.bias[twin])),
                self.last[twin],
                self.shift[twin],
            )
            for twin in (0, 1)
        )
        weight = torch.sigmoid(features[..., 1:2])
        blended = weight * frequent + (1 - weight) * rare
        return blended.to(torch.promote_types(blended.dtype, torch.float32))

    def draw(self, generator: torch.Generator) -> None:
        """Hidden layers as He draws them; the last ones start at zero."""
        noise = torch.randn(self.first.shape, generator=generator, dtype=torch.float32)
        self.first.copy_(noise)
        for each in (self.bias, self.last, self.shift):
            each.zero_()


class PrefixSearch(_Rows):
    """Rows of the full width, masked to the length that the twins score highest.

    From each score a price is taken in proportion to the length. The price is the one at which
    the lengths of all ids meet the budget; it is found anew as the twins learn.

    Args:
        plan: one group, as for `Prefixes`: what it would serve.
        widths: the lengths that there are, ascending from 0.
        alpha: widths start in proportion to the popularity to that power.
        temperature: of the softmax that gradients flow through.
        more: what `OwnEmbedder` takes.

    Shapes:
        int64 `[B, F]` -> features `[B, F, 3]` -> one of `K` lengths -> `[B, F, D]`.
    """

    exact = False
    every = EVERY
    prepares = True
    multiplies = True
    estimates = True
    masks: Tensor
    portions: Tensor

    def __init__(
        self, plan: Plan, *, widths: tuple[int, ...], alpha: float, temperature: float, **more: Any
    ) -> None:
        self.widths, self.alpha, self.temperature = widths, alpha, temperature
        super().__init__(plan, **more)
        sizes = [(FEATURES, 4 * TOLD * self.total), (PRICE, 4)]
        self.stored = StoredTables(sizes, more.get("device"))
        how: dict[str, Any] = {"device": more.get("device"), "dtype": self.dtype}
        self.twins = Twins(len(widths), **how)
        self.is_told = False
        self.reset_parameters()

    @property
    def specs(self) -> tuple[PoolSpec, ...]:
        """Rows as wide as vectors; and those that are shared."""
        rows = [PoolSpec("rows", self.total, self.plan.embedding_dim, self.plan.dtype)]
        if self.shares:
            rows.append(PoolSpec(REST, len(self.sizes), self.plan.embedding_dim, self.plan.dtype))
        return tuple(rows)

    def _constants(self) -> dict[str, Tensor]:
        widths, dim = torch.tensor(self.widths), self.plan.embedding_dim
        masks = (torch.arange(dim) < widths.unsqueeze(1)).float()
        return super()._constants() | {"masks": masks, "portions": widths.float() / dim}

    @property
    def features(self) -> Tensor:
        """What is known of each id, float32 `[V, 3]`."""
        return self.stored.named()[FEATURES].view(torch.float32).reshape(-1, TOLD)

    @property
    def price(self) -> Tensor:
        """What is taken from the score of a whole row, float32 `[1]`."""
        return self.stored.named()[PRICE].view(torch.float32)

    def scores(self, features: Tensor) -> Tensor:
        """What each length is worth, `[..., K]`: the twins' word, on top of a power of popularity.

        At a price `p` the best part `x` of `v sqrt(x) - p x` is `(v / 2p)**2`. Scores have 32 bits
        at least: what an id reads follows from which is the highest.
        """
        worth = torch.exp(features[..., :1] * (self.alpha / 2)) * self.portions.sqrt()
        found: Tensor = self.twins(features.to(self.twins.shift)) + worth
        return found

    def choice(self, features: Tensor) -> Tensor:
        """One of the lengths, `[..., K]` with a single 1, and the gradient of a softmax."""
        logits = self.scores(features) - self.price * self.portions
        soft = torch.softmax(logits / self.temperature, -1)
        best = logits.argmax(-1, keepdim=True)
        hard = torch.zeros_like(soft).scatter(-1, best, 1.0)
        return hard + (soft - soft.detach())

    def vectors(self, ids: Tensor, field: Tensor | None = None) -> Tensor:
        """The row of each id, masked."""
        index, field = self.placed(ids, field)
        chosen = self.choice(self.features[index])
        rows: Tensor = self.get_submodule("rows")(index)
        found = rows * (chosen @ self.masks.to(chosen)).to(rows)
        if not self.shares:
            return found
        return found + chosen[..., :1].to(rows) * self.shared(field)

    def draw(self, std: float, generator: torch.Generator) -> None:
        """Normal numbers, the larger the fewer a row has; features by the order of ids."""
        super().draw(std, generator)
        self.twins.draw(generator)
        if not self.is_told:
            self._tell(popularity(self.sizes))
        self.find_price()
        rows: Any = self.get_submodule("rows")
        for begin in range(0, self.total, _AT_ONCE):
            some = self.features[begin : begin + _AT_ONCE]
            part = self.portions[self.choice(some).argmax(-1)]
            part = torch.where(part > 0, part, torch.ones_like(part))
            rows.weight[begin : begin + _AT_ONCE] *= part.rsqrt().unsqueeze(1)

    def prepare(self, stats: Statistics) -> None:
        """Take how often ids occur."""
        counts = self.counted(stats)
        self.seen = counts > 0
        self._tell(counts + 0.5)
        self.find_price()

    def _tell(self, popular: Tensor) -> None:
        told = features_of(popular.double(), self.sizes).float()
        self.stored.put(FEATURES, told.flatten().view(torch.uint8))
        self.is_told = True

    def maintain(self, at: Progress) -> Sequence[RowMove]:
        """Find the price that the lengths meet the budget at."""
        self.find_price()
        return ()

    @torch.no_grad()
    def find_price(self) -> None:
        """Let the lengths of the ids meet the budget; of many ids, those of some."""
        if self.features.is_meta:
            return
        step = -(-self.total // SAMPLED)
        scores = self.scores(self.features[::step]).double().cpu()
        if self.seen is not None and bool(self.seen[::step].any()):
            scores = scores[self.seen[::step]]
        if bool(scores.isfinite().all()):
            price, _ = fitting(scores, self._portions(), self.costs, self.limit // step)
            self.stored.put(PRICE, torch.tensor([price], dtype=torch.float32).view(torch.uint8))

    def _portions(self) -> Tensor:
        return torch.tensor(self.widths, dtype=torch.float64) / self.dim

    @property
    def costs(self) -> Tensor:
        """Bytes of a row of each length, int64 `[K]`."""
        return torch.tensor([0, *(row_cost(self.lengths[0], each) for each in self.widths[1:])])

    @property
    def limit(self) -> int:
        """Bytes of the rows that the plan has."""
        return sum(spec.rows * row_cost(spec, spec.width) for spec in self.lengths)

    @torch.no_grad()
    def found(self, limit: int) -> Tensor:
        """The length of each id by its number among the widths, int64 `[V]`, within bytes of rows.

        Ids that training lacks have none: nothing would train their rows.
        """
        lengths, known = torch.zeros(self.total, dtype=torch.int64), self._order()
        if self.seen is not None:
            known = known[self.seen[known]]
        scores = [self.scores(each) for each in torch.split(self.features, _AT_ONCE)]
        known_scores = torch.cat(scores).double().cpu()[known]
        if len(known) and bool(known_scores.isfinite().all()):
            lengths[known] = fitting(known_scores, self._portions(), self.costs, limit)[1]
        return lengths

    def ending(self) -> Tensor:
        """The length of each id by its number among the widths that the search ends with.

        The plan's bytes may buy other lengths than it has. Where they buy none, those it has.
        """
        planned = [spec.width for spec in self.lengths]
        more = self._fixed(self.widths[1:]) - self._fixed(planned)
        found = self.found(self.limit - more)
        if bool(found.any()):
            return found
        return torch.tensor([0, *map(self.widths.index, planned)])[self.dealt()]

    def dealt(self) -> Tensor:
        """The class of each id, where as many have each as the plan says."""
        order = self._order()
        found = self.found(self.limit)[order]
        order = order[found.argsort(descending=True, stable=True)]
        return dealt(order, [spec.rows for spec in self.lengths])

    def _fixed(self, widths: Sequence[int]) -> int:
        """Bytes beside the rows: of the ids' classes, and of the steps of each pool."""
        spec = self.lengths[0]
        steps = sum(steps_bytes(1, 0, width, spec.scale) for width in widths)
        return -(-self.total * len(widths).bit_length() // 8) + spec.packed * steps

    def _order(self) -> Tensor:
        """All ids, the most popular first."""
        return self.features[:, 0].double().cpu().argsort(descending=True, stable=True)

    def numbers(self) -> Tensor:
        """The rows, `[V, D]`."""
        weight: Tensor = self.get_submodule("rows").weight  # type: ignore[assignment]
        return weight.detach()

    def shared_rows(self) -> Tensor | None:
        """The shared rows, `[F, D]`."""
        if not self.shares:
            return None
        weight: Tensor = self.get_submodule(REST).weight  # type: ignore[assignment]
        return weight.detach()

    def serving(self) -> Self:
        """Rows as short as the plan has them: the lengths that were learned say whose."""
        return self.planned().serving()  # type: ignore[return-value]

    @torch.no_grad()
    def planned(self) -> Prefixes:
        """What the plan would have of it: its numbers of rows, dealt by the lengths found."""
        rows = self.numbers()
        made = Prefixes(
            self.plan, std=self.std, seed=self.seed, device="meta" if rows.is_meta else "cpu"
        )
        if not rows.is_meta:
            made = made.to(rows)
            made.take(self.dealt(), rows, self.shared_rows())
        return made.train(self.training)

    @torch.no_grad()
    def put_rows(self, field: int, chunks: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Write the vectors of a field's ids; what they may share is their mean."""
        sums, mass = torch.zeros(self.dim, dtype=torch.float64, device=self.bases.device), 0.0
        pool: Any = self.get_submodule("rows")
        for ids, vectors, weights in chunks:
            pool.put(self.placed(ids, torch.full_like(ids, field))[0], vectors)
            sums += (vectors.double() * weights[:, None]).sum(0)
            mass += float(weights.sum())
        if self.shares and mass:
            shared: Any = self.get_submodule(REST)
            shared.put(torch.tensor([field], device=sums.device), (sums / mass).unsqueeze(0))

    def bytes(self, phase: str = "serving") -> dict[str, int]:
        """Bytes by kind."""
        if phase != "training":
            return super().bytes(phase)
        weights = sum(each.nbytes for each in self.parameters())
        told = sum(each.nbytes for each in self.stored.named().values())
        return {"weights": weights, "features": told, "gradients": weights}


def row_cost(spec: PoolSpec, width: int) -> int:
    """Bytes of a row of so many numbers, kept as those of a pool; with `scale=row` its step too.

    Example:
        >>> row_cost(PoolSpec("pool", 1, 8), 4), row_cost(PoolSpec("pool", 1, 8, "q4", slices=(0,)), 3)
        (16, 2)
    """
    by_row = 2 * (spec.packed and spec.scale == "row")
    return -(-width * spec.bits // 8) + by_row
