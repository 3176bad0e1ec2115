"""Quotient-remainder: an id's quotient and its remainder each pick a row of a table of their own.

Source: Shi, Mudigere, Naumov, Yang, "Compositional Embeddings Using Complementary Partitions for
Memory-Efficient Recommendation Systems", KDD 2020, arXiv 1909.02107. With a field's `R` rows the
divisor is the largest `m` with `m + ceil(V / m) <= R`: remainders pick one of `m` rows, quotients
one of the few others. These are the two digits of a binary code in mixed radices, divided in
integers. Hashed ids have no order: there the digits are those of a mixed code.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from bitfold.config import option, to_json
from bitfold.method.base import Forms, Method
from bitfold.method.binary_code import BinaryCode
from bitfold.method.hash import check_allocation, field_sizes
from bitfold.planning.ask import Ask
from bitfold.planning.spec import Group


class _TwoDigits(BinaryCode):
    """What errors call by the method's own name."""

    name: ClassVar[str] = "quotient-remainder"

    def _remedy(self, minimum: int) -> str:
        return f"raise the budget to {minimum} bytes, or use binary-code, which takes more digits"


@dataclass(frozen=True)
class QuotientRemainder(Method):
    """Two rows an id: of its remainder and of its quotient. Small fields are whole."""

    fusion: str = option(
        "product", help="how the two rows become one vector", choices=("product", "sum", "concat")
    )
    allocation: float = option(
        0.0, help="rows go to fields by size**allocation; 1: one ratio for all, 0: small ones whole"
    )

    name: ClassVar[str] = _TwoDigits.name
    summary: ClassVar[str] = "quotient and remainder of an id each pick a row"
    when: ClassVar[str] = "as the rival that many know; binary-code says the same in more digits"
    forms: ClassVar[Forms] = ({}, {"fusion": "concat", "allocation": 0.5})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_allocation(self.allocation)

    def plan(self, ask: Ask) -> Group:
        """Remainders and quotients for every field, within the budget to the row."""
        field_sizes(self.name, ask.fields, ask.budget)
        digits = _TwoDigits(
            blocks=2, sharing="slices", digits="positional", balance=0.0,
            fusion=self.fusion, allocation=self.allocation,
        )  # fmt: skip
        return replace(digits.plan(ask), version=self.version, options=to_json(self))
