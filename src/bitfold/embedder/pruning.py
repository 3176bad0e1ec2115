"""Rows whose small numbers are pruned: thresholds that are learned, then a mask that stays.

Source: Liu, Gao, Chen, Jin, Li, "Learnable Embedding Sizes for Recommender Systems", ICLR 2021
(PEP), arXiv 2101.07577, sections 3.2 and 3.3.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitfold.embedder.contract import Embedder, Progress
from bitfold.embedder.corridor import Corridor
from bitfold.planning.plan import Plan
from bitfold.planning.spec import PoolSpec
from bitfold.pool import pool_of
from bitfold.pool.dense import Cells, DensePool
from bitfold.pool.moved import RowMove
from bitfold.pool.pruned import MaskedPool, PrunedPool, highest


class Thresholds(nn.Module):
    """What is taken off the numbers: `sigmoid(s)`, where `s = start + weight`.

    Decay draws thresholds to where they started. They are a module of their own: all that a
    `SparsePool` itself holds has sparse gradients.

    Args:
        shape: `[1, 1]`, `[F, 1]`, `[1, w]` or `[R, 1]`.
        bounds: the last row of each field, one more, for a threshold each; () otherwise.
        start: the `s` of a fresh threshold.
        device: where it lives.
        dtype: of the numbers.

    Shapes:
        cells int64 `[...]` -> thresholds `[..., 1]` or `[..., w]`.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        bounds: Sequence[int],
        start: float,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.bounds, self.start = tuple(bounds), start
        with torch.inference_mode(False):
            self.weight = nn.Parameter(torch.zeros(shape, device=device, dtype=dtype))

    def forward(self, cells: Tensor) -> Tensor:
        """The thresholds of the numbers at cells."""
        threshold: Tensor = self.weight
        if len(self.bounds) > 1:
            bounds = torch.tensor(self.bounds[:-1], device=cells.device)
            threshold = threshold[torch.bucketize(cells, bounds, right=True)]
        elif len(threshold) > 1:
            threshold = threshold[cells]
        return torch.sigmoid(self.start + threshold)


class ThresholdPool(DensePool):
    """`R` rows of `w` trained numbers, read as `sign(v) * relu(|v| - threshold)`.

    Args:
        rows: `R`.
        width: `w`.
        kept: how many numbers will be kept in the end.
        bounds: as for `Thresholds`.
        shape: of the thresholds.
        start: as for `Thresholds`.
        sparse: whether the gradient of the rows is a sparse tensor.
        device: where it lives.
        dtype: of the numbers.
    """

    def __init__(
        self,
        rows: int,
        width: int,
        kept: int,
        *,
        bounds: Sequence[int],
        shape: tuple[int, int],
        start: float,
        sparse: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(rows, width, sparse=sparse, device=device, dtype=dtype)
        self.kept = kept
        self.thresholds = Thresholds(shape, bounds, start, device, dtype)

    @classmethod
    def kinds(cls) -> tuple[type[DensePool], type[DensePool]]:
        """The classes of pools whose gradients are dense, and sparse."""
        return ThresholdPool, SparseThresholdPool

    def read_by_kernels(self, weight: Tensor) -> bool:
        """Kernels know no thresholds."""
        return False

    def at(self, weight: Tensor, cells: Tensor) -> Tensor:
        """Pieces of a weight at cells, each number drawn towards zero by its threshold."""
        found = F.embedding(cells, weight, sparse=self.sparse)
        drawn: Tensor = found.sign() * F.relu(found.abs() - self.thresholds(cells))
        return drawn

    @torch.no_grad()
    def held(self, cells: Tensor, numbers: Tensor) -> Tensor:
        """Numbers beyond their thresholds, which are taken off when they are read."""
        beyond: Tensor = numbers + numbers.sign() * self.thresholds(cells).to(numbers)
        return beyond

    def choose(self, counts: Tensor) -> None:
        """Nothing is left out before the search is over."""

    @torch.no_grad()
    def best(self) -> Tensor:
        """The places of the `kept` numbers that lie highest above their thresholds, ascending."""
        cells = torch.arange(len(self.weight), device=self.weight.device)
        above: Tensor = self.weight.abs() - self.thresholds(cells)
        return highest(above.flatten(), self.kept)

    @torch.no_grad()
    def serving(self) -> PrunedPool:
        """The best numbers, drawn towards zero as they are read: the smallest others are lost."""
        rows, width = self.weight.shape
        made = PrunedPool(
            rows, width, self.kept, device=self.weight.device, dtype=self.weight.dtype
        )
        if not self.weight.is_meta:
            places = self.best()
            read = self.at(self.weight, torch.arange(rows, device=self.weight.device))
            made.fill(places, read.flatten()[places])
        return made


class SparseThresholdPool(ThresholdPool, Cells):  # type: ignore[misc] # as `SparsePool`
    """A pool with thresholds whose rows have a sparse gradient."""


class Kept(Corridor):
    """A table of which some numbers are kept: first it searches which, then it trains those.

    A subclass says by `searching` what pool searches; one has `best`, the places that it keeps.

    Args:
        plan: where every number lies; one group, and how far it has come.
        how: as for every corridor.
    """

    def searching(self, spec: PoolSpec, **how: Any) -> Any:
        """The pool of the search."""
        raise NotImplementedError

    @property
    def searches(self) -> bool:
        """Whether it searches."""
        return hasattr(self.pool, "best")

    @property
    def exact(self) -> bool:  # type: ignore[override]
        """Whether it serves the very vectors that it trains."""
        return not self.searches

    def new_pool(self, spec: PoolSpec, **how: Any) -> Any:
        """The pool of the search, a mask afterwards."""
        return pool_of(spec, **how) if self.plan.phase else self.searching(spec, **how)

    def maintain(self, at: Progress) -> Sequence[RowMove]:
        """Fill rows that nothing trains while it searches; afterwards most of them are pruned."""
        return super().maintain(at) if self.searches else ()

    def bytes(self, phase: str = "serving") -> dict[str, int]:
        """Bytes by kind."""
        if phase != "training":
            return super().bytes(phase)
        weights = sum(each.nbytes for each in self.parameters())
        masks = sum(each.nbytes for each in self.buffers())
        return {"weights": weights, "mask": masks, "gradients": weights}

    def inherit(self, before: Embedder) -> None:
        """Keep the numbers that the search found best."""
        if isinstance(self.pool, MaskedPool) and isinstance(before, Kept):
            found = before.pool
            self.pool.keep(found.best() if before.searches else found.places())


class Pruning(Kept):
    """A table that is pruned: it searches what to keep, and trains that from where it began.

    Args:
        plan: where every number lies; one group, and how far it has come.
        threshold: what has a threshold of its own: `global`, `field`, `dimension` or `feature`.
        start: `s` of a fresh threshold.
        how: as for every corridor.
    """

    def __init__(self, plan: Plan, *, threshold: str, start: float, **how: Any) -> None:
        self.kind, self.start = threshold, start
        super().__init__(plan, **how)

    def searching(self, spec: PoolSpec, **how: Any) -> Any:
        """Numbers with thresholds."""
        lookups = [each for (each,) in self.program.fields]
        shapes = {
            "global": (1, 1),
            "field": (len(lookups), 1),
            "dimension": (1, spec.width),
            "feature": (spec.rows, 1),
        }
        return ThresholdPool(
            spec.rows,
            spec.width,
            spec.kept or 0,
            bounds=[each.base + each.span for each in lookups] if self.kind == "field" else (),
            shape=shapes[self.kind],
            start=self.start,
            **how,
        )

    @torch.no_grad()
    def _draw(self, std: float, generator: torch.Generator) -> None:
        super()._draw(std, generator)
        if self.searches:
            self.pool.thresholds.weight.zero_()
