"""Plans: everything that decides where an id's numbers lie, as data."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from bitfold.address.program import Program
from bitfold.errors import BitfoldError
from bitfold.planning.budget import full_bytes
from bitfold.planning.field import Field
from bitfold.planning.record import VERSION, read_plan
from bitfold.planning.spec import Group
from bitfold.showing import Shown


@dataclass(frozen=True, repr=False)
class Plan(Shown):
    """How the vectors of some fields are stored within a budget: a list of groups of fields.

    In a prompt and a notebook it shows a row a field; `to_frame()` gives them.

    Args:
        fields: what is embedded.
        embedding_dim: `D`.
        budget: the bytes allowed, or None.
        method: the method that was asked for, and `options` its options, all of them.
        groups: how they are stored; each field is in one group.
        phase: how far a method that plans in phases has come; empty for the others.
        why: how it was chosen, a sentence each, where there was a choice.
        sets: how many embedding sets there are; `fields` has the fields of each, set after set.
    """

    fields: tuple[Field, ...]
    embedding_dim: int
    budget: int | None
    method: str
    options: Mapping[str, Any]
    groups: tuple[Group, ...]
    phase: str = ""
    why: tuple[str, ...] = field(default=(), compare=False)
    sets: int = 1

    def __post_init__(self) -> None:
        if self.embedding_dim < 1:
            raise BitfoldError(
                "the embedding's width is too small", got=self.embedding_dim, expected="1 or more"
            )
        placed = sorted(number for group in self.groups for number in group.fields)
        if placed != list(range(len(self.fields))):
            raise BitfoldError(
                "a plan has each of its fields in one group",
                got=f"fields {placed} in {len(self.groups)} groups",
                expected=f"0 to {len(self.fields) - 1}, each once",
            )
        if self.sets < 1 or self.fields != self.set_fields * self.sets:
            raise BitfoldError(
                "the embedding sets of a plan have the same fields",
                got=f"{len(self.fields)} fields in {self.sets} sets",
                expected="the fields of the first set again in each of the others",
            )
        if len({group.dtype for group in self.groups}) > 1:
            raise BitfoldError(
                "a plan's vectors are of one type",
                got=", ".join(group.dtype for group in self.groups),
                expected="one dtype",
            )

    @property
    def set_fields(self) -> tuple[Field, ...]:
        """The fields of one embedding set: what a row has ids of."""
        return self.fields[: len(self.fields) // max(self.sets, 1)]

    @property
    def by_kind(self) -> dict[str, int]:
        """Serving bytes by kind."""
        kinds: dict[str, int] = {}
        for group in self.groups:
            for kind, size in group.by_kind(self.embedding_dim).items():
                kinds[kind] = kinds.get(kind, 0) + size
        return kinds

    @property
    def bytes(self) -> int:
        """Serving bytes, of every kind."""
        return sum(self.by_kind.values())

    @property
    def ratio(self) -> float | None:
        """Bytes of one full float32 table over the plan's; None if a field's size is unknown."""
        if any(each.size is None for each in self.fields):
            return None
        return full_bytes(self.set_fields, self.embedding_dim) / self.bytes

    @property
    def dtype(self) -> str:
        """The type of the vectors, and of the numbers while they are trained."""
        return self.groups[0].dtype

    @property
    def group(self) -> Group:
        """The only group.

        Raises:
            BitfoldError: there are several.
        """
        if len(self.groups) > 1:
            raise BitfoldError(
                "this plan has several groups",
                got=f"{len(self.groups)}",
                expected="one group",
                fix="look at plan.groups, or at one of them: plan.part(0)",
            )
        return self.groups[0]

    @property
    def program(self) -> Program:
        """The address of the only group.

        Raises:
            BitfoldError: there are several groups, or it has none.
        """
        found = self.group.program
        if found is None:
            raise BitfoldError(f"method {self.group.method!r} has no address", got="its own module")
        return found

    @property
    def fusion(self) -> str:
        """The fusion of the only group."""
        return self.group.fusion

    @property
    def rows_kept(self) -> int:
        """Rows of all pools together."""
        return sum(pool.rows for group in self.groups for pool in group.pools)

    @property
    def lookups(self) -> int:
        """Lookups of a row of all fields together."""
        return sum(group.program.lookups for group in self.groups if group.program is not None)

    def part(self, number: int) -> "Plan":
        """Group `number` as a plan of its own."""
        group = self.groups[number]
        return Plan(
            fields=tuple(self.fields[each] for each in group.fields),
            embedding_dim=self.embedding_dim,
            budget=None,
            method=group.method,
            options=group.options,
            groups=(replace(group, fields=tuple(range(len(group.fields)))),),
            phase=self.phase,
        )

    def records(self) -> list[dict[str, Any]]:
        """One row a field: those of `rows`."""
        return self.rows()

    def _title(self) -> str:
        ratio = "" if self.ratio is None else f" (full tables: {self.ratio:,.1f}x)"
        sets = "" if self.sets == 1 else f"{self.sets} sets of "
        return f"Plan: {self.method}, {sets}width {self.embedding_dim}, {self.bytes:,} bytes{ratio}"

    def rows(self) -> list[dict[str, Any]]:
        """One row a field, for tables: name, ids, rows, lookups, bytes, radices, and more.

        `numbers` is what they are kept in. `ids_per_row` is how many ids read a row, on average
        over the field's rows, ids of other fields that share them included; None if a size is
        unknown. `vectors` is how many vectors the digits can tell apart at most; None where there
        are no digits. Rows that fields share count in each of them. With several embedding sets
        there is a row for each field of each set, and `set` numbers them from 1.
        """
        found: dict[int, dict[str, Any]] = {}
        for group in self.groups:
            fields = [self.fields[number] for number in group.fields]
            rows = _own_rows(group, fields) if group.program is None else _rows(group, fields)
            found |= dict(zip(group.fields, rows, strict=True))
        rows, count = [found[number] for number in range(len(self.fields))], len(self.set_fields)
        if self.sets == 1:
            return rows
        return [{"set": number // count + 1} | row for number, row in enumerate(rows)]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        several = {"sets": self.sets} if self.sets > 1 else {}  # else a plan that all versions read
        return several | {
            "plan_version": VERSION,
            "fields": [asdict(each) for each in self.fields],
            "embedding_dim": self.embedding_dim,
            "budget": self.budget,
            "method": self.method,
            "options": dict(self.options),
            "groups": [group.to_json() for group in self.groups],
            "phase": self.phase,
            "why": list(self.why),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any], where: object = "this plan") -> "Plan":
        """The plan that `to_json` wrote; `where` is what an error calls it.

        Raises:
            BitfoldError: if it was written by a newer bitfold, lacks a part, or has one that
                cannot be.
        """
        return cls(**read_plan(values, where))


def _rows(group: Group, fields: list[Field]) -> list[dict[str, Any]]:
    """One row for each field of a group with an address."""
    assert group.program is not None, "the caller looks"
    reads = _reads(group.program, fields)
    out = []
    for each, lookups in zip(fields, group.program.fields, strict=True):
        slices = {(lookup.pool, lookup.base, lookup.span) for lookup in lookups}
        rows = sum(span for _, _, span in slices)
        readers = [reads[place] for place in slices]
        digits = {(found.source, found.divisor, found.radix) for found in lookups}
        out.append(
            {
                "field": each.name,
                "ids": each.size,
                "hashed": each.hashed,
                "method": group.method,
                "numbers": group.pools[0].numbers,
                "width": group.width,
                "rows": rows,
                "lookups": len(lookups),
                "radices": [lookup.radix for lookup in lookups],
                "bytes": int(
                    sum(span * group.pools[pool].mean_row_bytes for pool, _, span in slices)
                ),
                "ids_per_row": None if None in readers else sum(filter(None, readers)) / rows,
                "vectors": math.prod(radix for _, _, radix in digits),
            }
        )
    return out


def _own_rows(group: Group, fields: list[Field]) -> list[dict[str, Any]]:
    """One row for each field of a group that is a module of its own."""
    size = sum(pool.bytes for pool in group.pools) + sum(group.own.values())
    return [
        {
            "field": each.name,
            "ids": each.size,
            "hashed": each.hashed,
            "method": group.method,
            "numbers": group.pools[0].numbers if group.pools else group.dtype,
            "width": group.width,
            "rows": sum(pool.rows for pool in group.pools),
            "lookups": 0,
            "radices": [],
            "bytes": size // len(fields),
            "ids_per_row": None,
            "vectors": None,
        }
        for each in fields
    ]


def _reads(program: Program, fields: list[Field]) -> dict[tuple[int, int, int], int | None]:
    """How many ids read each slice of rows, an id once for each of its lookups there."""
    reads: dict[tuple[int, int, int], int | None] = {}
    for each, lookups in zip(fields, program.fields, strict=True):
        for lookup in lookups:
            place = (lookup.pool, lookup.base, lookup.span)
            before = reads.get(place, 0)
            known = before is not None and each.size is not None
            reads[place] = (before or 0) + (each.size or 0) if known else None
    return reads
