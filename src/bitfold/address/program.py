"""Programs: an address as data, ragged over fields.

A field's lookups each read one cell of a pool. A lookup takes its field's id through

    code = the id itself, its mixed bits, a stored integer, a place in a map (`source.py`)
    digit = (code // divisor) % radix                               a trailing digit
    digit = (code * divisor * radix // 2**code_bits) % radix        a leading digit, of mixed codes
    cell = base + (digit + offset) % span

Trailing digits count a code from its lowest end, as dense ids need it. Leading digits take the
code as a fraction: they are even for every radix, and two products give one where trailing ones
divide. Either way digits whose divisors are the products of the radices before them tell all
codes apart if the product of all radices is as large as the number of codes.

A program is plain data: it goes into a plan's JSON, decides every cell, and is what a kernel
runs. `Address` is its plain-torch interpreter, `cells_int` its definition.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from bitfold.address.lookup import Lookup, LookupRecord
from bitfold.address.mixing import MIX_VERSION, WORD, signed
from bitfold.address.source import Raw, Tables, TableShape, senseless
from bitfold.records import record

PROGRAM_VERSION = 2


@dataclass(frozen=True)
class Program:
    """The lookups of every field, chunk by chunk.

    Args:
        chunks: `C`, how many pieces are concatenated. Field `f` has `C * K_f` lookups; lookup
            `c * K_f + k` is term `k` of chunk `c`.
        fields: the lookups of each field.
        rows: cells in the first pool.
        more_rows: cells in each of the others.
    """

    chunks: int
    fields: tuple[tuple[Lookup, ...], ...]
    rows: int
    more_rows: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.fields or self.chunks < 1:
            raise senseless(f"{len(self.fields)} fields, {self.chunks} chunks", "1 or more")
        pools = (self.rows, *self.more_rows)
        for lookups in self.fields:
            if not lookups or len(lookups) % self.chunks:
                raise senseless(f"{len(lookups)} lookups", f"a multiple of {self.chunks} chunks")
            for lookup in lookups:
                if not 0 <= lookup.pool < len(pools):
                    raise senseless(lookup, f"one of {len(pools)} pools")
                if not 0 <= lookup.base <= pools[lookup.pool] - lookup.span:
                    raise senseless(lookup, f"a slice within {pools[lookup.pool]} rows")
        self.tables  # noqa: B018  raises where one name means two tables

    def __iter__(self) -> Iterator[Lookup]:
        for lookups in self.fields:
            yield from lookups

    @property
    def lookups(self) -> int:
        """Lookups of all fields together."""
        return sum(len(lookups) for lookups in self.fields)

    @property
    def terms(self) -> tuple[int, ...]:
        """`K_f`, the terms of a chunk, for each field."""
        return tuple(len(lookups) // self.chunks for lookups in self.fields)

    @property
    def plain(self) -> bool:
        """Whether ids are rows as they stand: the fields' sizes, in order, decide every cell."""
        return (
            all(len(lookups) == 1 for lookups in self.fields)
            and all(lookup.plain for lookup in self)
            and not self.more_rows
        )

    @property
    def raw(self) -> bool:
        """Whether every code is an id as it stands, and every digit a trailing one."""
        return all(
            isinstance(lookup.source, Raw) and lookup.source.deal == 1 and not lookup.leading
            for lookup in self
        )

    @property
    def signed(self) -> bool:
        """Whether some pieces have a sign."""
        return any(lookup.signed for lookup in self)

    @cached_property
    def tables(self) -> dict[str, TableShape]:
        """The stored tables that sources read, by name.

        Raises:
            BitfoldError: two of them have one name.
        """
        found: dict[str, TableShape] = {}
        for lookup in self:
            for table in lookup.source.tables:
                if found.setdefault(table.name, table) != table:
                    raise senseless(f"{table} and {found[table.name]}", "one table of a name")
        return found

    def own_rows(self, sizes: Sequence[int | None]) -> tuple[int, ...]:
        """The fields, by number, where each id has rows that no other id reads.

        Args:
            sizes: V of each field; None for hashed ids, which never have.

        Example:
            >>> whole, folded = Lookup(Raw(), 3, 0), Lookup(Raw(), 2, 3)
            >>> Program(1, ((whole,), (folded,)), 5).own_rows([3, 9])
            (0,)
        """
        shared: set[tuple[int, int]] = set()
        reach, owner = (0, 0), (0, 0)
        for pool, base, span in sorted((each.pool, each.base, each.span) for each in self):
            if (pool, base) < reach:
                shared |= {(pool, base), owner}
            if (pool, base + span) > reach:
                reach, owner = (pool, base + span), (pool, base)
        return tuple(
            field
            for field, (size, lookups) in enumerate(zip(sizes, self.fields, strict=True))
            if all(
                lookup.owns(size) and (lookup.pool, lookup.base) not in shared for lookup in lookups
            )
        )

    @cached_property
    def fingerprint(self) -> int:
        """A signed 64-bit digest of everything that decides a cell."""
        text = json.dumps([PROGRAM_VERSION, MIX_VERSION, self.to_json()], sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return signed(int.from_bytes(digest, "little"))

    def cells_int(self, field: int, value: int, tables: Tables | None = None) -> list[int]:
        """The cells of one id in Python integers: the definition that every path must equal.

        Args:
            field: the field's number.
            value: the id; its lowest 64 bits count.
            tables: the bytes of `tables`, by name.
        """
        return [each.cell_int(value & WORD, tables or {}) for each in self.fields[field]]

    def signs_int(self, field: int, value: int) -> list[int]:
        """The sign of each of an id's pieces, 1 or -1: the definition."""
        return [lookup.sign_int(value & WORD) for lookup in self.fields[field]]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        more = {"more_rows": list(self.more_rows)} if self.more_rows else {}
        return {
            "chunks": self.chunks,
            "rows": self.rows,
            "fields": [[lookup.to_json() for lookup in each] for each in self.fields],
            **more,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any], where: object = "this plan") -> "Program":
        """The program that `to_json` wrote; `where` is what an error calls it.

        Raises:
            BitfoldError: a part is missing, of another type, or makes no sense.
        """
        found = record(values, _Program, where, fix="plan it again")
        fields = (tuple(each.lookup(where) for each in lookups) for lookups in found.fields)
        return cls(found.chunks, tuple(fields), found.rows, tuple(found.more_rows))


_Size = Annotated[int, Meta(ge=0, le=2**62)]


class _Program(msgspec.Struct, forbid_unknown_fields=True):
    chunks: Annotated[int, Meta(ge=1, le=2**31)]
    rows: _Size
    fields: list[list[LookupRecord]]
    more_rows: list[_Size] = []


def place(sizes: Sequence[int]) -> tuple[list[int], int]:
    """The first row of each slice when slices of these sizes lie one after another, and the end.

    Example:
        >>> place([3, 2, 4])
        ([0, 3, 5], 9)
    """
    bases, end = [], 0
    for size in sizes:
        bases.append(end)
        end += size
    return bases, end
