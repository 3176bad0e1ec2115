"""Mixed dimensions: fields of popular ids have wide rows, those of rare ids narrow ones.

Source: Ginart, Naumov, Mudigere, Yang, Zou, "Mixed Dimension Embeddings with Application to
Memory-Efficient Recommendation Systems", ISIT 2021, arXiv 1909.11810. Every row of a log has one id
of each field, so an id of a field of `V` ids has popularity `1 / V` on average, and the widths are
`d_f = s / V_f ** alpha`, no wider than `D`, with the scale `s` that the budget allows. Narrow rows
are lifted by a matrix a field.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from bitfold.config import option
from bitfold.errors import BitfoldError
from bitfold.method.base import Forms, Method, Traits, only
from bitfold.method.widths import groups_of_widths
from bitfold.planning.ask import Ask
from bitfold.planning.spec import Group


@dataclass(frozen=True)
class MixedDimensions(Method):
    """A row for every id, the narrower the more ids a field has. Needs dense ids."""

    alpha: float = option(
        0.3, help="how fast widths fall with a field's ids; 0: one width, as low-rank"
    )

    name: ClassVar[str] = "mixed-dimensions"
    summary: ClassVar[str] = "the more ids a field has, the narrower their rows"
    when: ClassVar[str] = "fields of very unlike sizes, and budgets down to a few numbers an id"
    traits: ClassVar[Traits] = Traits(hashed_ids=False)
    forms: ClassVar[Forms] = ({"alpha": 0.6},)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 2:
            raise BitfoldError("alpha is out of range", got=self.alpha, expected="0 to 2")

    def plan(self, ask: Ask) -> Group:
        """The only group, where all fields have one width."""
        return only(self.name, self.groups(ask))

    def groups(self, ask: Ask) -> tuple[Group, ...]:
        """The widest rows that the budget buys, in the proportions of the paper."""
        sizes = [field.num_embeddings or 1 for field in ask.fields]
        largest = max(sizes)

        def wanted(scale: float) -> Sequence[float]:
            return [scale * ask.dim * (largest / size) ** self.alpha for size in sizes]

        return groups_of_widths(self, ask, wanted)
