"""Lookups: one digit of a code, and the rows of a pool that it chooses from."""

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from bitfold.address.mixing import mix_int
from bitfold.address.source import Mapped, Mixed, Raw, Source, Tables, senseless
from bitfold.address.source_record import source_from_json


@dataclass(frozen=True)
class Lookup:
    """One digit of a code and the rows it chooses from: `radix` of `span` rows from `base` on.

    Args:
        source: where the code comes from.
        radix: how many values the digit has.
        base: the first row of the slice.
        divisor: the product of the radices before the digit.
        offset: by how much digits are turned within the span.
        span: rows of the slice; 0 for as many as the radix.
        leading: whether the digit is taken from a mixed code's upper end.
        pool: which pool is read.
        signed: whether what is read is negated for half of the ids: those whose mixed word, before
            it is cut to the code, is odd. That bit must be of no weight in a digit: cut off, or
            the last of 64 that are read from the leading end.
    """

    source: Source
    radix: int
    base: int
    divisor: int = 1
    offset: int = 0
    span: int = 0
    leading: bool = False
    pool: int = 0
    signed: bool = False

    def __post_init__(self) -> None:
        if self.span == 0:
            object.__setattr__(self, "span", self.radix)
        if not 1 <= self.radix <= self.span or self.divisor < 1:
            raise senseless(self, "a digit that fits its span")
        if self.unsigned and not self.binary:
            raise senseless(self, "a power of two for a 64-bit code, or 63 bits")
        if self.leading and not isinstance(self.source, Mixed):
            raise senseless(self, "a mixed code, which fills its bits")
        if self.signed and not self._leaves_a_bit:
            raise senseless(self, "a mixed code that leaves a bit for the sign")

    def owns(self, size: int | None) -> bool:
        """Whether each id has a row of its own: a dense one of `size`, or a place in a map."""
        if isinstance(self.source, Mapped):
            whole = self.radix == self.source.codes
            return whole and (self.divisor, self.offset) == (1, 0)
        return self.plain and self.radix == size

    @property
    def _leaves_a_bit(self) -> bool:
        source = self.source
        if not isinstance(source, Mixed):
            return False
        return source.code_bits < source.mix_bits or (self.leading and source.code_bits == 64)

    @property
    def unsigned(self) -> bool:
        """Whether the code may need all 64 bits, so that shifts alone can read its digits."""
        source = self.source
        return isinstance(source, Mixed) and source.code_bits == 64 and not self.leading

    @property
    def binary(self) -> bool:
        """Whether the digit is a run of the code's bits."""
        powers = all(value & (value - 1) == 0 for value in (self.divisor, self.radix))
        return powers and not self.leading

    @property
    def plain(self) -> bool:
        """Whether the digit is the id as it stands."""
        raw = isinstance(self.source, Raw) and self.source.deal == 1
        return raw and self.divisor == 1 and self.offset == 0

    def cell_int(self, value: int, tables: Tables) -> int:
        """The cell of an id of 64 bits: the definition."""
        code = self.source.code_int(value, tables)
        if self.leading:
            digit = (code * self.divisor * self.radix // self.source.codes) % self.radix
        else:
            digit = (code // self.divisor) % self.radix
        return self.base + (digit + self.offset) % self.span

    def sign_int(self, value: int) -> int:
        """What the piece of an id of 64 bits is multiplied with: the definition."""
        if not self.signed or not isinstance(self.source, Mixed):
            return 1
        return 1 - 2 * (mix_int(value, self.source.salt, self.source.mix_bits) & 1)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; what is as it always was is left out."""
        values = {
            "source": self.source.to_json(),
            "radix": self.radix,
            "base": self.base,
            "divisor": self.divisor,
            "offset": self.offset,
            "span": self.span,
        }
        rare = {"leading": self.leading, "pool": self.pool, "signed": self.signed}
        return values | {name: value for name, value in rare.items() if value}


_Size = Annotated[int, Meta(ge=0, le=2**62)]


class LookupRecord(msgspec.Struct, forbid_unknown_fields=True):
    """A lookup's JSON."""

    source: dict[str, Any]
    radix: _Size
    base: _Size
    divisor: int = 1
    offset: _Size = 0
    span: _Size = 0
    leading: bool = False
    pool: Annotated[int, Meta(ge=0, le=64)] = 0
    signed: bool = False

    def lookup(self, where: object) -> Lookup:
        """The lookup; `where` is what an error calls it."""
        values = msgspec.structs.asdict(self)
        return Lookup(**values | {"source": source_from_json(self.source, where)})
