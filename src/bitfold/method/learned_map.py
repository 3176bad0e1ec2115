"""Maps that a small table teaches: it is trained first, and then says which rows ids read.

Two phases: a small table, and the model over rows whose pointers the table gave. Pointers are
counted, `digits * log2(rows)` bits an id.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from bitfold.address import Lookup, Mapped, Program, Raw, Stored
from bitfold.address.stored import MOST_BITS, stored_bytes
from bitfold.config import option, to_json
from bitfold.embedder.buckets import Buckets, Sketch, pointed
from bitfold.embedder.contract import Embedder
from bitfold.errors import BitfoldError, BudgetTooSmall
from bitfold.method.allocation import check_minimum, largest
from bitfold.method.base import Method, Phase, Traits, check_options, dense_only
from bitfold.method.binary_code import BinaryCode
from bitfold.method.hash import field_sizes
from bitfold.planning.ask import Ask
from bitfold.planning.field import Field
from bitfold.planning.plan import Plan
from bitfold.planning.spec import Group, StoredSpec

MOST_DIMS = 8


@dataclass(frozen=True)
class LearnedMap(Method):
    """Rows that each id points to by digits of a stored code; what was trained before says which.

    A subclass says how many digits there are, how their rows are fused, and what module learns.
    """

    small: str = option(
        "table",
        help="what is trained first: a narrow table of a row an id, or binary codes, which also "
        "take the place of a table that the budget does not hold",
        choices=("table", "code"),
    )
    dims: int | None = option(
        None,
        help="numbers of a narrow row, fewer where the budget holds no more; when not said "
        f"{MOST_DIMS} at most",
    )
    learn: float = option(0.4, help="the share of the epochs that the small table is trained in")
    rows: int | None = option(
        None, help="rows of a digit in each field; as many as the budget buys when not said"
    )

    traits: ClassVar[Traits] = Traits(hashed_ids=False)

    @property
    def terms(self) -> int:
        """Digits of a stored code: one, a pointer, if not said otherwise."""
        return 1

    @property
    def fused(self) -> str:
        """How the rows of digits become one vector."""
        return "sum"

    def buckets(self, plan: Plan, **how: Any) -> Buckets:
        """The module whose pointers the small table gives."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self.name, vars(self), dims=1, rows=1)
        if not 0 < self.learn < 1:
            raise BitfoldError("learn is out of range", got=self.learn, expected="0 to 1, apart")
        if self.small == "code" and self.dims is not None:
            raise BitfoldError(
                "dims are those of a narrow table",
                got=f"small=code, dims={self.dims}",
                expected="small=table, or no dims",
            )

    def plan(self, ask: Ask) -> Group:
        """As many clusters for each field as the budget buys; small fields are whole."""
        sizes = field_sizes(self.name, ask.fields, ask.budget)
        dense_only(self.name, ask.fields)
        assert ask.budget is not None, "it was asked for"
        whole = replace(self, rows=None).whole(ask)
        if whole is not None and whole.bytes(ask.dim) <= ask.budget:
            return whole
        least = self._weight(ask, sizes, self.rows or 1)
        least = least if whole is None else min(least, whole.bytes(ask.dim))
        check_minimum(self.name, least, ask.budget)
        budget, most = ask.budget, max(sizes)
        most = min(most, int(2 ** (MOST_BITS / self.terms)))
        rows = self.rows or largest(lambda n: n <= most and self._weight(ask, sizes, n) <= budget)
        return self._clustered(ask, sizes, min(rows, most))

    def build(
        self, plan: Plan, *, seed: int | None, device: torch.device | str | None, sparse: bool
    ) -> Embedder:
        """The corridor that is clustered, the small one before it, or a whole table."""
        if self.rows is None:
            return super().build(plan, seed=seed, device=device, sparse=sparse)
        if not pointed(plan.group):
            return Sketch(plan, std=self.std, seed=seed, device=device, sparse=sparse)
        return self.buckets(plan, std=self.std, seed=seed, device=device, sparse=sparse)

    def phases(self, group: Group) -> Sequence[Phase]:
        """The small table, and the model over the clusters that it gave."""
        if self.rows is None:
            return ()
        return Phase("small", self.learn), Phase("clusters", 1 - self.learn, start="fresh")

    def begin(self, plan: Plan) -> Group:
        """The small table, within the bytes of the rows and pointers that follow it."""
        group = plan.group
        if not pointed(group):
            return group
        assert group.program is not None, "it has pointers"
        lookups = [terms[0] for terms in group.program.fields]
        maps = tuple(each for each in group.stored if each.kind == "map")
        ask = self._ask(plan, group.bytes(plan.embedding_dim) - sum(each.bytes for each in maps))
        found = self._small(ask)
        if found is None:
            return group
        assert found.program is not None, "of one pool"
        fields = tuple(
            tuple(_through(lookup, each) for each in terms)
            for lookup, terms in zip(lookups, found.program.fields, strict=True)
        )
        return replace(found, program=replace(found.program, fields=fields), stored=maps)

    def advance(self, group: Group, embedder: Embedder, phase: Phase) -> Group:
        """Rows and pointers, after the small table."""
        if pointed(group) or self.rows is None:
            return group
        assert group.program is not None, "of one pool"
        plan = replace(embedder.plan, groups=(group,))
        ask = self._ask(plan, None)
        made = self._clustered(ask, [field.num_embeddings or 1 for field in ask.fields], self.rows)
        assert made.program is not None, "it has pointers"
        pairs = zip(group.program.fields, made.program.fields, strict=True)
        fields = tuple(tuple(_through(old[0], each) for each in new) for old, new in pairs)
        return replace(
            made,
            program=replace(made.program, fields=fields),
            stored=(*made.stored, *group.stored),
        )

    def _clustered(self, ask: Ask, sizes: Sequence[int], rows: int) -> Group:
        """Rows of clusters and the pointers to them."""
        fields, end = list[tuple[Lookup, ...]](), 0
        for number, size in enumerate(sizes):
            if self._folded(ask, size, rows) >= size * ask.row_bytes():
                fields.append((Lookup(Raw(), size, end),))
                end += size
                continue
            source = Stored(f"pointers_{number}", size, self._bits(rows))
            digits = range(self.terms)
            fields.append(tuple(Lookup(source, rows, end + m * rows, rows**m) for m in digits))
            end += self.terms * rows
        program = Program(1, tuple(fields), end)
        stored = [StoredSpec(*table) for table in program.tables.values()]
        return replace(self, rows=rows).finish(ask, program, self.fused, stored=stored)

    def _small(self, ask: Ask) -> Group | None:
        """What is trained first; None where the budget holds nothing that tells ids apart."""
        assert ask.budget is not None, "it was counted"
        if self.small != "code":
            for width in range(min(self.dims or MOST_DIMS, ask.dim), 0, -1):
                found = self.whole(ask, width)
                if found is not None and found.bytes(ask.dim) <= ask.budget:
                    return found
        with suppress(BudgetTooSmall):
            found = BinaryCode(std=self.std, bits=self.bits, scale=self.scale).plan(ask)
            return replace(found, method=self.name, version=self.version, options=to_json(self))
        return None

    def _ask(self, plan: Plan, budget: int | None) -> Ask:
        """What a plan was made for; hashed ids are the places of their map."""
        group = plan.group
        assert group.program is not None, "it has an address"
        fields = []
        for field, lookups in zip(plan.fields, group.program.fields, strict=True):
            source = _map_of(lookups[0])
            size = field.num_embeddings if source is None else source.codes
            fields.append(Field(field.name, size))
        return Ask(
            tuple(fields), plan.embedding_dim, budget, dtype=group.dtype,
            numbers=group.pools[0].numbers, scale=group.pools[0].scale,
        )  # fmt: skip

    def _folded(self, ask: Ask, size: int, rows: int) -> int:
        """Bytes of a field of so many rows a digit, with its pointers."""
        return self.terms * rows * ask.row_bytes() + stored_bytes(size, self._bits(rows))

    def _weight(self, ask: Ask, sizes: Sequence[int], rows: int) -> int:
        """Bytes of all fields, each of so many rows a digit or whole, as weighs less."""
        each = (min(size * ask.row_bytes(), self._folded(ask, size, rows)) for size in sizes)
        return ask.fixed_bytes(self.terms * len(sizes)) + sum(each)

    def _bits(self, rows: int) -> int:
        """Bits of a stored code."""
        codes: int = rows**self.terms
        return max(1, (codes - 1).bit_length())


def _map_of(lookup: Lookup) -> Mapped | None:
    """The map that a lookup reads ids through."""
    source = lookup.source.of if isinstance(lookup.source, Stored) else lookup.source
    return source if isinstance(source, Mapped) else None


def _through(old: Lookup, new: Lookup) -> Lookup:
    """A lookup of dense ids, through the map of another lookup if that has one."""
    source = _map_of(old)
    if source is None:
        return new
    if isinstance(new.source, Stored):
        return replace(new, source=replace(new.source, of=source))
    return replace(new, source=source)
