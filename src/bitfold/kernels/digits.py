"""Digits: the pool rows that a block of ids reads, lookup by lookup.

A block's rows stay in the first-level cache between these loops and the gather. Each loop does one
step for one lookup over the whole block, so its constants are in registers and LLVM can vectorize
it.
"""

import numba
import numpy as np

from bitfold.kernels.vectors import after, get, high, inner, put
from bitfold.kernels.words import (
    BASE,
    BLOCK,
    BYTES,
    COLUMNS,
    DEALT,
    DIVIDED,
    DIVISOR,
    DIVISOR_SHIFT,
    DROP,
    FLAGS,
    LEADING,
    MASK,
    MIXED,
    NEW,
    OFFSET,
    POWER,
    RADIX,
    RADIX_FACTOR,
    RADIX_SHIFT,
    REDUCED,
    SALT,
    SHIFT,
    SHORT,
    SPAN,
    TABLE,
    TURNED,
)

_FIRST, _SECOND = np.uint64(0xD6E8FEB86659FD93), np.uint64(0xA0761D6478BD642F)
_HALF, _ONE, _BYTE, _EIGHT = np.uint64(0xFFFFFFFF), np.uint64(1), np.uint64(255), np.uint64(8)
_WORD = np.uint64(32)


@numba.njit(inline="always")
def _word(words, column):
    return np.uint64(get(words, column))


@inner
def read_rows(raw, count, words, lookups, limit, tables, code, rows):
    """Write the rows of a field's ids: id `i` at lookup `m` reads row `rows[m * BLOCK + i]`.

    All arguments but the numbers are addresses (`vectors.pointer`).

    Args:
        raw: the block's ids, uint64; those out of range are made 0.
        count: how many ids, at most `BLOCK`.
        words: `[lookups, COLUMNS]`, the field's, int64 that hold uint64.
        lookups: how many the field has.
        limit: the number of dense ids, 0 for hashed ones.
        tables: how skip deals bytes.
        code: scratch, uint64 `[BLOCK]`.
        rows: the result, uint64 `[lookups, BLOCK]`.

    Returns:
        Which id of the block is the first out of range, or -1.
    """
    bad = -1
    if limit > 0:
        last, signs = np.int64(limit - 1), np.int64(0)
        for i in range(count):
            value = np.int64(get(raw, i))
            signs |= value | (last - value)
        if signs < 0:
            bad = _blot(raw, count, limit)
    for m in range(lookups):
        word = after(words, m * COLUMNS)
        flags, out = _word(word, FLAGS), after(rows, m * BLOCK)
        source = raw
        if flags & np.uint64(MIXED | DEALT):
            source = code
            if flags & np.uint64(NEW):
                _codes(raw, count, word, tables, code)
        _digits(source, count, word, out)
    return bad


@inner
def _digits(code, count, word, out):
    """One lookup's digits of a block, as rows of the pool."""
    flags, base = _word(word, FLAGS), _word(word, BASE)
    shift, radix, divisor = _word(word, DIVISOR_SHIFT), _word(word, RADIX), _word(word, DIVISOR)
    factor, rest = _word(word, RADIX_FACTOR), _word(word, RADIX_SHIFT)
    if flags & np.uint64(LEADING):
        _leading(code, count, shift, divisor, radix, base, flags & np.uint64(DIVIDED), out)
    elif flags & np.uint64(POWER):
        for i in range(count):
            put(out, i, ((get(code, i) >> shift) & radix) + base)
    elif flags & np.uint64(SHORT):
        if flags & np.uint64(DIVIDED):
            if flags & np.uint64(REDUCED):
                for i in range(count):
                    digit = ((get(code, i) & _HALF) * (divisor & _HALF)) >> shift
                    whole = ((digit & _HALF) * (factor & _HALF)) >> rest
                    put(out, i, digit - (whole & _HALF) * (radix & _HALF) + base)
            else:
                for i in range(count):
                    put(out, i, (((get(code, i) & _HALF) * (divisor & _HALF)) >> shift) + base)
        elif flags & np.uint64(REDUCED):
            for i in range(count):
                digit = get(code, i)
                whole = ((digit & _HALF) * (factor & _HALF)) >> rest
                put(out, i, digit - (whole & _HALF) * (radix & _HALF) + base)
        else:
            for i in range(count):
                put(out, i, get(code, i) + base)
    else:
        divided, reduced = flags & np.uint64(DIVIDED), flags & np.uint64(REDUCED)
        for i in range(count):
            digit = get(code, i)
            if divided:
                digit = high(digit << _ONE, divisor) >> shift
            if reduced:
                digit -= (high(digit << _ONE, factor) >> rest) * radix
            put(out, i, digit + base)
    if flags & np.uint64(TURNED):
        offset, span = _word(word, OFFSET), _word(word, SPAN)
        end = base + span
        for i in range(count):
            turned = get(out, i) + offset
            put(out, i, turned - span if turned >= end else turned)


@inner
def _leading(code, count, shift, divisor, radix, base, divided, out):
    """Leading digits: the code's fraction times the divisor, times the radix."""
    if radix > _HALF:
        for i in range(count):
            put(out, i, high((get(code, i) << shift) * divisor, radix) + base)
        return
    for i in range(count):
        x = get(code, i) << shift
        if divided:
            x *= divisor
        upper = (x >> _WORD) * (radix & _HALF) + (((x & _HALF) * (radix & _HALF)) >> _WORD)
        put(out, i, (upper >> _WORD) + base)


@inner
def _blot(raw, count, limit):
    """Make ids out of range 0, so that no wrong row is read; returns the first of them."""
    bad = -1
    for i in range(count - 1, -1, -1):
        if get(raw, i) >= np.uint64(limit):
            put(raw, i, np.uint64(0))
            bad = i
    return bad


@inner
def _codes(raw, count, word, tables, code):
    """The codes of a block, by the words of the first lookup that reads them."""
    flags = _word(word, FLAGS)
    if flags & np.uint64(MIXED):
        salt, shift = _word(word, SALT), _word(word, SHIFT)
        mask, drop = _word(word, MASK), _word(word, DROP)
        for i in range(count):
            x = (get(raw, i) ^ salt) & mask
            x ^= x >> shift
            x = (x * _FIRST) & mask
            x ^= x >> shift
            x = (x * _SECOND) & mask
            x ^= x >> shift
            put(code, i, x >> drop)
    else:
        for i in range(count):
            put(code, i, get(raw, i))
    if flags & np.uint64(DEALT):
        table, length = np.int64(_word(word, TABLE)), np.int64(_word(word, BYTES))
        for i in range(count):
            x, dealt, start = get(code, i), np.int64(0), table
            for _ in range(length):
                dealt += get(tables, start + np.int64(x & _BYTE))
                x >>= _EIGHT
                start += 256
            put(code, i, np.uint64(dealt))
