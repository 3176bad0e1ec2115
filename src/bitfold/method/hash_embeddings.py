"""Hash embeddings: `k` hashed rows an id, weighed by importances that are learned for it.

Source: Svenstrup, Hansen, Winther, "Hash Embeddings for Efficient Word Representations", NeurIPS
2017, arXiv 1709.03933. Ids that share rows differ in what the rows count. Importances are `k`
numbers an id, or, where a budget is too small for that, a hashed row of many more than there are
rows of the pool.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import ClassVar

import torch

from bitfold.config import option
from bitfold.embedder.contract import Embedder
from bitfold.embedder.importances import Importances
from bitfold.errors import BitfoldError
from bitfold.method.allocation import allocate, check_minimum
from bitfold.method.base import Forms, Method, check_options
from bitfold.method.hash import check_allocation, field_sizes
from bitfold.method.multi_hash import hashed_program
from bitfold.planning.ask import Ask
from bitfold.planning.field import Field
from bitfold.planning.plan import Plan
from bitfold.planning.spec import Group, dtype_size


@dataclass(frozen=True)
class HashEmbeddings(Method):
    """`k` rows of a field's slice, and `k` importances. Small fields are whole, and have none."""

    hashes: int = option(2, help="k, the rows weighed for an id")
    share: float = option(
        0.25, help="of the budget that importances take, if there are not fewer ids"
    )
    allocation: float = option(
        0.0, help="rows go to fields by size**allocation; 1: one ratio for all, 0: small ones whole"
    )

    name: ClassVar[str] = "hash-embeddings"
    summary: ClassVar[str] = "k hashed rows an id, weighed by learned importances"
    when: ClassVar[str] = "ids that share rows should differ by more than which rows they are"
    forms: ClassVar[Forms] = ({}, {"hashes": 3, "share": 0.5, "allocation": 0.5})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self.name, vars(self), hashes=1)
        check_allocation(self.allocation)
        if not 0 < self.share < 1:
            raise BitfoldError("share is out of range", got=self.share, expected="between 0 and 1")

    def plan(self, ask: Ask) -> Group:
        """Rows, and importances for the fields that are not whole, within the budget."""
        sizes = field_sizes(self.name, ask.fields, ask.budget)
        assert ask.budget is not None
        count, row, unit = len(sizes), ask.row_bytes(), self.hashes * dtype_size(ask.dtype)
        room = ask.budget - ask.fixed_bytes(count)
        spare = room - count * row  # beside a row a field
        low = unit * sum(_folded(ask.fields, [1] * count))
        least = ask.budget - spare + low
        whole = self.whole(ask)
        if whole is not None:
            if whole.bytes(ask.dim) <= ask.budget:
                return whole
            least = min(least, whole.bytes(ask.dim))
        check_minimum(self.name, least, ask.budget)
        kept = min(max(int(self.share * room), low), spare)
        while True:
            rows = allocate(sizes, [1] * count, sizes, (room - kept) // row, self.allocation)
            folded = sum(compress(sizes, _folded(ask.fields, rows)))
            if folded * unit >= kept:
                break
            kept = folded * unit  # whole fields have no importances: what they leave buys rows
        kept = min(folded, (room - sum(rows) * row) // unit) * unit
        group = self.finish(ask, hashed_program(ask, rows, self.hashes), "sum")
        return replace(group, own={"importances": kept})

    def build(
        self, plan: Plan, *, seed: int | None, device: torch.device | str | None, sparse: bool
    ) -> Embedder:
        """The corridor, and the importances dealt to fields as rows are."""
        kept = plan.group.own.get("importances", 0) // (self.hashes * dtype_size(plan.dtype))
        if not kept:
            return super().build(plan, seed=seed, device=device, sparse=sparse)
        folded = _folded(plan.fields, [lookups[0].radix for lookups in plan.program.fields])
        sizes = list(compress(field_sizes(self.name, plan.fields, plan.bytes), folded))
        dealt = iter(allocate(sizes, [1] * len(sizes), sizes, kept, self.allocation))
        rows = [next(dealt) if is_folded else 0 for is_folded in folded]
        return Importances(plan, rows=rows, std=self.std, seed=seed, device=device, sparse=sparse)


def _folded(fields: Sequence[Field], rows: Sequence[int]) -> list[bool]:
    """Which fields have fewer rows than ids, or hashed ones."""
    return [field.num_embeddings != size for field, size in zip(fields, rows, strict=True)]
