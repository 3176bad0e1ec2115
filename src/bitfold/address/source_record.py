"""A source's JSON, read as a checked record."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from bitfold.address.compact_map import MAP_VERSION
from bitfold.address.source import Mapped, Mixed, Raw, Salted, Source, Stored, senseless
from bitfold.errors import BitfoldError
from bitfold.records import Name, record

_FIX = "plan it again"
_Bits = Annotated[int, Meta(ge=1, le=64)]
_Size = Annotated[int, Meta(ge=1, le=2**32)]


class _Plain(msgspec.Struct, forbid_unknown_fields=True):
    salt: int | None = None
    mix_bits: _Bits = 64
    code_bits: _Bits = 64
    deal: _Bits = 1


class _Mapped(msgspec.Struct, forbid_unknown_fields=True):
    map_version: int
    table: Name
    ids: _Size
    salt: int
    miss: dict[str, Any]
    misses: _Size
    of: dict[str, Any] | None = None


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    table: Name
    length: _Size
    bits: _Bits
    of: dict[str, Any]
    kind: Name = "pointers"


class _Salted(msgspec.Struct, forbid_unknown_fields=True):
    table: Name
    salt: int
    places: _Size


def source_from_json(values: dict[str, Any], where: object) -> Source:
    """The source that `to_json` wrote; `where` is what an error calls it."""
    if "map_version" in values:
        mapped = record(values, _Mapped, where, fix=_FIX)
        if mapped.map_version != MAP_VERSION:
            raise BitfoldError(
                "this map has a format that is not known here",
                got=f"map_version {mapped.map_version}",
                expected=MAP_VERSION,
                fix="install the bitfold that wrote it, or a newer one",
            )
        miss = source_from_json(mapped.miss, where)
        of = Raw() if mapped.of is None else source_from_json(mapped.of, where)
        if isinstance(miss, Mixed) and isinstance(of, Raw | Mixed):
            return Mapped(mapped.table, mapped.ids, mapped.salt, miss, mapped.misses, of)
        raise senseless(values, "a mixed code for other ids, and a map of raw or mixed ones")
    if "places" in values:
        salted = record(values, _Salted, where, fix=_FIX)
        return Salted(salted.table, salted.salt, salted.places)
    if "table" in values:
        stored = record(values, _Stored, where, fix=_FIX)
        of = source_from_json(stored.of, where)
        if isinstance(of, Stored | Salted):
            raise senseless(of, "an index that is raw, mixed or mapped")
        return Stored(stored.table, stored.length, stored.bits, of, stored.kind)
    plain = record(values, _Plain, where, fix=_FIX)
    if plain.salt is not None:
        return Mixed(plain.salt, plain.mix_bits, plain.code_bits, plain.deal)
    if plain.mix_bits != 64:
        raise senseless(values, "64 bits of an id that is not mixed")
    return Raw(plain.code_bits, plain.deal)
