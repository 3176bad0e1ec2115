"""Sources that read tables, as words of a packed program: a record for each."""

from collections.abc import Sequence

from bitfold.address import Mapped, Mixed, Program, Salted, Stored
from bitfold.address.compact_map import MOST_IDS, CompactMap
from bitfold.address.mixing import shift_of
from bitfold.address.source import MOST_MISSES, Reader
from bitfold.address.stored import MOST_BITS, stored_bytes
from bitfold.errors import BitfoldError

# The words of a record. Tables are numbered as the program names them.
HOW, MAP, MAP_SALT, IDS, BUCKETS, MISSES = range(6)
SALT, SHIFT, MASK, DROP, ALIGN = range(6, 11)  # how an id is mixed: for a miss, or for an index
TABLE, LENGTH, BITS, LAST, SIZE = range(11, 16)  # of stored integers; `LAST` whole word of bytes
OF_SALT, OF_SHIFT, OF_MASK, OF_DROP = range(16, 20)  # how an id is mixed for a map of mixed ones
WORDS = 32  # a power of two, as what follows the records
# What a record does: places of a map, of mixed ids perhaps, or a mixed index, or the id; then an
# integer there. Or, alone, a mixed place whose salt is in part a table's.
MAPS, MIXES, INTEGERS, OF_MIXED, SALTED = 1, 2, 4, 8, 16


def readers_of(program: Program) -> dict[Reader, int]:
    """The sources that read tables, in order, and the number of each one's record."""
    sources = (lookup.source for lookup in program)
    readers = (each for each in sources if isinstance(each, Reader))
    return {reader: number for number, reader in enumerate(dict.fromkeys(readers))}


def record_of(source: Reader, names: Sequence[str]) -> list[int]:
    """A source's record; `names` are those of all tables."""
    words = [0] * WORDS
    if isinstance(source, Salted):
        words[HOW], words[TABLE], words[SIZE] = SALTED, names.index(source.table), 8
        words[SALT : DROP + 1] = _mixer(Mixed(source.salt))
        words[MISSES] = source.places
        return words
    if isinstance(source, Stored):
        size = source.tables[0].bytes
        words[HOW] = INTEGERS
        words[TABLE], words[LENGTH], words[BITS] = (
            names.index(source.table), source.length, source.bits,
        )  # fmt: skip
        words[LAST], words[SIZE] = max(size - 8, 0), size
        inner = source.of
    else:
        inner = source
    mixed = inner.miss if isinstance(inner, Mapped) else inner
    if isinstance(inner, Mapped):
        words[HOW] |= MAPS
        words[MAP], words[MAP_SALT] = names.index(inner.table), inner.salt
        words[IDS], words[BUCKETS], words[MISSES] = inner.ids, inner.map.buckets, inner.misses
        if isinstance(inner.of, Mixed):
            words[HOW] |= OF_MIXED
            words[OF_SALT : OF_DROP + 1] = _mixer(inner.of)
    if isinstance(mixed, Mixed):
        words[HOW] |= MIXES * (not isinstance(inner, Mapped))
        words[SALT : DROP + 1] = _mixer(mixed)
        words[ALIGN] = 64 - mixed.code_bits
    return words


def _mixer(source: Mixed) -> list[int]:
    """Salt, shift, mask, and the bits that are dropped."""
    mask = (1 << source.mix_bits) - 1
    return [source.salt, shift_of(source.mix_bits), mask, source.mix_bits - source.code_bits]


def most_code(words: Sequence[int]) -> int:
    """The largest code that a record can make, whatever its tables hold.

    Raises:
        BitfoldError: the record is none.
    """
    how = words[HOW]
    good = how & ~INTEGERS in (0, MAPS, MAPS | OF_MIXED, MIXES) and how not in (0, MIXES)
    if how == SALTED:
        good = words[SIZE] == 8
    if how & OF_MIXED:
        mask = words[OF_MASK]
        good = good and not mask & (mask + 1) and max(words[OF_SHIFT], words[OF_DROP]) < 64
    if how & (MAPS | MIXES | SALTED):
        mask, most = words[MASK], max(words[SHIFT], words[DROP], words[ALIGN])
        good = good and not mask & (mask + 1) and most < 64
    if how & MAPS:
        ids = words[IDS]
        good = good and 1 <= ids <= MOST_IDS and words[BUCKETS] == CompactMap(ids, 0).buckets
    if how & (MAPS | SALTED):
        good = good and 1 <= words[MISSES] <= MOST_MISSES
    if how & INTEGERS:
        length, bits, size = words[LENGTH], words[BITS], words[SIZE]
        good = good and 1 <= length < 1 << 32 and 1 <= bits <= MOST_BITS
        good = good and size == stored_bytes(length, bits) and words[LAST] == max(size - 8, 0)
    if not good:
        raise BitfoldError(
            "a source of a packed program makes no sense",
            got=list(words),
            expected="a record as `source_words.record_of` makes it",
        )
    return (1 << words[BITS]) - 1 if how & INTEGERS else words[IDS] + words[MISSES] - 1


def sizes_of(words: Sequence[int]) -> dict[int, int]:
    """The bytes that each table of a record must have, by the table's number."""
    sizes = {}
    if words[HOW] & MAPS:
        sizes[words[MAP]] = CompactMap(words[IDS], 0).bytes
    if words[HOW] & (INTEGERS | SALTED):
        sizes[words[TABLE]] = words[SIZE]
    return sizes
