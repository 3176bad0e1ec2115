"""Magnitude pruning: a full table loses its smallest numbers little by little, while it trains.

Source: Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model
compression", 2017, arXiv 1710.01878. The paper is given a sparsity; here the budget says how many
numbers are left beside the index of where they stand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from bitfold.config import option
from bitfold.embedder.contract import Embedder
from bitfold.embedder.gradual import Gradual
from bitfold.errors import BitfoldError
from bitfold.method.base import Forms, Method, Phase, Traits, check_options
from bitfold.method.pruned import PRUNED, pruned
from bitfold.planning.ask import Ask
from bitfold.planning.plan import Plan
from bitfold.planning.spec import Group


@dataclass(frozen=True)
class MagnitudePruning(Method):
    """A full table of which the largest numbers are kept, as many as the budget buys."""

    schedule: str = option(
        "cubic",
        help="how numbers go: `cubic` little by little, most of them early, as in the paper; "
        "`once` all at the end of the pruning",
        choices=("cubic", "once"),
    )
    prune: float = option(
        0.5, help="the share of the epochs in which the table is trained and pruned"
    )
    dense: float = option(0.25, help="with schedule=cubic: the share of those before it begins")
    every: int = option(100, help="with schedule=cubic: steps between two prunings")
    scope: str = option(
        "table",
        help="which numbers are compared: those of the `table` of all fields, or of each `field`, "
        "all of which keep one share, as layers in the paper",
        choices=("table", "field"),
    )
    after: str = option(
        "tune",
        help="what is left is trained on (`tune`), as in the paper, or `retrain`ed from its "
        "initial values, as pep does",
        choices=("tune", "retrain"),
    )

    name: ClassVar[str] = "magnitude-pruning"
    summary: ClassVar[str] = "a full table that loses its smallest numbers while it trains"
    when: ClassVar[str] = "as the baseline of pruning; training can hold the full table"
    traits: ClassVar[Traits] = PRUNED
    forms: ClassVar[Forms] = (
        {},
        {"schedule": "once", "scope": "field", "after": "retrain"},
        {"every": 3, "dense": 0.0, "prune": 0.9, "budget": "12x"},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self.name, vars(self), every=1)
        if not 0 < self.prune < 1:
            raise BitfoldError("prune is out of range", got=self.prune, expected="0 to 1, apart")
        if not 0 <= self.dense < 1:
            raise BitfoldError("dense is out of range", got=self.dense, expected="0 to below 1")

    def plan(self, ask: Ask) -> Group:
        """As many numbers as the budget buys beside the index of which they are."""
        return pruned(self, ask)

    def build(
        self, plan: Plan, *, seed: int | None, device: torch.device | str | None, sparse: bool
    ) -> Embedder:
        """The whole table, while it is pruned or afterwards."""
        if plan.group.pools[0].kept is None:
            return super().build(plan, seed=seed, device=device, sparse=sparse)
        return Gradual(
            plan, share=self.prune, dense=self.dense, scope=self.scope,
            every=self.every if self.schedule == "cubic" else 0,
            std=self.std, seed=seed, device=device, sparse=sparse,
        )  # fmt: skip

    def phases(self, group: Group) -> Sequence[Phase]:
        """The pruning, and the training of what is left."""
        if group.pools[0].kept is None:
            return ()
        start = "carry" if self.after == "tune" else "fresh"
        return Phase("prune", self.prune), Phase(self.after, 1 - self.prune, start=start)
