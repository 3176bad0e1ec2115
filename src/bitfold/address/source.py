"""Sources: where a lookup's code comes from.

    Raw      the id itself
    Mixed    the top `code_bits` of mix(id, salt, mix_bits)
    Stored   table[index], the index being another source's code
    Mapped   the id's place in a compact map, 0 to ids - 1; where the map does not have it,
             ids + (another source's code, scaled to `misses` places)
    Salted   a mixed id, scaled to some places; a part of the salt is stored

Codes of `Raw` and `Mixed` may then be dealt to blocks: code = skip(code, code_bits, deal).

Tables are bytes beside the program: integers packed by `stored.pack_bits`, or what
`kernels.map_building` builds. A source knows their names and sizes; whoever runs it has them. Any
bytes of the right number are a table: no code comes to lie outside `0..codes-1`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from bitfold.address.codes import deal_skip
from bitfold.address.compact_map import MAP_VERSION, MOST_IDS, CompactMap
from bitfold.address.mixing import WORD, mix_int, mix_torch, shift_of, signed
from bitfold.address.stored import MOST_BITS, bits_int, gather_bits, stored_bytes
from bitfold.address.words import run_of, total, up
from bitfold.errors import BitfoldError

MOST_MISSES = 1 << 31
_HALF = 0xFFFFFFFF
Tables = Mapping[str, Sequence[int]]
"""Stored bytes by name, for the definitions in plain Python."""


class TableShape(NamedTuple):
    """A table that a source reads: `length` integers of `bits` bits; `kind` as bytes are listed."""

    name: str
    length: int
    bits: int
    kind: str

    @property
    def bytes(self) -> int:
        """Its bytes."""
        return stored_bytes(self.length, self.bits)


@dataclass(frozen=True)
class Raw:
    """The id as it stands.

    Args:
        code_bits: the bits of an id.
        deal: the number of blocks that the code's bits are dealt to by skip; 1 leaves them.
    """

    code_bits: int = 64
    deal: int = 1

    tables: ClassVar[tuple[TableShape, ...]] = ()

    @property
    def codes(self) -> int:
        """How many codes there are at most."""
        return 1 << self.code_bits

    def code_int(self, value: int, tables: Tables) -> int:
        """The code of an id of 64 bits: the definition."""
        return value if self.deal == 1 else deal_skip(value, self.code_bits, self.deal)

    def code_torch(self, ids: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """The codes of int64 ids, of any shape; not of dealt ones."""
        return ids

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `mix_bits` is what version 2 of programs has always written."""
        return {"mix_bits": 64, "code_bits": self.code_bits, "deal": self.deal}


@dataclass(frozen=True)
class Mixed:
    """The top bits of the mixed id.

    Args:
        salt: what the mixer is salted with.
        mix_bits: the width the id is mixed in: 64 for hashed ids, the code's width for dense
            ids, so that they stay distinct.
        code_bits: how many bits, from the top, are kept as the code.
        deal: the number of blocks that the code's bits are dealt to by skip; 1 leaves them.
    """

    salt: int
    mix_bits: int = 64
    code_bits: int = 64
    deal: int = 1

    tables: ClassVar[tuple[TableShape, ...]] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.code_bits <= self.mix_bits <= 64:
            raise senseless(self, "no more bits in a code than are mixed")

    @property
    def codes(self) -> int:
        """How many codes there are."""
        return 1 << self.code_bits

    def code_int(self, value: int, tables: Tables) -> int:
        """The code of an id of 64 bits: the definition."""
        code = mix_int(value, self.salt, self.mix_bits) >> self.mix_bits - self.code_bits
        return code if self.deal == 1 else deal_skip(code, self.code_bits, self.deal)

    def code_torch(self, ids: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """The codes of int64 ids, of any shape; not of dealt ones."""
        bits, shift = self.mix_bits, shift_of(self.mix_bits)
        high, mask = (1 << bits - shift) - 1, signed((1 << bits) - 1)
        mixed = mix_torch(ids, ids.new_full((), signed(self.salt)), shift, mask, high)
        return run_of(mixed, bits - self.code_bits, signed(self.codes - 1))

    def scaled_int(self, value: int, size: int) -> int:
        """The code as a number below `size`: even shares for every size."""
        return self.code_int(value, {}) * size >> self.code_bits

    def scaled_torch(self, ids: Tensor, size: int) -> Tensor:
        """As `scaled_int`, of sizes below 2**32, from halves: torch has no upper product."""
        return scaled(up(self.code_torch(ids, {}), 64 - self.code_bits), size)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Mapped:
    """The id's place in a compact map, or one of the places for ids that it does not have.

    Args:
        table: the map's name.
        ids: how many ids the map may have: places `0..ids-1`.
        salt: the map's.
        miss: what the other ids are scaled from.
        misses: how many places they share: `ids..ids+misses-1`.
        of: what the map holds, if not ids: mixed ones, so that fields with other salts share it.
    """

    table: str
    ids: int
    salt: int
    miss: Mixed
    misses: int = 1
    of: Raw | Mixed = Raw()

    deal: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 1 <= self.ids <= MOST_IDS or not 1 <= self.misses <= MOST_MISSES:
            raise senseless(self, "1 to 2**31 ids and 1 to 2**31 places for others")
        if not isinstance(self.miss, Mixed) or self.miss.deal > 1:
            raise senseless(self, "a mixed code for other ids, not dealt")
        if not isinstance(self.of, Raw | Mixed) or self.of.deal > 1:
            raise senseless(self, "a map of ids, raw or mixed, and not dealt")

    @property
    def map(self) -> CompactMap:
        """The map's shape."""
        return CompactMap(self.ids, self.salt)

    @property
    def tables(self) -> tuple[TableShape, ...]:
        """The tables that are read."""
        return (TableShape(self.table, self.map.bytes, 8, "map"),)

    @property
    def codes(self) -> int:
        """How many codes there are."""
        return self.ids + self.misses

    def code_int(self, value: int, tables: Tables) -> int:
        """The code of an id of 64 bits: the definition."""
        place = self.map.place_int(tables[self.table], self.of.code_int(value, tables))
        return self.ids + self.miss.scaled_int(value, self.misses) if place is None else place

    def code_torch(self, ids: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """The codes of int64 ids, of any shape."""
        place = self.map.places_torch(tables[self.table], self.of.code_torch(ids, tables))
        missed = self.ids + self.miss.scaled_torch(ids, self.misses)
        return torch.where(place < 0, missed, place)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = {"map_version": MAP_VERSION, **asdict(self), "miss": self.miss.to_json()}
        del values["of"]  # of ids, most often
        return values if self.of == Raw() else values | {"of": self.of.to_json()}


@dataclass(frozen=True)
class Stored:
    """An integer of a table, at the code of another source.

    Args:
        table: the table's name.
        length: how many integers it has.
        bits: of each, 1 to 40.
        of: what says which. A mixed code is scaled to the length; other codes beyond the last
            integer read the last one.
        kind: how the table's bytes are listed.
    """

    table: str
    length: int
    bits: int
    of: Raw | Mixed | Mapped = Raw()
    kind: str = "pointers"

    deal: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 1 <= self.length < 1 << 32 or not 1 <= self.bits <= MOST_BITS:
            raise senseless(self, f"1 to 2**32 - 1 integers of 1 to {MOST_BITS} bits")
        if not isinstance(self.of, Raw | Mixed | Mapped) or self.of.deal > 1:
            raise senseless(self, "an index that is raw, mixed or mapped, and not dealt")

    @property
    def tables(self) -> tuple[TableShape, ...]:
        """The tables that are read."""
        return (TableShape(self.table, self.length, self.bits, self.kind), *self.of.tables)

    @property
    def codes(self) -> int:
        """How many codes there are."""
        return 1 << self.bits

    def code_int(self, value: int, tables: Tables) -> int:
        """The code of an id of 64 bits: the definition."""
        if isinstance(self.of, Mixed):
            index = self.of.scaled_int(value, self.length)
        else:
            index = min(self.of.code_int(value, tables), self.length - 1)
        return bits_int(tables[self.table], self.bits, index)

    def code_torch(self, ids: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """The codes of int64 ids, of any shape."""
        if isinstance(self.of, Mixed):
            index = self.of.scaled_torch(ids, self.length)
        else:
            index = self.of.code_torch(ids, tables)
            beyond = (index < 0) | (index >= self.length)  # a negative one has its top bit set
            index = index.masked_fill(beyond, self.length - 1)
        return gather_bits(tables[self.table], self.bits, index)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        own = {"table": self.table, "length": self.length, "bits": self.bits}
        values = {**own, "of": self.of.to_json()}
        return values if self.kind == "pointers" else values | {"kind": self.kind}


@dataclass(frozen=True)
class Salted:
    """A hashed place, drawn anew when the stored part of the salt is another.

    Args:
        table: the name of the 8 bytes that are added to the salt.
        salt: what the mixer is salted with beside them.
        places: how many there are.
    """

    table: str
    salt: int
    places: int

    deal: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 1 <= self.places <= MOST_MISSES:
            raise senseless(self, "1 to 2**31 places")

    @property
    def tables(self) -> tuple[TableShape, ...]:
        """The tables that are read."""
        return (TableShape(self.table, 1, 64, "pointers"),)

    @property
    def codes(self) -> int:
        """How many codes there are."""
        return self.places

    def code_int(self, value: int, tables: Tables) -> int:
        """The code of an id of 64 bits: the definition."""
        more = int.from_bytes(bytes(tables[self.table][:8]), "little")
        return mix_int(value, self.salt + more & WORD, 64) * self.places >> 64

    def code_torch(self, ids: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """The codes of int64 ids, of any shape."""
        shifts = torch.arange(0, 64, 8, device=ids.device)
        salt = total(up(tables[self.table].long(), shifts)) + signed(self.salt)
        return scaled(mix_torch(ids, salt, shift_of(64), -1, _HALF), self.places)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


Reader = Stored | Mapped | Salted
"""Sources that read tables."""
Source = Raw | Mixed | Reader


def scaled(word: Tensor, size: Tensor | int) -> Tensor:
    """Words of 64 bits as numbers below a size under 2**32: torch has no upper product."""
    low = run_of((word & _HALF) * size, 32, _HALF)
    return run_of(run_of(word, 32, _HALF) * size + low, 32, _HALF)


def senseless(got: object, expected: str) -> BitfoldError:
    """The error for a part of an address that cannot be."""
    return BitfoldError("this address makes no sense", got=got, expected=expected)
