"""Trial: signed pieces of one array that begin anywhere; Desai et al., MLSys 2022, 2108.02191."""

from dataclasses import dataclass, replace
from typing import ClassVar

from bitfold.extending import (
    Ask,
    BitfoldError,
    Group,
    Lookup,
    Method,
    Mixed,
    Program,
    Traits,
    check_minimum,
    check_options,
    derive_salt,
    field_sizes,
    option,
)


@dataclass(frozen=True)
class TrialRobe(Method):
    """A vector is `D / Z` pieces of `Z` neighbours, each turned by a sign."""

    piece: int = option(2, help="Z, neighbours that are read at once; a divisor of the width")

    name: ClassVar[str] = "trial-robe"
    summary: ClassVar[str] = "signed pieces of one array of numbers"
    when: ClassVar[str] = "never: a trial of what methods are written with"
    traits: ClassVar[Traits] = Traits(narrow=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self.name, vars(self), piece=1)

    def plan(self, ask: Ask) -> Group:
        """All numbers that the budget buys, in one ring."""
        if ask.dim % self.piece:
            raise BitfoldError("piece does not divide the width", got=f"{ask.dim} % {self.piece}")
        sizes = field_sizes(self.name, ask.fields, ask.budget)
        assert ask.budget is not None, "field_sizes asks for one"
        fixed, number = ask.fixed_bytes(1), ask.row_bytes(1)
        check_minimum(self.name, fixed + self.piece * number, ask.budget)
        numbers = min((ask.budget - fixed) // number, sum(sizes) * ask.dim)
        chunks = ask.dim // self.piece
        lookups = tuple(
            tuple(
                Lookup(Mixed(derive_salt(ask.seed, f, c)), numbers, 0, leading=True, signed=True)
                for c in range(chunks)
            )
            for f in range(len(sizes))
        )
        group = self.finish(ask, Program(chunks, lookups, numbers), "concat")
        return replace(group, pools=(replace(group.pools[0], step=1),))
