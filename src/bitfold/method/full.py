"""The full table: a row of its own for every id. The reference that the others are held to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from bitfold.address.program import Lookup, Program, Source, place
from bitfold.method.allocation import check_minimum
from bitfold.method.base import Method, dense_only
from bitfold.planning.field import Field
from bitfold.planning.plan import Plan, dtype_size


@dataclass(frozen=True)
class Full(Method):
    """One row an id. Needs dense ids."""

    name: ClassVar[str] = "full"
    summary: ClassVar[str] = "a row of its own for every id; the uncompressed reference"
    when: ClassVar[str] = "the table fits, or as the yardstick of a comparison"
    hashed_ids: ClassVar[bool] = False

    def plan(
        self, fields: Sequence[Field], dim: int, budget: int | None, *, seed: int, dtype: str
    ) -> Plan:
        """All rows, or `BudgetTooSmall`."""
        dense_only(self.name, fields)
        sizes = [field.num_embeddings or 0 for field in fields]
        bases, rows = place(sizes)
        if budget is not None:
            check_minimum(self.name, rows * dim * dtype_size(dtype), budget)
        lookups = zip(sizes, bases, strict=True)
        program = Program(1, tuple((Lookup(Source(), size, base),) for size, base in lookups), rows)
        return self.finish(fields, dim, budget, dtype, program, "sum")
