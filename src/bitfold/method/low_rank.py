"""Low rank: a table as the product of a narrow table and a matrix, `[V, w] x [w, D]`.

Source: Lan, Chen, Goodman, Gimpel, Sharma, Soricut, "ALBERT: A Lite BERT for Self-supervised
Learning of Language Representations", ICLR 2020, arXiv 1909.11942, section 3.1 (factorized
embedding parameterization). The width follows from the budget and is one for all fields, but for
whole numbers.
"""

from dataclasses import dataclass
from typing import ClassVar

from bitfold.method.base import Forms, Method, Traits, only
from bitfold.method.widths import groups_of_widths
from bitfold.planning.ask import Ask
from bitfold.planning.spec import Group


@dataclass(frozen=True)
class LowRank(Method):
    """A row of `w` numbers for every id, lifted to `D` by a matrix a field. Needs dense ids."""

    name: ClassVar[str] = "low-rank"
    summary: ClassVar[str] = "narrow rows, an id each, lifted to the model's width"
    when: ClassVar[str] = "budgets down to a few numbers an id, where every id counts alike"
    traits: ClassVar[Traits] = Traits(hashed_ids=False)
    forms: ClassVar[Forms] = ({}, {"bits": 4})

    def plan(self, ask: Ask) -> Group:
        """The only group, where all fields have one width."""
        return only(self.name, self.groups(ask))

    def groups(self, ask: Ask) -> tuple[Group, ...]:
        """The widest rows that the budget buys; small fields are whole."""
        return groups_of_widths(self, ask, lambda scale: [scale * ask.dim] * len(ask.fields))
