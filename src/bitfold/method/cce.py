"""CCE: an id's chunks are rows of clusters and hashed helper rows; clusters are learned.

Source: Tsang, Ahle, "Clustering the Sketch: Dynamic Compression for Embedding Tables", NeurIPS
2023, arXiv 2210.05974. Pointers to clusters are counted: ceil(log2 rows) bits for each id and
chunk. Hashed ids need places that pointers can be kept by: `map=true`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from bitfold.address import Lookup, Program, Raw, Salted, Stored
from bitfold.address.mixing import derive_salt
from bitfold.address.stored import stored_bytes
from bitfold.config import option
from bitfold.embedder.clusters import TURN, Clustering
from bitfold.embedder.contract import Embedder
from bitfold.method.allocation import check_minimum
from bitfold.method.base import Forms, Method, Traits, check_chunks, check_options, dense_only
from bitfold.method.hash import field_sizes
from bitfold.planning.ask import Ask
from bitfold.planning.plan import Plan
from bitfold.planning.spec import Group, StoredSpec

CHUNKS = (4, 2, 1)


@dataclass(frozen=True)
class Cce(Method):
    """Two rows a chunk of `D / chunks` numbers, summed: a cluster's and a helper's."""

    chunks: int | None = option(
        None,
        help="pieces of a vector, each with clusters of its own; when not said the most of 4, 2 "
        "and 1 whose pointers take no more than half of the budget",
    )
    times: int = option(
        3, help="how often ids are clustered anew: with each epoch from the second on"
    )

    name: ClassVar[str] = "cce"
    summary: ClassVar[str] = "rows of learned clusters of ids, and hashed helper rows"
    when: ClassVar[str] = "ids fall into groups that are alike; a pointer an id can be afforded"
    traits: ClassVar[Traits] = Traits(hashed_ids=False)
    forms: ClassVar[Forms] = ({}, {"chunks": 3, "times": 1}, {"chunks": 1, "bits": 4})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self.name, vars(self), chunks=1, times=0)

    def plan(self, ask: Ask) -> Group:
        """As many clusters for each field as the budget buys; small fields are whole."""
        sizes = field_sizes(self.name, ask.fields, ask.budget)
        dense_only(self.name, ask.fields)
        assert ask.budget is not None
        whole = self.whole(ask)
        if whole is not None and whole.bytes(ask.dim) <= ask.budget:
            return whole
        check_chunks(self.chunks, ask.dim)
        tried = [self.chunks] if self.chunks else [c for c in CHUNKS if ask.dim % c == 0]
        forms = [_Chunks(ask, sizes, chunks) for chunks in tried]
        least = min(form.fixed + form.total(1) for form in forms)
        least = least if whole is None else min(least, whole.bytes(ask.dim))
        check_minimum(self.name, least, ask.budget)
        fits = [form for form in forms if form.fixed + form.total(1) <= ask.budget]
        cheap = [form for form in fits if 2 * form.pointers() <= ask.budget]
        form = (cheap or fits[-1:])[0]
        if whole is not None and not any(form.folded(form.rows())):
            return whole  # of few bits: it is its steps that do not fit
        program = form.program()
        stored = [StoredSpec(*table) for table in program.tables.values()]
        return self.finish(ask, program, "sum", stored=stored)

    def build(
        self, plan: Plan, *, seed: int | None, device: torch.device | str | None, sparse: bool
    ) -> Embedder:
        """The corridor that clusters, or a whole table."""
        if not any(each.name == TURN for each in plan.group.stored):
            return super().build(plan, seed=seed, device=device, sparse=sparse)
        return Clustering(
            plan, times=self.times, std=self.std, seed=seed, device=device, sparse=sparse
        )


class _Chunks:
    """What fields take in so many chunks, in bytes.

    Args:
        ask: with a budget.
        sizes: the fields' ids.
        chunks: pieces of a vector.
    """

    def __init__(self, ask: Ask, sizes: Sequence[int], chunks: int) -> None:
        self.ask, self.sizes, self.chunks = ask, sizes, chunks
        self.row = ask.row_bytes(ask.dim // chunks)
        turn = 8
        self.fixed = ask.fixed_bytes(2 * chunks * len(sizes), ask.dim // chunks) + turn
        self.room = (ask.budget or 0) - self.fixed

    def field(self, size: int, rows: int) -> int:
        """Bytes of a field, of `rows` clusters a chunk and as many helpers, or whole."""
        pointers = stored_bytes(size, _bits(rows))
        return self.chunks * min(size * self.row, 2 * rows * self.row + pointers)

    def total(self, rows: int) -> int:
        """Bytes of all fields."""
        return sum(self.field(size, rows) for size in self.sizes)

    def rows(self) -> int:
        """The most clusters a chunk that fit."""
        low, high = 1, max(self.sizes)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.total(middle) <= self.room else (low, middle - 1)
        return low

    def folded(self, rows: int) -> list[bool]:
        """Which fields are not whole."""
        return [self.field(size, rows) < self.chunks * size * self.row for size in self.sizes]

    def pointers(self) -> int:
        """Bytes of pointers, with the most clusters that fit."""
        rows = self.rows()
        pairs = zip(self.sizes, self.folded(rows), strict=True)
        return sum(self.chunks * stored_bytes(size, _bits(rows)) for size, fold in pairs if fold)

    def program(self) -> Program:
        """Clusters and helpers of every field; what the budget leaves buys helpers."""
        rows = self.rows()
        folded = self.folded(rows)
        spare, left = divmod((self.room - self.total(rows)) // self.row, self.chunks * sum(folded))
        fields, end = [], 0
        for number, (size, fold) in enumerate(zip(self.sizes, folded, strict=True)):
            lookups = []
            for chunk in range(self.chunks):
                if not fold:
                    lookups.append(Lookup(Raw(), size, end))
                    end += size
                    continue
                pointers = Stored(f"pointers_{number}_{chunk}", size, _bits(rows))
                lookups.append(Lookup(pointers, rows, end))
                end += rows
                helpers, left = rows + spare + (left > 0), max(left - 1, 0)
                salt = derive_salt(self.ask.seed, number, chunk)
                lookups.append(Lookup(Salted(TURN, salt, helpers), helpers, end))
                end += helpers
            fields.append(tuple(lookups))
        return Program(self.chunks, tuple(fields), end)


def _bits(rows: int) -> int:
    return max(1, (rows - 1).bit_length())
