"""A program as one array of 64-bit words: what the kernels run.

A kernel does not divide. A digit's divisor and radix become a factor and a shift: for n below
2**b and ceil(log2 d) = m, n // d is n * (2**(b + m) // d + 1) >> (b + m), with b = 31 where codes
are that short (four to a vector register) and b = 63 otherwise (the upper half of a product of
128 bits). Powers of two take shifts, and read all 64 bits. A leading digit is two products: the
code, its bits at the top of the word, times the divisor (lower half), times the radix (upper half).
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from bitfold.address import Lookup, Mixed, Program, Raw, Source
from bitfold.address.codes import byte_tables
from bitfold.address.mixing import shift_of
from bitfold.address.source import Reader
from bitfold.errors import BitfoldError
from bitfold.kernels.source_words import WORDS, readers_of, record_of

FIELDS, CHUNKS, LOOKUPS, MOST, FEW = range(5)  # the head
HEAD = 5
# The columns of the words.
FLAGS, SALT, SHIFT, MASK, DROP, TABLE, BYTES = range(7)
DIVISOR, DIVISOR_SHIFT, RADIX, RADIX_FACTOR, RADIX_SHIFT, OFFSET, SPAN, BASE = range(7, 15)
# GROUP: which of a pool's slices of few bits is read; SOURCE: where the source's record begins,
# counted from the end of the words.
FEW_BASE, GROUP, SOURCE = 15, 16, 17
COLUMNS = 18
# The flags.
NEW, MIXED, DEALT, POWER, SHORT, DIVIDED, REDUCED, TURNED, LEADING, AMONG_FEW, READS = (
    1 << n for n in range(11)
)

SHORT_BITS, LONG_BITS = 31, 63

BLOCK = 256  # ids at a time
AHEAD = 12  # ids between the one whose rows are asked for and the one in work
FEW_ROWS = 2048  # rows at most that are counted among the few
SCRATCH = 6  # blocks of scratch that a walk needs beside one for each lookup of a field


def runs(program: Program) -> bool:
    """Whether kernels run a program: one pool, and no signs."""
    return not (program.more_rows or program.signed)


def scratch_words(program: Program, dim: int) -> int:
    """How many 8-byte words of scratch each thread needs for vectors of width `dim`."""
    most = max(len(lookups) for lookups in program.fields)
    return (SCRATCH + most) * BLOCK + AHEAD + BLOCK + program.lookups + dim


def pack(
    program: Program, limits: Sequence[int], slices: Sequence[int] = (0,)
) -> NDArray[np.int64]:
    """A program as one array: a head, starts, limits, words, records, byte tables.

    The head holds F, C, L, the most lookups of a field and the number of the few rows; then come
    where each field's lookups begin and the end `[F + 1]`, the limits `[F]`, the words
    `[L, COLUMNS]` (uint64 kept in int64), a record for each source that reads tables
    (`source_words.py`) and the tables by which skip deals bytes.

    Args:
        program: what to run.
        limits: the number of dense ids of each field, 0 for hashed ids.
        slices: the first row of each run of rows that shares centres and steps.

    Raises:
        BitfoldError: a lookup reads rows of several slices.
    """
    kinds, readers, names = _kinds(program), readers_of(program), [*program.tables]
    counts = [len(lookups) for lookups in program.fields]
    few, number = _few(program)
    head = [len(counts), program.chunks, program.lookups, max(counts), number]
    rows = []
    for lookups, limit in zip(program.fields, limits, strict=True):
        before = None
        for lookup in lookups:
            row = _row(lookup, limit, lookup.source != before, kinds, readers)
            row[GROUP] = _group(lookup, slices)
            if lookup.base in few:
                row[FLAGS] |= AMONG_FEW
                row[FEW_BASE] = few[lookup.base]
            rows.append(row)
            before = lookup.source
    records = [record_of(reader, names) for reader in readers]
    words = np.array([*chain(*rows, *records)], np.uint64).view(np.int64)
    starts = np.cumsum([0, *counts])
    tables = [byte_tables(bits, deal).reshape(-1) for bits, deal in kinds]
    parts = [np.array(head), starts, np.array(limits), words, *tables]
    return np.concatenate(parts).astype(np.int64, casting="safe")


def _few(program: Program) -> tuple[dict[int, int], int]:
    """The few rows: of the smallest slices, as many slices as keep them below `FEW_ROWS`.

    Such a slice is read by every id of a field, a later digit's by as many as the first digit's
    whole table: a thread that owned it would do the work of all.

    Returns:
        For each such slice's first row its number among the few rows, and how many there are.
    """
    slices: list[tuple[int, int]] = []
    shared = set()
    for base, end in sorted({(lookup.base, lookup.base + lookup.span) for lookup in program}):
        if slices and base < slices[-1][1]:  # lookups that read parts of one another's rows
            slices[-1] = slices[-1][0], max(end, slices[-1][1])
            shared.add(slices[-1])
        else:
            slices.append((base, end))
    few, number = {}, 0
    for base, end in sorted(set(slices) - shared, key=lambda each: each[1] - each[0]):
        if number + end - base > FEW_ROWS:
            break
        few[base] = number
        number += end - base
    return few, number


def in_one_slice(program: Program, slices: Sequence[int]) -> bool:
    """Whether each lookup reads rows of one slice alone: what the kernels can."""
    return all(first == last for first, last in (_reach(each, slices) for each in program))


def _reach(lookup: Lookup, slices: Sequence[int]) -> tuple[int, int]:
    """The first and the last slice that a lookup reads."""
    last = lookup.base + lookup.span - 1
    return bisect_right(slices, lookup.base) - 1, bisect_right(slices, last) - 1


def _group(lookup: Lookup, slices: Sequence[int]) -> int:
    """The slice that a lookup reads."""
    found, last = _reach(lookup, slices)
    if found != last or found < 0:
        raise BitfoldError(
            "a lookup reads rows of several slices",
            got=f"rows {lookup.base} to {lookup.base + lookup.span - 1}",
            expected=f"within one of the slices from {list(slices[:8])} on",
        )
    return found


def _kinds(program: Program) -> list[tuple[int, int]]:
    sources = {lookup.source for lookup in program}
    return sorted({(_bits_of(source), source.deal) for source in sources if source.deal > 1})


def _bits_of(source: Source) -> int:
    return (source.codes - 1).bit_length()


def _row(
    lookup: Lookup,
    limit: int,
    new: bool,
    kinds: list[tuple[int, int]],
    readers: dict[Reader, int],
) -> list[int]:
    source, words = lookup.source, [0] * COLUMNS
    flags = NEW * new
    if isinstance(source, Mixed):
        flags |= MIXED
        words[SALT], words[SHIFT] = source.salt, shift_of(source.mix_bits)
        words[MASK] = (1 << source.mix_bits) - 1
        words[DROP] = source.mix_bits - source.code_bits
    if isinstance(source, Reader):
        flags |= READS
        words[SOURCE] = readers[source] * WORDS
    if source.deal > 1:
        flags |= DEALT
        words[TABLE] = len(readers) * WORDS + kinds.index((_bits_of(source), source.deal)) * 2048
        words[BYTES] = -(-_bits_of(source) // 8)
    raw = isinstance(source, Raw) and source.deal == 1
    codes = limit if raw and limit else source.codes
    divisor, radix = lookup.divisor, lookup.radix
    if divisor >= codes:  # no code reaches the digit
        divisor = radix = 1
    if lookup.leading:
        flags |= LEADING | DIVIDED * (lookup.divisor > 1)
        words[DIVISOR], words[DIVISOR_SHIFT] = lookup.divisor % (1 << 64), 64 - _bits_of(source)
        words[RADIX] = lookup.radix
    elif lookup.binary:
        flags |= POWER
        words[DIVISOR_SHIFT], words[RADIX] = divisor.bit_length() - 1, radix - 1
    else:
        bits = SHORT_BITS if codes <= 1 << SHORT_BITS else LONG_BITS
        assert codes <= 1 << LONG_BITS, "a 64-bit code has digits of whole bits"
        flags |= SHORT * (bits == SHORT_BITS)
        words[DIVISOR], words[DIVISOR_SHIFT] = reciprocal(divisor, bits)
        if radix < -(-codes // divisor):
            flags |= REDUCED
            words[RADIX] = radix
            words[RADIX_FACTOR], words[RADIX_SHIFT] = reciprocal(radix, bits)
    if lookup.offset:
        flags |= TURNED
    words[OFFSET], words[SPAN], words[BASE] = lookup.offset, lookup.span, lookup.base
    words[FLAGS] = flags
    return words


def reciprocal(divisor: int, bits: int) -> tuple[int, int]:
    """The factor, and the shift that is left after the low bits are gone.

    A short product is shifted by all of `bits + l`; a long one, of twice the code, loses its lower
    64 bits first and is shifted by `m`.
    """
    length = (divisor - 1).bit_length()
    factor = (1 << (bits + length)) // divisor + 1
    return factor, bits + length if bits == SHORT_BITS else length
