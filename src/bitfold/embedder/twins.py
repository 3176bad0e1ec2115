"""Twins learn how many of their row's numbers ids keep, by how frequent they are.

Source: Yan et al., "Learning Effective and Efficient Embedding via an
Adaptively-Masked Twins-based Layer" (AMTL), CIKM 2021, arXiv 2108.11513. The budget is met by a
price of length, the same for all ids, which is taken from their scores.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitfold.address.tables import StoredTables
from bitfold.embedder.contract import Progress
from bitfold.embedder.prefixes import AT_ONCE, dealt, popularity, row_cost
from bitfold.embedder.searching import WideSearch
from bitfold.planning.plan import Plan
from bitfold.planning.spec import steps_bytes
from bitfold.planning.statistics import Statistics
from bitfold.pool.moved import RowMove

FEATURES, PRICE = "features", "price"
"""The stored tables of what the twins are told of each id, and of the price: float32, as bytes."""
TOLD = 3  # numbers that the twins are told of an id
HIDDEN = 16  # width of a twin
EVERY = 20  # steps between two prices
SAMPLED = 1 << 16  # ids that a price is found by while it trains
HALVINGS = 60


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
        over, because many ids change their length at once, lengthens the first of those, and then
        others by a step, those whose bytes are worth most.

    Example:
        >>> scores, costs = torch.tensor([[0.0, 3.0], [0.0, 1.0], [0.0, 2.0]]), torch.tensor([0, 8])
        >>> price, lengths = fitting(scores, torch.tensor([0.0, 1.0]), costs, 16)
        >>> 0.9 < price < 2, lengths.tolist()
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
    found = torch.where(more.cumsum(0) <= limit - int(costs[found].sum()), longer, found)
    room = limit - int(costs[found].sum())
    step = (found + 1).clamp(max=len(costs) - 1)
    more = costs[step] - costs[found]
    able = ((more > 0) & (more <= room)).nonzero().squeeze(1)
    ids = torch.arange(len(found))
    gain = (scores[ids, step] - scores[ids, found])[able] / more[able]
    able = able[gain.argsort(descending=True, stable=True)]
    able = able[more[able].cumsum(0) <= room]
    found[able] = step[able]
    return high, found


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


class PrefixSearch(WideSearch):
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

    every = EVERY
    multiplies = True
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
        for begin in range(0, self.total, AT_ONCE):
            some = self.features[begin : begin + AT_ONCE]
            part = self.portions[self.choice(some).argmax(-1)]
            part = torch.where(part > 0, part, torch.ones_like(part))
            rows.weight[begin : begin + AT_ONCE] *= part.rsqrt().unsqueeze(1)

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
    def found(self, limit: int, numbers: Sequence[int] | None = None) -> Tensor:
        """The length of each id by its number among the widths, int64 `[V]`, within bytes of rows.

        Ids that training lacks have none: nothing would train their rows.

        Args:
            limit: bytes of all rows.
            numbers: which lengths there are beside 0; None for all.
        """
        some = torch.tensor([0, *(range(1, len(self.widths)) if numbers is None else numbers)])
        lengths, known = torch.zeros(self.total, dtype=torch.int64), self._order()
        if self.seen is not None:
            known = known[self.seen[known]]
        parts = [self.scores(each) for each in torch.split(self.features, AT_ONCE)]
        scores = torch.cat(parts).double().cpu()[known][:, some]
        if len(known) and bool(scores.isfinite().all()):
            chosen = fitting(scores, self._portions()[some], self.costs[some], limit)[1]
            lengths[known] = some[chosen]
        return lengths

    def ending(self) -> Tensor:
        """The length of each id by its number among the widths that the search ends with.

        The plan's bytes may buy other lengths than it has, and lengths that no id takes leave
        their bytes to the others. Where the bytes buy none, it is those that the plan has.
        """
        planned = [spec.width for spec in self.lengths]
        own = self.limit + self._fixed(planned)
        found = self.found(own - self._fixed(self.widths[1:]))
        taken = [number for number in torch.unique(found).tolist() if number]
        if not taken:
            return torch.tensor([0, *map(self.widths.index, planned)])[self.dealt()]
        if len(taken) + 1 < len(self.widths):
            found = self.found(own - self._fixed([self.widths[each] for each in taken]), taken)
        return found

    def ending_rows(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """The lengths that the search ends with, and the rows that it has trained."""
        widths = torch.tensor(self.widths)[self.ending()]
        return widths, self.numbers(), self.shared_rows()

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

    def bytes(self, phase: str = "serving") -> dict[str, int]:
        """Bytes by kind."""
        if phase != "training":
            return super().bytes(phase)
        weights = sum(each.nbytes for each in self.parameters())
        told = sum(each.nbytes for each in self.stored.named().values())
        return {"weights": weights, "features": told, "gradients": weights}
