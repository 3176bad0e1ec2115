"""PEP: learned thresholds find the numbers worth keeping; they are trained anew, without the rest.

Source: Liu, Gao, Chen, Jin, Li, "Learnable Embedding Sizes for Recommender Systems", ICLR 2021,
arXiv 2101.07577. The paper prunes until a number of parameters is reached; here the budget says how
many numbers there are, and those that lie highest above their thresholds at the end of the search
are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from bitfold.config import option
from bitfold.embedder.contract import Embedder
from bitfold.embedder.pruning import Pruning
from bitfold.errors import BitfoldError
from bitfold.method.base import Forms, Method, Phase, Traits
from bitfold.method.pruned import PRUNED, pruned
from bitfold.planning.ask import Ask
from bitfold.planning.plan import Plan
from bitfold.planning.spec import Group

LEAST_START = -100.0


@dataclass(frozen=True)
class Pep(Method):
    """A full table of which as many numbers are kept as the budget buys."""

    threshold: str = option(
        "feature",
        help="what has a threshold of its own; more thresholds tell rare ids from frequent ones",
        choices=("global", "field", "dimension", "feature"),
    )
    start: float = option(
        -15.0, help="thresholds begin at sigmoid(start); the paper has -15 to -150"
    )
    search: float = option(0.5, help="the share of the epochs that the search takes")

    name: ClassVar[str] = "pep"
    summary: ClassVar[str] = "a full table pruned by learned thresholds, then trained anew"
    when: ClassVar[str] = "widths should follow how much each id has to say; twice the training"
    traits: ClassVar[Traits] = PRUNED
    forms: ClassVar[Forms] = (
        {},
        {"threshold": "global", "start": -8.0},
        {"threshold": "field", "start": -8.0},
        {"threshold": "dimension", "budget": "12x"},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.search < 1:
            raise BitfoldError("search is out of range", got=self.search, expected="0 to 1, apart")
        if not LEAST_START <= self.start <= 0:  # sigmoid(0) is far above any fresh number
            raise BitfoldError(
                "start is out of range", got=self.start, expected=f"{LEAST_START:g} to 0"
            )

    def plan(self, ask: Ask) -> Group:
        """As many numbers as the budget buys beside the index of which they are."""
        return pruned(self, ask)

    def build(
        self, plan: Plan, *, seed: int | None, device: torch.device | str | None, sparse: bool
    ) -> Embedder:
        """The table while it searches, or the masked one."""
        if plan.group.pools[0].kept is None:
            return super().build(plan, seed=seed, device=device, sparse=sparse)
        return Pruning(
            plan, threshold=self.threshold, start=self.start, std=self.std, seed=seed,
            device=device, sparse=sparse,
        )  # fmt: skip

    def phases(self, group: Group) -> Sequence[Phase]:
        """A search, and the training of what it found from the same initial values."""
        if group.pools[0].kept is None:
            return ()
        return Phase("search", self.search), Phase("retrain", 1 - self.search, start="fresh")
