"""Several hashes: an id's vector is fused from the rows that `k` salted hashes choose.

Two ids look alike only if all their rows meet. Source: Serra and Karatzoglou, "Getting Deep
Recommenders Fit: Bloom Embeddings for Sparse Binary Input/Output Networks", RecSys 2017.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from bitfold.address import Lookup, Mixed, Program, Raw
from bitfold.address.mixing import derive_salt
from bitfold.address.program import place
from bitfold.config import option
from bitfold.errors import BitfoldError
from bitfold.method.base import Forms, Method, check_options
from bitfold.method.hash import check_allocation, hashed_rows
from bitfold.planning.ask import Ask
from bitfold.planning.spec import Group


@dataclass(frozen=True)
class MultiHash(Method):
    """`k` rows an id, from one slice of rows a field, summed or concatenated."""

    hashes: int = option(2, help="k, the rows fused for an id; more tell ids apart, and read more")
    fusion: str = option("sum", help="how the rows are fused", choices=("sum", "mean", "concat"))
    allocation: float = option(
        0.0, help="rows go to fields by size**allocation; 1: one ratio for all, 0: small ones whole"
    )

    name: ClassVar[str] = "multi-hash"
    summary: ClassVar[str] = "k salted hashes an id, their rows summed or concatenated"
    when: ClassVar[str] = "a simple step up from hash: collisions of all k rows are rare"
    forms: ClassVar[Forms] = ({}, {"fusion": "concat"}, {"fusion": "mean", "hashes": 3})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self.name, vars(self), hashes=1)
        check_allocation(self.allocation)

    def plan(self, ask: Ask) -> Group:
        """Rows in proportion to a power of the fields' sizes; a field's hashes share its rows."""
        chunks = self.hashes if self.fusion == "concat" else 1
        if ask.dim % chunks:
            raise BitfoldError(
                "concatenated hashes must divide the width",
                got=f"width {ask.dim}, {self.hashes} hashes",
                expected="a number of hashes that divides the width",
            )
        rows = hashed_rows(self.name, ask, self.allocation, part=chunks)
        return self.finish(ask, hashed_program(ask, rows, self.hashes, chunks), self.fusion)


def hashed_program(ask: Ask, rows: Sequence[int], hashes: int, chunks: int = 1) -> Program:
    """`hashes` lookups in a slice of `rows` for each field; fields with a row an id are whole."""
    bases, end = place(rows)
    lookups = []
    for index, (field, size, base) in enumerate(zip(ask.fields, rows, bases, strict=True)):
        if field.num_embeddings is not None and size == field.num_embeddings * chunks:
            whole = field.num_embeddings
            part = tuple(Lookup(Raw(), whole, base + c * whole) for c in range(chunks))
        else:
            part = tuple(
                Lookup(Mixed(derive_salt(ask.seed, index, k)), size, base, leading=True)
                for k in range(hashes)
            )
        lookups.append(part)
    return Program(chunks, tuple(lookups), end)
