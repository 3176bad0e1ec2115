"""Utilities of chunks: how often and how hard training pulls at them, and who holds what by it.

Source: Luo et al., "Fine-Grained Embedding Dimension Optimization During Training for Recommender
Systems" (FIITED), arXiv 2401.04408: u(i) = decay * u(i - 1) + a(i) g(i), of step i, with accesses a
and the length g of the gradient.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitfold.address.tables import StoredTables
from bitfold.pool.counted import Counted

WORTH = "worth"
Numbers = NDArray[np.int64]


class Utilities(Counted):
    """The utilities of the `C` chunks of `N` rows, and how many steps there were.

    Decay comes by the step and is made up for at once: what is added `t` steps after utilities
    were settled is added `decay ** -t` times, and all are multiplied when they are settled.

    They are no buffers, of which averages would be taken and casts be made.

    Args:
        rows: `N`.
        chunks: `C`.
        decay: what a step leaves of a utility.
        every: after how many steps they are settled.
        device: where they live.

    Example:
        >>> found = Utilities(2, 1, decay=0.5, every=2)
        >>> found.add(torch.tensor([0]), torch.tensor([[8.0]]))
        >>> found.step()
        False
        >>> found.add(torch.tensor([0, 1]), torch.tensor([[1.0], [3.0]]))
        >>> found.step(), found.worth.tolist()
        (True, [[5.0], [3.0]])
    """

    counter = "steps"
    steps: Tensor

    def __init__(
        self,
        rows: int,
        chunks: int,
        *,
        decay: float,
        every: int,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.decay, self.every = (rows, chunks), decay, every
        self.start_count()
        self.kept = StoredTables([(WORTH, 4 * rows * chunks)], device)

    @property
    def worth(self) -> Tensor:
        """The utilities, float32 `[N, C]`: what is written there is kept."""
        return self.kept.named()[WORTH].view(torch.float32).view(self.shape)

    def start(self) -> None:
        """Begin anew: nothing is worth anything."""
        self.start_count()
        self.worth.zero_()

    def add(self, rows: Tensor, gains: Tensor) -> None:
        """Add what a step has shown: gains `[n, C]` of rows `[n]`, which are distinct."""
        late, worth = int(self.steps) % self.every + 1, self.worth
        worth[rows] += gains.to(worth).nan_to_num(0.0, 0.0, 0.0) * self.decay**-late

    def step(self) -> bool:
        """Count a step; returns whether utilities were settled with it."""
        self.steps += 1
        if int(self.steps) % self.every:
            return False
        self.worth.mul_(self.decay**self.every)
        return True


class Trade(NamedTuple):
    """Which chunks lose what they hold, and which take it.

    Args:
        losers: the chunks that are evicted, int64 `[m]`.
        newcomers: those that hold something from now on, `[n]`.
        slots: what each of them takes, `[n]`.
    """

    losers: Numbers
    newcomers: Numbers
    slots: Numbers


def trade(worth: NDArray[np.float32], held: Numbers, slots: int, evict: bool = True) -> Trade:
    """The chunks of the highest utilities hold slots; of equal ones those that do already.

    Args:
        worth: the utility of every chunk, `[n]`. Chunks that are worth nothing take nothing.
        held: the slot that each holds, or -1.
        slots: how many there are. Those that nobody holds are the free list.
        evict: whether chunks that are worth something may lose what they hold.

    Example:
        >>> trade(np.array([5, 1, 3, 2, 0], np.float32), np.array([-1, 0, -1, 2, -1]), 3)
        Trade(losers=array([1]), newcomers=array([0, 2]), slots=array([0, 1]))
    """
    owners, others = np.flatnonzero(held >= 0), np.flatnonzero((held < 0) & (worth > 0))
    if len(others) > slots:  # the best that could find a place, the first of equal ones
        least = np.partition(worth[others], -slots)[-slots]
        others = others[worth[others] >= least]
    others = others[np.argsort(-worth[others], kind="stable")][:slots]
    owners = owners[np.argsort(worth[owners], kind="stable")]
    spare = slots - len(np.unique(held[owners]))
    rivals, weak = worth[others[spare:]], worth[owners]
    pairs = min(len(rivals), len(weak))
    loses = rivals[:pairs] > weak[:pairs]
    if not evict:
        loses &= weak[:pairs] <= 0
    losers = np.sort(owners[: int(loses.sum())])
    taken = np.zeros(slots, bool)
    taken[held[np.setdiff1d(owners, losers)]] = True
    free = np.flatnonzero(~taken)
    newcomers = others[: min(len(free), spare + len(losers))]
    return Trade(losers, newcomers, free[: len(newcomers)])
