"""Rows whose smallest numbers are pruned little by little, while the others are trained.

Source: Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model
compression", 2017, arXiv 1710.01878, section 3.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bitfold.embedder.contract import Progress
from bitfold.embedder.pruning import Kept
from bitfold.planning.plan import Plan
from bitfold.planning.spec import PoolSpec
from bitfold.pool.dense import Cells, DensePool
from bitfold.pool.moved import RowMove
from bitfold.pool.pruned import MaskedPool, highest


def sparsity(part: float) -> float:
    """The share of what is to be pruned that is, at a part of the schedule: `1 - (1 - u)**3`.

    Most goes early, while many numbers can be spared, and less and less towards the end.

    Example:
        >>> [sparsity(part) for part in (-1.0, 0.0, 0.5, 1.0, 2.0)]
        [0.0, 0.0, 0.875, 1.0, 1.0]
    """
    return 1 - (1 - min(max(part, 0.0), 1.0)) ** 3


def ends_at(share: float, epochs: int) -> int:
    """The epoch that the first of two phases ends with, as `training.phases.stages` has it.

    Example:
        >>> ends_at(0.5, 4), ends_at(0.01, 4), ends_at(0.99, 4), ends_at(0.5, 1)
        (2, 1, 3, 1)
    """
    return min(max(round(epochs * share), 1), max(epochs - 1, 1))


def shared_out(count: int, sizes: Sequence[int]) -> list[int]:
    """A count in proportion to sizes, in whole numbers: what rounding leaves to the largest rests.

    Example:
        >>> shared_out(5, [6, 3, 1])
        [3, 2, 0]
    """
    total = sum(sizes)
    found = [count * size // total for size in sizes]
    rests = sorted(range(len(sizes)), key=lambda i: -(count * sizes[i] % total))
    for number in rests[: count - sum(found)]:
        found[number] += 1
    return found


class GradualPool(MaskedPool):
    """A masked pool that begins with all of its numbers and is pruned to `kept`.

    Pruned numbers keep their values and have no gradients: those that the others fall below come
    back when it is pruned next, as in the paper.

    Args:
        rows: `R`.
        width: `w`.
        kept: how many numbers are left in the end.
        bounds: the last row of each part, one more: of each part the same share is kept. With one
            part the largest numbers of the pool are, wherever they lie.
        how: as for `MaskedPool`.

    Example:
        >>> pool = GradualPool(2, 3, 2, bounds=[2])
        >>> _ = pool.weight.data.copy_(torch.tensor([[0.1, -3.0, 2.0], [0.5, 1.0, -0.2]]))
        >>> pool.prune(4)
        >>> pool(torch.tensor([0, 1])).tolist()
        [[0.0, -3.0, 2.0], [0.5, 1.0, 0.0]]
        >>> pool.best().tolist()
        [1, 2]
    """

    def __init__(
        self, rows: int, width: int, kept: int, *, bounds: Sequence[int], **how: Any
    ) -> None:
        super().__init__(rows, width, kept, **how)
        starts = [0, *bounds[:-1]]
        self.parts = [(end - start) * width for start, end in zip(starts, bounds, strict=True)]
        self.mask.fill_(True)

    @classmethod
    def kinds(cls) -> tuple[type[DensePool], type[DensePool]]:
        """The classes of pools whose gradients are dense, and sparse."""
        return GradualPool, SparseGradualPool

    @torch.no_grad()
    def prune(self, count: int) -> None:
        """Let the `count` largest numbers count, of all that there are."""
        if count == self.mask.numel():
            self.mask.fill_(True)
            return
        places = self._largest(self.weight.abs().flatten(), count)
        self.mask.zero_().view(-1)[places] = True

    @torch.no_grad()
    def best(self) -> Tensor:
        """The places of the `kept` largest numbers of those that count, ascending."""
        size = self.weight.abs().float().masked_fill(~self.mask, -1.0)
        return self._largest(size.flatten(), self.kept)

    def _largest(self, sizes: Tensor, count: int) -> Tensor:
        counts, found, begin = shared_out(count, self.parts), [], 0
        for some, part in zip(counts, self.parts, strict=True):
            if some:
                found.append(highest(sizes[begin : begin + part], some) + begin)
            begin += part
        return torch.cat(found)

    def places(self) -> Tensor:
        """Which numbers it would keep, int64 `[kept]`."""
        return self.best()


class SparseGradualPool(GradualPool, Cells):  # type: ignore[misc] # as `SparsePool`
    """Such a pool whose gradient is a sparse tensor."""


class Gradual(Kept):
    """A table that is trained and pruned little by little, and then trained on as it is.

    Args:
        plan: where every number lies; one group, and how far it has come.
        share: of the epochs, in which it is pruned.
        dense: the share of those before anything is.
        every: steps between two prunings; 0 for one pruning, at the end.
        scope: what magnitudes are compared over: `table`, or a `field` each.
        how: as for every corridor.
    """

    def __init__(
        self, plan: Plan, *, share: float, dense: float, every: int, scope: str, **how: Any
    ) -> None:
        self.share, self.dense, self.scope, self.steps = share, dense, scope, every
        super().__init__(plan, **how)
        self.every = every if self.searches else 0

    def searching(self, spec: PoolSpec, **how: Any) -> Any:
        """Numbers that all count, at first."""
        ends = [each.base + each.span for (each,) in self.program.fields]
        bounds = ends if self.scope == "field" else [spec.rows]
        return GradualPool(spec.rows, spec.width, spec.kept or 0, bounds=bounds, **how)

    @torch.no_grad()
    def _draw(self, std: float, generator: torch.Generator) -> None:
        super()._draw(std, generator)
        if self.searches:
            self.pool.mask.fill_(True)

    def wanted(self, at: Progress) -> int:
        """How many numbers are left at a time."""
        every, kept = int(self.pool.weight.numel()), int(self.pool.kept)
        if not at.epochs:
            return every
        ended = at.step / at.epoch_steps if at.epoch_steps else float(at.epoch)
        done = max(ended, float(at.epoch)) / ends_at(self.share, at.epochs)
        if not self.steps:
            return every if done < 1 else kept
        part = sparsity((done - self.dense) / (1 - self.dense))
        return every - round((every - kept) * part)

    @torch.no_grad()
    def maintain(self, at: Progress) -> Sequence[RowMove]:
        """Prune. Rows that no training id reads are zeros: they are pruned first."""
        if not self.searches or self.pool.weight.is_meta:
            return ()
        for field, unseen in self.unseen.items() if self.fills_unseen else ():
            unseen = unseen.to(self.pool.weight.device)
            for lookup in self.program.fields[field]:
                self.pool.weight[lookup.base + unseen.nonzero().squeeze(1)] = 0.0
        wanted = self.wanted(at)
        if wanted > self.pool.kept or int(self.pool.mask.sum()) > wanted:  # afterwards it stays
            self.pool.prune(wanted)
        return ()
