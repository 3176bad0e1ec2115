"""Hot and cold ids: the frequent ones own rows, the others share by one hash or several.

Source: Zhang, Liu, Xie, Ktena, Tejani, Gupta, Myana, Dilipkumar, Paul, Ihara, Upadhyaya, Huszar,
Shi, "Model Size Reduction Using Frequency Based Double Hashing for Recommender Systems", RecSys
2020, arXiv 2007.14523: a cold id has two hashed rows. Here hot ids are those of all fields that
occur most, found by a compact map.

A map takes 10.5 bits a hot id; pointers for every dense id would take log2(rows) bits an id, which
is more wherever the table does not nearly fit.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from bitfold.address import Program
from bitfold.config import option
from bitfold.embedder.contract import Embedder
from bitfold.embedder.hot import Hot
from bitfold.method.base import Forms, Method, Traits, check_options
from bitfold.method.hash import field_sizes
from bitfold.method.hot_rows import MAP, check_share, hot_lookup, split
from bitfold.planning.ask import Ask
from bitfold.planning.plan import Plan
from bitfold.planning.spec import Group, StoredSpec


@dataclass(frozen=True)
class HotCold(Method):
    """Rows of their own for the most frequent ids; the mean of `hashes` shared rows for others."""

    hot: float = option(0.5, help="the share of the budget that rows of hot ids take")
    hashes: int = option(2, help="k, the shared rows of a cold id; a hot one reads its own")

    name: ClassVar[str] = "hot-cold"
    summary: ClassVar[str] = "frequent ids own rows, the others share"
    when: ClassVar[str] = "few ids make most of the rows; needs counts"
    traits: ClassVar[Traits] = Traits(needs_counts=True)
    forms: ClassVar[Forms] = ({}, {"hashes": 1, "hot": 0.8}, {"hashes": 3, "hot": 0.2, "bits": 4})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self.name, vars(self), hashes=1)
        check_share("hot", self.hot)

    def plan(self, ask: Ask) -> Group:
        """As many hot rows as their share of the budget buys, and shared rows for the rest."""
        field_sizes(self.name, ask.fields, ask.budget)
        whole = self.whole(ask)
        if whole is not None and whole.bytes(ask.dim) <= (ask.budget or 0):
            return whole
        hot, shared = split(self.name, ask, self.hot, whole)
        fields = tuple(
            tuple(hot_lookup(ask, name, hot, shared, k) for k in range(self.hashes))
            for name in (field.name for field in ask.fields)
        )
        program = Program(1, fields, hot + shared)
        stored = [StoredSpec(*table) for table in program.tables.values()]
        return self.finish(ask, program, "mean", stored=stored)

    def build(
        self, plan: Plan, *, seed: int | None, device: torch.device | str | None, sparse: bool
    ) -> Embedder:
        """The corridor that chooses hot ids, or a whole table."""
        if not any(each.name == MAP for each in plan.group.stored):
            return super().build(plan, seed=seed, device=device, sparse=sparse)
        return Hot(plan, std=self.std, seed=seed, device=device, sparse=sparse)
