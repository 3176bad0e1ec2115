"""CAFE: ids of high gradients own rows, found by a sketch while training; the others share.

Source: Zhang, Liu, Chen, Zhao, Zhao, Yang, Cui, "CAFE: Towards Compact, Adaptive, and Fast
Embedding for Large-scale Recommendation Models", SIGMOD 2024, arXiv 2312.03256. Rows are found by a
compact map in place of the paper's pointers, which take more. The sketch is counted and saved, so
that a served model can be trained on.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from bitfold.address import Program
from bitfold.config import option
from bitfold.embedder.contract import Embedder
from bitfold.embedder.owners import KEY_BITS
from bitfold.embedder.sketch import KEYS, SCORES, Sketching
from bitfold.errors import BitfoldError
from bitfold.method.base import Forms, Method, check_options
from bitfold.method.hash import field_sizes
from bitfold.method.hot_rows import check_share, hot_lookup, map_bytes, split
from bitfold.planning.ask import Ask
from bitfold.planning.plan import Plan
from bitfold.planning.spec import Group, StoredSpec

BUCKET = 4  # slots of a bucket, as in the paper


@dataclass(frozen=True)
class Cafe(Method):
    """Rows of their own for the ids of the highest gradients; a shared row for the others."""

    hot: float = option(
        0.3, help="the share of the budget that hot ids take, with the map and the sketch of them"
    )
    slots: float = option(1.5, help="slots of the sketch for each hot row, of 8 bytes")
    every: int = option(100, help="after how many steps rows change their owners")
    decay: float = option(0.98, help="what scores are multiplied with then, to follow changes")

    name: ClassVar[str] = "cafe"
    summary: ClassVar[str] = "ids of high gradients own rows, found while training; others share"
    when: ClassVar[str] = "what is hot is not known before, or changes"
    forms: ClassVar[Forms] = ({"every": 3}, {"every": 2, "hot": 0.6, "slots": 4.0, "decay": 0.5})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self.name, vars(self), every=1, slots=1)
        check_share("hot", self.hot)
        if not 0 < self.decay <= 1:
            raise BitfoldError("decay is out of range", got=self.decay, expected="0 to 1")

    def plan(self, ask: Ask) -> Group:
        """Hot rows with their map and sketch, and shared rows for the rest of the budget."""
        field_sizes(self.name, ask.fields, ask.budget)
        whole = self.whole(ask)
        if whole is not None and whole.bytes(ask.dim) <= (ask.budget or 0):
            return whole

        def beside(hot: int) -> int:
            return map_bytes(hot) + sum(each.bytes for each in self._sketch(hot))

        hot, shared = split(self.name, ask, self.hot, whole, beside)
        names = [field.name for field in ask.fields]
        fields = tuple((hot_lookup(ask, name, hot, shared, 0, KEY_BITS),) for name in names)
        program = Program(1, fields, hot + shared)
        stored = [StoredSpec(*table) for table in program.tables.values()] + self._sketch(hot)
        return self.finish(ask, program, "sum", stored=stored)

    def build(
        self, plan: Plan, *, seed: int | None, device: torch.device | str | None, sparse: bool
    ) -> Embedder:
        """The corridor with a sketch, or a whole table."""
        if not any(each.kind == "sketch" for each in plan.group.stored):
            return super().build(plan, seed=seed, device=device, sparse=sparse)
        return Sketching(
            plan, slots=BUCKET, every=self.every, decay=self.decay, std=self.std, seed=seed,
            device=device, sparse=sparse,
        )  # fmt: skip

    def _sketch(self, hot: int) -> list[StoredSpec]:
        """Keys and scores of the slots, in whole buckets."""
        slots = -(-int(hot * self.slots) // BUCKET) * BUCKET
        return [StoredSpec(name, slots, 32, "sketch") for name in (KEYS, SCORES)]
