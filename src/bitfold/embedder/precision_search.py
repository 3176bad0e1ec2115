"""The search for precisions: rows are read as a mixture of all, weighed by what groups prefer.

Source: Li et al., "Mixed-Precision Embeddings for Large-Scale Recommendation Models" (MPE), 2024,
arXiv 2409.20305. Beside the paper's penalty on bits there is a price, at which the mixture's
expected bytes are those of the plan.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from bitfold.address.tables import StoredTables
from bitfold.embedder.contract import Progress
from bitfold.embedder.precisions import PrecisionRows, Precisions, zipf
from bitfold.embedder.prefixes import REST
from bitfold.planning.plan import Plan
from bitfold.planning.spec import PoolSpec
from bitfold.planning.statistics import Statistics
from bitfold.pool.moved import RowMove
from bitfold.pool.rounding import OF_DEVIATION

DENSITY, PRICE, SCALES, RANKS = "density", "price", "scales", "ranks"
"""The stored tables: how frequent ids of each group are, the price of a byte, centres and
deviations of the groups' rows (float32, as bytes); the rank of each id (int64), by counts."""
EVERY = 20  # steps between two prices
SAMPLED = 1 << 16  # rows that centres and deviations are taken of
HALVINGS = 50


def liking(density: Tensor, bits: Tensor, alpha: float) -> Tensor:
    """What groups prefer before anything is learned, `[G, K]`.

    Each bit is worth less than the one before, and less to rare ids: the best number of bits falls
    by `alpha / 2` for each halving of the frequency, as where squared errors count by frequency
    (`alpha` 1) and a bit quarters them. Where bits have no price, half a bit more than the last
    precision is best for the rarest ids.

    Args:
        density: how frequent an id of each group is, `[G]`, above 0.
        bits: the precisions `[K]`.
        alpha: the power of the frequency.

    Example:
        >>> liking(torch.tensor([4.0, 1.0]), torch.tensor([0.0, 1.0, 2.0]), 1.0)
        tensor([[0., 3., 5.],
                [0., 2., 3.]])
    """
    best = (density / density.min()).log2() * (alpha / 2) + bits.max() + 0.5
    return best.unsqueeze(1) * bits - bits.square() / 2


class Penalized(torch.autograd.Function):
    """Preferences as they are, whose gradient has that of a penalty added."""

    generate_vmap_rule = True

    @staticmethod
    def forward(wishes: Tensor, gradient: Tensor) -> Tensor:
        """The preferences."""
        return wishes.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Keep the penalty's gradient."""
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """The gradient, and the penalty's."""
        (gradient,) = ctx.saved_tensors
        return grads[0] + gradient, None


class PrecisionSearch(PrecisionRows):
    """Rows of floats, read as the mean of what each precision makes of them.

    Args:
        plan: one group, as for `Precisions`: what it would serve.
        widths: bits of the precisions `[K]`, ascending; 0 among them where the plan has ids of 0.
        costs: bytes of a row of each.
        alpha, temperature, lean, penalty: as the options of the method.
        learned: whether steps are learned, or deviations say them.
        more: what `PrecisionRows` takes.

    Shapes:
        int64 `[B, F]` -> groups -> probabilities `[B, F, K]` -> `[B, F, D]`.
    """

    exact = False
    every = EVERY
    prepares = True
    multiplies = True
    estimates = True
    bits: Tensor
    prices: Tensor

    def __init__(
        self,
        plan: Plan,
        *,
        widths: tuple[int, ...],
        costs: tuple[int, ...],
        alpha: float,
        temperature: float,
        lean: float,
        penalty: float | None,
        learned: bool,
        **more: Any,
    ) -> None:
        self.widths, self.costs, self.alpha = widths, costs, alpha
        self.temperature, self.lean = temperature, lean
        self.penalty, self.learned = penalty, learned
        super().__init__(plan, **more)
        count, device = len(self.group_sizes), more.get("device")
        tables = [(DENSITY, 4 * count), (PRICE, 4), (SCALES, 8 * count * self.dim)]
        if self.by_counts:
            tables.append((RANKS, 8 * self.total))
        self.stored = StoredTables(tables, device)
        with torch.inference_mode(False):
            how: dict[str, Any] = {"device": device, "dtype": self.dtype}
            self.wishes = nn.Parameter(torch.empty(count, len(widths), **how))
            self.stretch = nn.Parameter(torch.empty(len(widths), **how)) if learned else None
        self.is_told = False
        self.reset_parameters()

    @property
    def specs(self) -> tuple[PoolSpec, ...]:
        """Rows of floats, and the shared ones."""
        rows = PoolSpec("rows", self.total, self.plan.embedding_dim, self.plan.dtype)
        if not self.shares:
            return (rows,)
        return rows, PoolSpec(REST, len(self.sizes), self.plan.embedding_dim, self.plan.dtype)

    def _constants(self) -> dict[str, Tensor]:
        bits, costs = torch.tensor(self.widths).float(), torch.tensor(self.costs).float()
        return super()._constants() | {"bits": bits, "prices": costs}

    def _read(self, name: str) -> Tensor:
        return self.stored.named()[name].view(torch.float32)

    def groups(self, index: Tensor) -> Tensor:
        """The group of ids that are numbered through all fields."""
        if self.by_counts:
            index = self.stored.named()[RANKS].view(torch.int64)[index]
        return self.groups_at(index)

    def preferences(self) -> Tensor:
        """What each precision is worth to an id of each group, `[G, K]`, of 32 bits at least."""
        learned: Tensor = self.wishes
        learned = learned.to(torch.promote_types(learned.dtype, torch.float32)) * self.lean
        if self.penalty is not None:
            return learned
        return liking(self._read(DENSITY), self.bits, self.alpha).to(learned) + learned

    def shares_of(self, preferences: Tensor, price: Tensor | float) -> Tensor:
        """Probabilities of the precisions, `[..., K]`."""
        logits = preferences - price * self.prices.to(preferences)
        return torch.softmax(logits / self.temperature, -1)

    def probabilities(self) -> Tensor:
        """Those of each group, `[G, K]`."""
        found = self.preferences()
        if self.penalty is None:
            return self.shares_of(found, self._read(PRICE).to(found))
        if torch.is_grad_enabled() and self.wishes.requires_grad:
            with torch.no_grad():
                part = torch.tensor(self.group_sizes, device=found.device).to(found) / self.total
                share = self.shares_of(found, 0.0)
                bits = self.bits.to(found)
                mean = (share * bits).sum(1, keepdim=True)
                slope = share * (bits - mean) / self.temperature * part.unsqueeze(1)
            found = Penalized.apply(found, self.penalty * slope)  # type: ignore[no-untyped-call]
        return self.shares_of(found, 0.0)

    def vectors(self, ids: Tensor, field: Tensor | None = None) -> Tensor:
        """The mean of what the precisions make of each row, by their probabilities."""
        index, field = self.placed(ids, field)
        group = self.groups(index)
        share = self.probabilities()[group]
        rows: Tensor = self.get_submodule("rows")(index)
        centre, deviation = self._read(SCALES).reshape(2, -1, self.dim)[:, group]
        whole = rows.detach().to(share)
        away = whole - centre
        none = share[..., :1] * (not self.widths[0])
        found = (rows - rows.detach()) * (1 - none.detach()).to(rows)
        for number, bits in enumerate(self.widths):
            if not bits:
                continue
            step = deviation.to(away) * OF_DEVIATION[bits]
            if self.stretch is not None:
                step = step * self.stretch[number].detach().exp()
            exact = torch.where(step > 0, away / step, 0.0)
            most = ((1 << bits) - 1) / 2
            level = ((exact - 0.5).round() + 0.5).clamp(-most, most)
            read = centre + step * level
            if self.stretch is not None:
                slope = step * (level - torch.where(exact.abs() <= most, exact, 0.0))
                read = read + slope * (self.stretch[number] - self.stretch[number].detach())
            found = found + (share[..., number : number + 1] * read).to(rows)
        if not self.shares:
            return found
        return found + none.to(rows) * self.shared(field)

    def draw(self, std: float, generator: torch.Generator) -> None:
        """Normal numbers; nothing is learned of precisions; frequencies by the order of ids."""
        super().draw(std, generator)
        self.wishes.zero_()
        if self.stretch is not None:
            self.stretch.zero_()
        if not self.is_told:
            if self.by_counts:
                self._put_ranks(torch.arange(self.total))
            self._tell(torch.from_numpy(zipf(self.sizes, self.group_sizes)))
        self.measure()
        self.find_price()

    def prepare(self, stats: Statistics) -> None:
        """Take how often ids of each group occur, and where counts decide, who is in which."""
        counts = self.counted(stats)
        self.seen = counts > 0
        if self.by_counts:
            self._put_ranks(self.ranks(counts))
        ranks = torch.arange(self.total)
        if self.by_counts:
            ranks = self.stored.named()[RANKS].view(torch.int64).cpu()
        sizes = torch.tensor(self.group_sizes).double()
        sums = torch.zeros_like(sizes).index_add_(0, self.groups_at(ranks).cpu(), counts.double())
        self._tell((sums + 0.5) / sizes)
        self.find_price()

    def _put_ranks(self, ranks: Tensor) -> None:
        self.stored.put(RANKS, ranks.view(torch.uint8))

    def _tell(self, density: Tensor) -> None:
        self.stored.put(DENSITY, density.float().contiguous().view(torch.uint8))
        self.is_told = True

    def maintain(self, at: Progress) -> Sequence[RowMove]:
        """Let centres and deviations follow the rows, and the price the budget."""
        self.measure()
        self.find_price()
        return ()

    @torch.no_grad()
    def measure(self) -> None:
        """Take the centres and deviations of the groups' rows; of many rows, those of some."""
        rows = self.numbers()
        if rows.is_meta:
            return
        index = torch.arange(0, self.total, -(-self.total // SAMPLED), device=rows.device)
        some, group = rows[index].double(), self.groups(index)
        count = torch.zeros(len(self.group_sizes), dtype=torch.float64, device=rows.device)
        count.index_add_(0, group, torch.ones_like(some[:, 0]))
        total = torch.zeros(len(count), self.dim, dtype=torch.float64, device=rows.device)
        mean = total.index_add(0, group, some) / count.clamp(min=1).unsqueeze(1)
        apart = total.index_add(0, group, (some - mean[group]).square())
        # Of few rows their own mean and deviation say little: all rows count for some more.
        every = some.var(0, correction=0)
        weight = count.unsqueeze(1)
        variance = (apart + every * self.dim) / (weight + self.dim)
        found = torch.stack([mean * weight / (weight + self.dim), variance.sqrt()])
        self.stored.put(SCALES, found.float().flatten().view(torch.uint8))

    @torch.no_grad()
    def find_price(self) -> None:
        """Let the expected bytes of all rows be those that the plan has."""
        density = self._read(DENSITY)
        if self.penalty is not None or density.is_meta:
            return
        preferences = self.preferences().double().cpu()
        if not bool(preferences.isfinite().all()):
            return
        costs = torch.tensor(self.costs, dtype=torch.float64)
        sizes = torch.tensor(self.group_sizes, dtype=torch.float64).unsqueeze(1)
        reach = float(preferences.max() - preferences.min()) + 1
        low, high = -reach, reach
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            share = torch.softmax((preferences - middle * costs) / self.temperature, 1)
            fits = float((share * costs * sizes).sum()) <= self.limit
            low, high = (low, middle) if fits else (middle, high)
        self.stored.put(PRICE, torch.tensor([high], dtype=torch.float32).view(torch.uint8))

    @property
    def limit(self) -> int:
        """Bytes of the rows that the plan has."""
        cost = dict(zip(self.widths, self.costs, strict=True))
        return sum(spec.rows * cost[spec.bits] for spec in self.lengths)

    def numbers(self) -> Tensor:
        """The rows, `[V, D]`."""
        weight: Tensor = self.get_submodule("rows").weight  # type: ignore[assignment]
        return weight.detach()

    def ending_rows(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """The rank of each id, the rows that were trained, and the shared ones."""
        ranks = torch.arange(self.total)
        if self.by_counts:
            ranks = self.stored.named()[RANKS].view(torch.int64).cpu()
        if not self.shares:
            return ranks, self.numbers(), None
        rest: Tensor = self.get_submodule(REST).weight  # type: ignore[assignment]
        return ranks, self.numbers(), rest.detach()

    def serving(self) -> Self:
        """Rows of the precisions that the plan has."""
        return self.planned().serving()  # type: ignore[return-value]

    @torch.no_grad()
    def planned(self) -> Precisions:
        """What the plan would have of it."""
        rows = self.numbers()
        made = Precisions(
            self.plan, sizes=self.group_sizes, chosen=self.chosen, counted=self.by_counts,
            carries=True, std=self.std, seed=self.seed, device="meta" if rows.is_meta else "cpu",
        )  # fmt: skip
        if not rows.is_meta:
            made = made.to(rows)
            made.inherit(self)
        return made.train(self.training)

    @torch.no_grad()
    def put_rows(self, field: int, chunks: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Write the vectors of a field's ids; what they may share is their mean."""
        total, mass = torch.zeros(self.dim, dtype=torch.float64, device=self.bases.device), 0.0
        pool: Any = self.get_submodule("rows")
        for ids, vectors, weights in chunks:
            pool.put(self.placed(ids, torch.full_like(ids, field))[0], vectors)
            total += (vectors.double() * weights[:, None]).sum(0)
            mass += float(weights.sum())
        if self.shares and mass:
            shared: Any = self.get_submodule(REST)
            shared.put(torch.tensor([field], device=total.device), (total / mass).unsqueeze(0))
        self.measure()

    def bytes(self, phase: str = "serving") -> dict[str, int]:
        """Bytes by kind."""
        if phase != "training":
            return super().bytes(phase)
        weights = sum(each.nbytes for each in self.parameters())
        told = sum(each.nbytes for each in self.stored.named().values())
        return {"weights": weights, "features": told, "gradients": weights}
