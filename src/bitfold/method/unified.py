"""Unified embedding: one pool for all fields, in which each field hashes its ids by itself.

Source: Coleman, Kang, Fahrbach, Wang, Hong, Chi, Cheng, "Unified Embedding: Battle-Tested Feature
Representations for Web-Scale ML Systems", NeurIPS 2023, arXiv 2305.12102. Every field reads the
same rows by `k` hashes that are salted with its name, so that collisions between fields look
like noise to a model that knows the fields apart. The `k` rows are concatenated, as in the paper,
or summed.
"""

from dataclasses import dataclass
from typing import ClassVar

from bitfold.config import option
from bitfold.errors import BitfoldError
from bitfold.method.allocation import check_minimum
from bitfold.method.base import Forms, Method, check_options
from bitfold.method.hash import field_sizes, one_pool
from bitfold.planning.ask import Ask
from bitfold.planning.spec import Group

MOST = 4  # pieces of a vector, when nobody says how many


@dataclass(frozen=True)
class Unified(Method):
    """`k` rows an id, of one pool for all fields."""

    lookups: int | None = option(
        None, help="k, the rows read for an id; when not said two, or the most up to four that "
        "divide the width where they are concatenated",
    )  # fmt: skip
    fusion: str = option("concat", help="how the rows are fused", choices=("concat", "sum"))

    name: ClassVar[str] = "unified"
    summary: ClassVar[str] = "one pool for all fields, k salted hashes an id"
    when: ClassVar[str] = "many fields of unlike sizes and a small budget: no rows are dealt"
    forms: ClassVar[Forms] = ({}, {"fusion": "sum", "lookups": 2})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self.name, vars(self), lookups=1)

    def plan(self, ask: Ask) -> Group:
        """As many rows as the budget buys; whole tables where it has a row for every id."""
        sizes = field_sizes(self.name, ask.fields, ask.budget)
        assert ask.budget is not None
        count = self._count(ask.dim)
        chunks = count if self.fusion == "concat" else 1
        width = ask.dim // chunks
        least = ask.row_bytes(width) + ask.fixed_bytes(1, width)
        whole = self.whole(ask)
        if whole is not None:
            if whole.bytes(ask.dim) <= ask.budget:
                return whole
            least = min(least, whole.bytes(ask.dim))
        check_minimum(self.name, least, ask.budget)
        rows = (ask.budget - ask.fixed_bytes(1, width)) // ask.row_bytes(width)
        rows = min(rows, sum(sizes) * chunks)
        program = one_pool(ask, rows, count, chunks)
        return self.finish(ask, program, self.fusion)

    def _count(self, dim: int) -> int:
        if self.fusion == "sum":
            return self.lookups or 2
        count = self.lookups or max(k for k in range(1, MOST + 1) if dim % k == 0)
        if dim % count:
            raise BitfoldError(
                "concatenated rows must divide the width",
                got=f"width {dim}, {count} lookups",
                expected="a number of lookups that divides the width",
            )
        return count
