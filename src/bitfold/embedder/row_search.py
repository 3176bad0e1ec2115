"""Which ids deserve a row: their norms are held against thresholds that are learned.

Source: Lyu, Tang, Zhu, Guo, Zhang, Tang, Liu, "OptEmbed: Learning Optimal Embedding Table for
Click-through Rate Prediction", CIKM 2022, arXiv 2208.04482, sections 3.1 to 3.3.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from bitfold.address.mixing import derive_salt
from bitfold.address.tables import StoredTables
from bitfold.embedder.contract import Progress
from bitfold.embedder.draws import drawn_seed
from bitfold.embedder.evolving import Widths, evolved
from bitfold.embedder.kept_rows import RowPools
from bitfold.embedder.prefixes import AT_ONCE, Prefixes, row_cost
from bitfold.embedder.searching import WideSearch
from bitfold.planning.kept import index_of
from bitfold.planning.plan import Plan
from bitfold.planning.spec import steps_bytes
from bitfold.planning.statistics import Statistics
from bitfold.pool.moved import RowMove

NOW = "widths"
"""The stored table of the widths that fields are trained at in this step: int32, as bytes."""
NEAR, FAR = 0.4, 1.0


def kept_or_not(above: Tensor) -> Tensor:
    """1 where a number is above 0, and 0 elsewhere; its gradient is that of a long-tailed slope.

    The slope is `2 - 4|x|` up to .4, then .4 up to 1, and 0 beyond: rows near their threshold
    decide where it goes.

    Example:
        >>> x = torch.tensor([-2.0, -0.5, -0.1, 0.0, 0.1, 0.5, 2.0], requires_grad=True)
        >>> kept_or_not(x).sum().backward()
        >>> kept_or_not(x).tolist(), [round(g, 2) for g in x.grad.tolist()]
        ([0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0], [0.0, 0.4, 1.6, 2.0, 1.6, 0.4, 0.0])
    """
    near, far = above.clamp(-NEAR, NEAR), above.clamp(-FAR, FAR)
    soft = near * (2 - 4 * near.detach().abs()) + 0.4 * (far - near)
    return (above > 0).to(above.dtype) + (soft - soft.detach())


class Raised(torch.autograd.Function):
    """Thresholds as they are, with the gradient of a penalty `alpha * sum(exp(-t))` beside theirs.

    The penalty is part of the paper's loss. Whoever trains an embedding has a loss of their own,
    so its gradient joins on the way back, once the embedder is prepared for a training.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(thresholds: Tensor, alpha: float) -> Tensor:
        """The thresholds."""
        return thresholds.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        """Keep what the penalty's gradient follows from."""
        ctx.save_for_backward(inputs[0])
        ctx.alpha = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """The gradient that comes, and the penalty's."""
        (thresholds,) = ctx.saved_tensors
        return grad - ctx.alpha * torch.exp(-thresholds), None


class Trial(NamedTuple):
    """What a candidate of the search would serve.

    Args:
        widths: int64 `[F]`.
        kept: who has a row, bool `[V]`.
        shared: what the others read, `[F, D]`.
    """

    widths: Tensor
    kept: Tensor
    shared: Tensor


class RowSearch(WideSearch):
    """Rows of the full width, which are read where their norm is above a threshold; others are 0.

    Args:
        plan: one group, as for `RowPools`: what it would serve.
        threshold: what has one of its own: a `field` or an `id`.
        alpha: what the penalty counts that raises thresholds.
        rank: who comes first where the budget has too few rows: those highest above their
            `margin`, or by `use`, the margin times how often an id occurs.
        candidates: how many widths of fields are tried at the end; 0: all have the full width.
        more: what `OwnEmbedder` takes.

    Shapes:
        int64 `[B, F]` -> rows `[B, F, D]` -> norms `[B, F]` -> 0 or 1 -> `[B, F, D]`.
    """

    serves: ClassVar[type[Prefixes]] = RowPools
    trains_shared: ClassVar[bool] = False

    def __init__(
        self,
        plan: Plan,
        *,
        threshold: str,
        alpha: float,
        rank: str,
        candidates: int,
        **more: Any,
    ) -> None:
        self.by_id, self.alpha, self.candidates = threshold == "id", alpha, candidates
        self.by_use = rank == "use"
        self.counts: Tensor | None = None
        super().__init__(plan, **more)
        device = more.get("device")
        tables = [(NOW, 4 * len(self.sizes))] if candidates else []
        self.stored = StoredTables(tables, device)
        self.every = 1 if candidates else 0
        with torch.inference_mode(False):
            count = self.total if self.by_id else len(self.sizes)
            weight = torch.zeros(count, device=device, dtype=self.dtype)
            self.thresholds = nn.Parameter(weight)
        self.trial: Trial | None = None
        self.chosen: Widths = (self.dim,) * len(self.sizes)
        self.reset_parameters()

    def vectors(self, ids: Tensor, field: Tensor | None = None) -> Tensor:
        """The row of each id, or zeros."""
        index, field = self.placed(ids, field)
        rows: Tensor = self.get_submodule("rows")(index)
        if self.trial is not None:
            has = self.trial.kept[index].unsqueeze(-1)
            inside = torch.arange(self.dim, device=ids.device) < self.trial.widths[field, None]
            return torch.where(has, rows * inside.to(rows), self.trial.shared[field])
        limits: Tensor = self.thresholds
        if self.training and self.alpha and self.seen is not None:
            limits = Raised.apply(limits, self.alpha)  # type: ignore[no-untyped-call]
        above = rows.abs().sum(-1) - limits[index if self.by_id else field]
        found = kept_or_not(above).unsqueeze(-1) * rows
        widths = self.widths()
        if widths is None:
            return found
        inside = torch.arange(self.dim, device=ids.device) < widths[field].unsqueeze(-1)
        return found * inside.to(found)

    def widths(self) -> Tensor | None:
        """How wide fields are in this step of training, int64 `[F]`; None for all of it."""
        if not self.candidates or not self.training:
            return None
        return self.stored.named()[NOW].view(torch.int32).long()

    def draw(self, std: float, generator: torch.Generator) -> None:
        """Normal numbers; thresholds of 0, and full widths."""
        super().draw(std, generator)
        self.thresholds.zero_()
        self._put_widths(self.chosen)

    def _put_widths(self, widths: Sequence[int]) -> None:
        if self.candidates:
            self.stored.put(NOW, torch.tensor(widths, dtype=torch.int32).view(torch.uint8))

    def prepare(self, stats: Statistics) -> None:
        """Take how often ids occur."""
        self.counts = self.counted(stats)
        self.seen = self.counts > 0

    def maintain(self, at: Progress) -> Sequence[RowMove]:
        """Draw the widths that the fields are trained at next, each as likely as the others."""
        if self.candidates and not self.thresholds.is_meta:
            drawn = torch.Generator().manual_seed(derive_salt(self.seed or 0, at.step) >> 1)
            widths = torch.randint(1, self.dim + 1, (len(self.sizes),), generator=drawn)
            self._put_widths(widths.tolist())
        return ()

    def decide(self, judge: Callable[[], float]) -> None:
        """Find the fields' widths at which the model does best within the bytes of the plan."""
        if not self.candidates:
            return
        order = self.order()

        def worth(widths: Widths) -> float:
            kept = self.within(widths, order)
            if not bool(kept.any()):
                return -float("inf")
            device = self.bases.device
            shared = self.means(~kept) if self.shares else self.numbers().new_zeros(1, self.dim)
            self.trial = Trial(
                torch.tensor(widths, device=device), kept.to(device),
                shared.expand(len(widths), -1),
            )  # fmt: skip
            return judge()

        drawn = torch.Generator().manual_seed(derive_salt(self.seed or 0, len(self.sizes)) >> 1)
        try:
            self.chosen = evolved(worth, len(self.sizes), self.dim, self.candidates, drawn)
        finally:
            self.trial = None

    @torch.no_grad()
    def order(self) -> Tensor:
        """All ids: first those above their thresholds, and last those that training lacks."""
        field = torch.arange(len(self.sizes)).repeat_interleave(torch.tensor(self.sizes))
        limits = self.thresholds.double().cpu()
        parts = [each.double().abs().sum(1).cpu() for each in torch.split(self.numbers(), AT_ONCE)]
        above = torch.cat(parts) - (limits if self.by_id else limits[field])
        if self.counts is not None:
            if self.by_use:
                above = torch.where(above > 0, above * self.counts, above)
            above = above.masked_fill(self.counts == 0, -torch.inf)
        return above.nan_to_num(-torch.inf).argsort(descending=True, stable=True)

    def within(self, widths: Widths, order: Tensor) -> Tensor:
        """Which ids have a row within the plan's bytes, the first of an order: bool `[V]`."""
        (spec,) = self.lengths
        most = self.total if self.seen is None else max(1, int(self.seen.sum()))
        if min(widths) == self.dim:
            low = min(most, spec.rows)
        else:
            costs = torch.tensor([row_cost(spec, width) for width in widths])
            taken = costs.repeat_interleave(torch.tensor(self.sizes))[order].cumsum(0)
            steps = sum(steps_bytes(1, 0, width, spec.scale) for width in widths)
            limit, low = self.limit - spec.packed * steps, 0
            while low < most:
                middle = (low + most + 1) // 2
                fits = int(taken[middle - 1]) + index_of(self.total, middle).bytes <= limit
                low, most = (middle, most) if fits else (low, middle - 1)
        found = torch.zeros(self.total, dtype=torch.bool)
        found[order[:low]] = True
        return found

    @property
    def limit(self) -> int:
        """Bytes of the plan's rows, their steps and the index of whose they are."""
        (spec,) = self.lengths
        return spec.bytes + index_of(self.total, spec.rows).bytes

    def ending(self) -> Tensor:
        """The width of each id's row, 0 for none, int64 `[V]`: as the search ends."""
        widths = torch.tensor(self.chosen).repeat_interleave(torch.tensor(self.sizes))
        return widths * self.within(self.chosen, self.order())

    def ending_rows(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """The widths that the search ends with, and the rows that it began with."""
        rows = self.numbers()
        seed = drawn_seed(None) if self.seed is None else self.seed
        noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(seed))
        return self.ending(), (noise * self.std).to(rows), None

    def shared_rows(self) -> Tensor | None:
        """The mean of each field's rows that the plan has no place for, `[F, D]`."""
        return self.means(self.dealt() == 0) if self.shares else None

    @torch.no_grad()
    def means(self, which: Tensor) -> Tensor:
        """The mean of some rows of each field, `[F, D]`, or of all, where there are none of them.

        Rows that training lacks do not count.
        """
        found = []
        known = torch.ones_like(which) if self.seen is None else self.seen
        every = (torch.split(each, self.sizes) for each in (which & known, known))
        for rows, some, other in zip(torch.split(self.numbers(), self.sizes), *every, strict=True):
            these = (some if some.any() else other).nonzero().squeeze(1).to(rows.device)
            found.append(rows[these].double().sum(0) / max(len(these), 1))
        return torch.stack(found).to(self.numbers())

    def dealt(self) -> Tensor:
        """1 for as many ids as the plan has rows, 0 for the others."""
        found = torch.zeros(self.total, dtype=torch.int64)
        found[self.order()[: self.lengths[0].rows]] = 1
        return found

    def bytes(self, phase: str = "serving") -> dict[str, int]:
        """Bytes by kind."""
        if phase != "training":
            return super().bytes(phase)
        weights = sum(each.nbytes for each in self.parameters())
        told = sum(each.nbytes for each in self.stored.named().values())
        return {"weights": weights, "mask": told, "gradients": weights}
