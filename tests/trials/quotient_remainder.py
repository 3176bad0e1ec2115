"""Trial: an id's remainder and its quotient each pick a row; Shi et al., KDD 2020, 1909.02107."""

from dataclasses import dataclass
from math import isqrt
from typing import ClassVar

from bitfold.extending import (
    Ask,
    Group,
    Lookup,
    Method,
    Program,
    Raw,
    Traits,
    allocate,
    check_minimum,
    dense_only,
    field_sizes,
    option,
    place,
)


@dataclass(frozen=True)
class TrialQuotientRemainder(Method):
    """Two rows an id, multiplied or added; small fields are whole."""

    fusion: str = option("product", help="how the rows are fused", choices=("product", "sum"))

    name: ClassVar[str] = "trial-quotient-remainder"
    summary: ClassVar[str] = "remainder and quotient of an id each pick a row"
    when: ClassVar[str] = "never: a trial of what methods are written with"
    traits: ClassVar[Traits] = Traits(hashed_ids=False)

    def plan(self, ask: Ask) -> Group:
        """The largest divisor with which remainders and quotients fit a field's rows."""
        dense_only(self.name, ask.fields)
        sizes = field_sizes(self.name, ask.fields, ask.budget)
        assert ask.budget is not None, "field_sizes asks for one"
        fixed, row = ask.fixed_bytes(2 * len(sizes)), ask.row_bytes()
        least = [min(size, 2 * isqrt(size) + 2) for size in sizes]
        check_minimum(self.name, fixed + row * sum(least), ask.budget)
        rows = allocate(sizes, least, sizes, (ask.budget - fixed) // row, 0.0)
        bases, end = place(rows)
        lookups = []
        for size, given, base in zip(sizes, rows, bases, strict=True):
            if given == size:
                lookups.append((Lookup(Raw(), size, base),))
                continue
            divisor = next(m for m in range(given - 1, 0, -1) if m + -(-size // m) <= given)
            quotients = -(-size // divisor)
            second = Lookup(Raw(), quotients, base + divisor, divisor=divisor)
            lookups.append((Lookup(Raw(), divisor, base), second))
        return self.finish(ask, Program(1, tuple(lookups), end), self.fusion)
