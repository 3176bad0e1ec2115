"""The full table: a row of its own for every id. The reference that the others are held to."""

from dataclasses import dataclass
from typing import ClassVar

from bitfold.errors import BitfoldError
from bitfold.method.allocation import check_minimum
from bitfold.method.base import Method, Traits, dense_only
from bitfold.planning.ask import Ask
from bitfold.planning.spec import Group


@dataclass(frozen=True)
class Full(Method):
    """One row an id. Needs dense ids."""

    name: ClassVar[str] = "full"
    summary: ClassVar[str] = "a row of its own for every id; the uncompressed reference"
    when: ClassVar[str] = "the table fits, or as the yardstick of a comparison"
    traits: ClassVar[Traits] = Traits(hashed_ids=False, uncompressed=True)

    def plan(self, ask: Ask) -> Group:
        """All rows, or `BudgetTooSmall`."""
        dense_only(self.name, ask.fields)
        group = self.whole(ask)
        if group is None:
            raise BitfoldError(
                "these fields have more ids than an int64 can number",
                got=f"{sum(field.num_embeddings or 0 for field in ask.fields)} rows",
                expected="fewer than 2**63",
            )
        if ask.budget is not None:
            check_minimum(self.name, group.bytes(ask.dim), ask.budget)
        return group
