"""Hashed ids that get places of their own: a compact map in front of any method for dense ids.

A map takes 10.5 bits an id and turns the ids that training holds into places `0..n-1`; the others
share one place more. What follows reads places as dense ids, and knows nothing of the map.
"""

from collections.abc import Sequence
from dataclasses import replace

from bitfold.address.compact_map import CompactMap
from bitfold.address.lookup import Lookup
from bitfold.address.mixing import derive_salt
from bitfold.address.source import Mapped, Mixed, Raw, Salted, Stored
from bitfold.errors import BitfoldError
from bitfold.planning.ask import Ask
from bitfold.planning.spec import Group, StoredSpec

MISSES = 1
"""Places that ids without one share. Training has none of them, so they hold the field's mean."""


def with_places(ask: Ask, numbers: Sequence[int]) -> Ask:
    """The same task, where some hashed fields have dense ids: the places of a map.

    Args:
        ask: what a method is asked for.
        numbers: the fields, by number.

    Raises:
        BitfoldError: a field that does not say how many ids it has.
    """
    fields = list(ask.fields)
    for number in numbers:
        distinct = fields[number].distinct
        if distinct is None:
            raise BitfoldError(
                f"field {fields[number].name!r} can have no map of its ids",
                got="hashed ids without the number of distinct ones",
                expected="Field(..., distinct=n)",
            )
        fields[number] = replace(fields[number], num_embeddings=distinct + MISSES)
    budget = None if ask.budget is None else ask.budget - map_bytes(ask, numbers)
    return replace(ask, fields=tuple(fields), budget=budget)


def map_bytes(ask: Ask, numbers: Sequence[int]) -> int:
    """Bytes of the maps of some fields.

    Example:
        >>> from bitfold.planning.field import Field
        >>> map_bytes(Ask((Field("query", distinct=13_296),), 16), [0])
        17452
    """
    return sum(CompactMap(ask.fields[number].distinct or 1, 0).bytes for number in numbers)


def mapped(group: Group, ask: Ask, numbers: Sequence[int]) -> Group:
    """A group planned for places, with the maps that give them.

    Args:
        group: what a method made of `with_places`.
        ask: with the fields as they are.
        numbers: the fields that have maps.

    Raises:
        BitfoldError: a method that does not read ids as they stand.
    """
    if group.program is None:
        raise BitfoldError(
            f"method {group.method!r} reads hashed ids by itself",
            got="map=true",
            expected="map=false",
        )
    lookups = list(group.program.fields)
    stored = list(group.stored)
    for place, number in enumerate(group.fields):
        if number not in numbers:
            continue
        salt = derive_salt(ask.seed, number, 1)
        distinct = ask.fields[number].distinct or 1
        source = Mapped(f"map_{number}", distinct, salt, Mixed(salt), MISSES)
        lookups[place] = tuple(_over(source, each, group.method) for each in lookups[place])
        stored.append(StoredSpec(source.table, source.map.bytes, 8, "map"))
    program = replace(group.program, fields=tuple(lookups))
    return replace(group, program=program, stored=tuple(stored))


def _over(source: Mapped, lookup: Lookup, method: str) -> Lookup:
    if isinstance(lookup.source, Stored) and lookup.source.of == Raw():
        return replace(lookup, source=replace(lookup.source, of=source))
    if isinstance(lookup.source, Salted):  # a hash of all 64 bits of any id
        return lookup
    if lookup.source != Raw():
        raise BitfoldError(
            "a map gives places that are read as they stand",
            got=f"method {method!r} with mixed or dealt ids",
            expected="map=false, or options that leave ids as they are",
        )
    return replace(lookup, source=source)
