"""ROBE: one flat array of numbers; a vector's chunks begin at hashed places of it.

Source: Desai, Chou, Shrivastava, "Random Offset Block Embedding (ROBE) for compressed embedding
tables in deep learning recommendation systems", MLSys 2022, arXiv 2108.02191. Chunk `c` of an id's
vector is the `Z` neighbours from cell `h(field, id, c)` on, in an array that all fields share and
that goes on at its beginning where it ends; a second hash may give the chunk a sign.
"""

from dataclasses import dataclass
from typing import ClassVar

from bitfold.config import option
from bitfold.errors import BitfoldError
from bitfold.method.allocation import check_minimum
from bitfold.method.base import Forms, Method, Traits, check_options
from bitfold.method.hash import field_sizes, one_pool
from bitfold.planning.ask import Ask
from bitfold.planning.spec import Group, dtype_size

MOST = 8  # numbers of a chunk, when nobody says how many


@dataclass(frozen=True)
class Robe(Method):
    """`D / Z` chunks of `Z` numbers an id, of one flat array for all fields."""

    chunk: int | None = option(
        None, help="Z, neighbours read at once; when not said the most up to 8 that divide D"
    )
    signs: bool = option(
        False,
        help="negate chunks for half of the ids: what meets cancels on average",
    )

    name: ClassVar[str] = "robe"
    summary: ClassVar[str] = "chunks of neighbouring numbers, anywhere in one flat array"
    when: ClassVar[str] = "very small budgets: the array may be of any size"
    traits: ClassVar[Traits] = Traits(
        narrow=False,
        why_wide="chunks begin at any number, so that there are no rows and columns to share steps",
    )
    forms: ClassVar[Forms] = ({}, {"chunk": 2, "signs": True})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self.name, vars(self), chunk=1)

    def plan(self, ask: Ask) -> Group:
        """As many numbers as the budget buys; whole tables where it has a row for every id."""
        sizes = field_sizes(self.name, ask.fields, ask.budget)
        assert ask.budget is not None
        size = self.chunk or max(z for z in range(1, MOST + 1) if ask.dim % z == 0)
        if ask.dim % size:
            raise BitfoldError(
                "chunks must divide the width",
                got=f"width {ask.dim}, chunks of {size}",
                expected="a chunk that divides the width",
            )
        unit, fixed = dtype_size(ask.dtype), ask.fixed_bytes(1)
        least = size * unit + fixed
        whole = self.whole(ask)
        if whole is not None:
            if whole.bytes(ask.dim) <= ask.budget:
                return whole
            least = min(least, whole.bytes(ask.dim))
        check_minimum(self.name, least, ask.budget)
        numbers = min((ask.budget - fixed) // unit, sum(sizes) * ask.dim)
        chunks = ask.dim // size
        program = one_pool(ask, numbers, chunks, chunks, signed=self.signs)
        return self.finish(ask, program, "concat", step=1)
