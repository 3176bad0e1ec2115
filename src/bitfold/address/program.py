"""Programs: an address as data, ragged over fields.

A field's lookups each read one cell of the pool. A lookup takes its field's id through

    code = the id itself (raw), or the top `code_bits` bits of mix(id, salt, mix_bits)
    code = skip(code, code_bits, deal)              when deal > 1
    digit = (code // divisor) % radix                               a trailing digit
    digit = (code * divisor * radix // 2**code_bits) % radix        a leading digit
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
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from bitfold.address.codes import deal_skip
from bitfold.address.mixing import MIX_VERSION, mix_int, signed
from bitfold.errors import BitfoldError
from bitfold.records import record

PROGRAM_VERSION = 2


@dataclass(frozen=True)
class Source:
    """Where a lookup's code comes from.

    Args:
        salt: what the mixer is salted with, or None for the raw id.
        mix_bits: the width the id is mixed in: 64 for hashed ids, the code's width for dense
            ids, so that they stay distinct.
        code_bits: how many bits, from the top, are kept as the code.
        deal: the number of blocks the code's bits are dealt to by skip; 1 leaves them in order.
    """

    salt: int | None = None
    mix_bits: int = 64
    code_bits: int = 64
    deal: int = 1


@dataclass(frozen=True)
class Lookup:
    """One digit of a code and the rows it chooses from: `radix` of `span` rows from `base` on.

    `leading` says from which end of a mixed code the digit is taken.
    """

    source: Source
    radix: int
    base: int
    divisor: int = 1
    offset: int = 0
    span: int = 0
    leading: bool = False

    def __post_init__(self) -> None:
        if self.span == 0:
            object.__setattr__(self, "span", self.radix)

    @property
    def unsigned(self) -> bool:
        """Whether the code may need all 64 bits, so that shifts alone can read its digits."""
        return self.source.salt is not None and self.source.code_bits == 64 and not self.leading

    @property
    def binary(self) -> bool:
        """Whether the digit is a run of the code's bits."""
        powers = all(value & (value - 1) == 0 for value in (self.divisor, self.radix))
        return powers and not self.leading


@dataclass(frozen=True)
class Program:
    """The lookups of every field, chunk by chunk.

    Args:
        chunks: `C`, how many pieces are concatenated. Field `f` has `C * K_f` lookups; lookup
            `c * K_f + k` is term `k` of chunk `c`.
        fields: the lookups of each field.
        rows: cells in the pool.
    """

    chunks: int
    fields: tuple[tuple[Lookup, ...], ...]
    rows: int

    def __post_init__(self) -> None:
        if not self.fields or self.chunks < 1:
            raise _senseless(f"{len(self.fields)} fields, {self.chunks} chunks", "1 or more")
        for lookups in self.fields:
            if not lookups or len(lookups) % self.chunks:
                raise _senseless(f"{len(lookups)} lookups", f"a multiple of {self.chunks} chunks")
            for lookup in lookups:
                if not 1 <= lookup.radix <= lookup.span or lookup.divisor < 1:
                    raise _senseless(lookup, "a digit that fits its span")
                if not 0 <= lookup.base <= self.rows - lookup.span:
                    raise _senseless(lookup, f"a slice within {self.rows} rows")
                if lookup.unsigned and not lookup.binary:
                    raise _senseless(lookup, "a power of two for a 64-bit code, or 63 bits")
                source = lookup.source
                if source.code_bits > source.mix_bits:
                    raise _senseless(lookup, "no more bits in a code than are mixed")
                if lookup.leading and lookup.source.salt is None:
                    raise _senseless(lookup, "a mixed code, which fills its bits")

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
        return all(
            lookup.source.salt is None
            and lookup.source.deal == 1
            and lookup.divisor == 1
            and lookup.offset == 0
            and len(lookups) == 1
            for lookups in self.fields
            for lookup in lookups
        )

    @property
    def raw(self) -> bool:
        """Whether every code is an id as it stands, and every digit a trailing one."""
        return all(
            lookup.source.salt is None and lookup.source.deal == 1 and not lookup.leading
            for lookup in self
        )

    def own_rows(self, sizes: Sequence[int | None]) -> tuple[int, ...]:
        """The fields, by number, where each id has rows that no other id reads.

        Args:
            sizes: V of each field; None for hashed ids, which never have.

        Example:
            >>> whole, folded = Lookup(Source(), 3, 0), Lookup(Source(), 2, 3)
            >>> Program(1, ((whole,), (folded,)), 5).own_rows([3, 9])
            (0,)
        """
        shared: set[int] = set()
        reach, owner = 0, 0
        for base, end in sorted((lookup.base, lookup.base + lookup.span) for lookup in self):
            if base < reach:
                shared |= {base, owner}
            if end > reach:
                reach, owner = end, base
        return tuple(
            field
            for field, (size, lookups) in enumerate(zip(sizes, self.fields, strict=True))
            if all(
                lookup.source.salt is None
                and lookup.source.deal == 1
                and (lookup.divisor, lookup.offset, lookup.radix) == (1, 0, size)
                and lookup.base not in shared
                for lookup in lookups
            )
        )

    @cached_property
    def fingerprint(self) -> int:
        """A signed 64-bit digest of everything that decides a cell."""
        text = json.dumps([PROGRAM_VERSION, MIX_VERSION, self.to_json()], sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return signed(int.from_bytes(digest, "little"))

    def cells_int(self, field: int, value: int) -> list[int]:
        """The cells of one id in Python integers: the definition that every path must equal."""
        cells = []
        for lookup in self.fields[field]:
            source = lookup.source
            code = value & ((1 << 64) - 1)
            if source.salt is not None:
                code = mix_int(code, source.salt, source.mix_bits)
                code >>= source.mix_bits - source.code_bits
            if source.deal > 1:
                code = deal_skip(code, source.code_bits, source.deal)
            if lookup.leading:
                digit = (code * lookup.divisor * lookup.radix >> source.code_bits) % lookup.radix
            else:
                digit = (code // lookup.divisor) % lookup.radix
            cells.append(lookup.base + (digit + lookup.offset) % lookup.span)
        return cells

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "chunks": self.chunks,
            "rows": self.rows,
            "fields": [[_compact(asdict(lookup)) for lookup in each] for each in self.fields],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any], where: object = "this plan") -> "Program":
        """The program that `to_json` wrote; `where` is what an error calls it.

        Raises:
            BitfoldError: a part is missing, of another type, or makes no sense.
        """
        found = record(values, _Program, where, fix="plan it again")
        return cls(
            chunks=found.chunks,
            rows=found.rows,
            fields=tuple(
                tuple(
                    Lookup(
                        Source(**msgspec.structs.asdict(each.source)),
                        each.radix,
                        each.base,
                        each.divisor,
                        each.offset,
                        each.span,
                        each.leading,
                    )
                    for each in lookups
                )
                for lookups in found.fields
            ),
        )


_Size = Annotated[int, Meta(ge=0, le=2**62)]
_Bits = Annotated[int, Meta(ge=1, le=64)]


class _Source(msgspec.Struct, forbid_unknown_fields=True):
    salt: int | None = None
    mix_bits: _Bits = 64
    code_bits: _Bits = 64
    deal: _Bits = 1


class _Lookup(msgspec.Struct, forbid_unknown_fields=True):
    source: _Source
    radix: _Size
    base: _Size
    divisor: int = 1
    offset: _Size = 0
    span: _Size = 0
    leading: bool = False


class _Program(msgspec.Struct, forbid_unknown_fields=True):
    chunks: Annotated[int, Meta(ge=1, le=2**31)]
    rows: _Size
    fields: list[list[_Lookup]]


def _senseless(got: object, expected: str) -> BitfoldError:
    return BitfoldError("this address makes no sense", got=got, expected=expected)


def _compact(lookup: dict[str, Any]) -> dict[str, Any]:
    lookup["source"] = {k: v for k, v in lookup["source"].items() if v is not None}
    return {k: v for k, v in lookup.items() if v is not False}


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
