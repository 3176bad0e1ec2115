"""Digits: the pool rows that a block of ids reads, lookup by lookup.

A block's rows stay in the first-level cache between these loops and the gather. Each loop does one
step for one lookup over the whole block, so its constants are in registers and LLVM can vectorize
it. The loops are a function of their own, called by its address for a block at a time: compiled
once, for kernels of all widths and types.
"""

from functools import cache
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from bitfold.kernels.compiled import STAMP, kept
from bitfold.kernels.packing import (
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
    READS,
    REDUCED,
    SALT,
    SHIFT,
    SHORT,
    SOURCE,
    SPAN,
    TABLE,
    TURNED,
)
from bitfold.kernels.table_codes import mix, read_codes
from bitfold.kernels.vectors import after, get, high, put

_HALF, _ONE, _BYTE, _EIGHT = np.uint64(0xFFFFFFFF), np.uint64(1), np.uint64(255), np.uint64(8)
_WORD = np.uint64(32)
# Called from one place each: pasted there before types are found, they compile in less time.
_once = numba.njit(inline="always", error_model="numpy")

_NUMBER, _WHOLE, _WORDS = types.int64, types.uint64, types.CPointer(types.uint64)
_SIGNATURE = _NUMBER(_WORDS, _NUMBER, _WORDS, _NUMBER, _NUMBER, _WORDS, _WORDS, _WORDS, _WORDS)


@cache
def digits(raw_ids: bool, reads: bool = False) -> Any:
    """The compiled loops; `read_rows` calls them by `digits(...).address`.

    Args:
        raw_ids: leave out what programs of raw ids (`Program.raw`) do without: the loops then
            compile in half the time.
        reads: whether codes are read from stored tables.
    """
    stamp = np.int64(STAMP)

    @kept(numba.cfunc, _SIGNATURE)
    def rows_of(raw, count, words, lookups, limit, tables, addresses, code, rows):
        bad = stamp - stamp - 1
        if limit > 0:
            last, signs = np.int64(limit - 1), np.int64(0)
            for i in range(count):
                value = np.int64(get(raw, i))
                signs |= value | (last - value)
            if signs < 0:
                bad = _blot(raw, count, limit)
        for m in range(lookups):
            word = after(words, m * COLUMNS)
            flags, out = get(word, FLAGS), after(rows, m * BLOCK)
            source = raw
            if raw_ids:
                _digits(source, count, word, out)
            else:
                if flags & np.uint64(MIXED | DEALT | READS):
                    source = code
                    if reads and flags & np.uint64(NEW | READS) == np.uint64(NEW | READS):
                        record = after(tables, np.int64(get(word, SOURCE)))
                        spare = after(rows, lookups * BLOCK)
                        read_codes(raw, count, record, addresses, code, spare)
                    elif flags & np.uint64(NEW):
                        _codes(raw, count, word, tables, code)
                if flags & np.uint64(LEADING):
                    _leading(source, count, word, out)
                else:
                    _digits(source, count, word, out)
            if flags & np.uint64(TURNED):
                _turn(count, word, out)
        return bad

    return rows_of


@intrinsic
def read_rows(
    typingctx: Any, loops: Any, raw: Any, count: Any, words: Any, lookups: Any, limit: Any,
    tables: Any, addresses: Any, code: Any, rows: Any,
) -> Any:  # fmt: skip
    """Write the rows of a field's ids: id `i` at lookup `m` reads row `rows[m * BLOCK + i]`.

    All arguments but the numbers are addresses (`vectors.pointer`).

    Args:
        loops: the address of `digits`, a number.
        raw: the block's ids, uint64; those out of range are made 0.
        count: how many ids, at most `BLOCK`.
        words: `[lookups, COLUMNS]`, the field's, uint64.
        lookups: how many the field has.
        limit: the number of dense ids, 0 for hashed ones.
        tables: what follows the program's words: records of sources, and how skip deals bytes.
        addresses: of the stored tables, uint64, one for each.
        code: scratch, uint64 `[BLOCK]`.
        rows: the result, uint64 `[lookups, BLOCK]`, and two blocks of scratch.

    Returns:
        Which id of the block is the first out of range, or -1.
    """

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        given = [context.get_value_type(kind) for kind in _SIGNATURE.args]
        kind = ir.FunctionType(ir.IntType(64), given).as_pointer()
        return builder.call(builder.inttoptr(args[0], kind), args[1:])

    return _NUMBER(_NUMBER, *_SIGNATURE.args), build


@_once
def _digits(code, count, word, out):
    """One lookup's trailing digits of a block, as rows of the pool."""
    flags, base = get(word, FLAGS), get(word, BASE)
    shift, radix, divisor = get(word, DIVISOR_SHIFT), get(word, RADIX), get(word, DIVISOR)
    factor, rest = get(word, RADIX_FACTOR), get(word, RADIX_SHIFT)
    if flags & np.uint64(POWER):
        for i in range(count):
            put(out, i, ((get(code, i) >> shift) & radix) + base)
    elif flags & np.uint64(REDUCED | SHORT) == np.uint64(SHORT):
        for i in range(count):
            put(out, i, (((get(code, i) & _HALF) * (divisor & _HALF)) >> shift) + base)
    elif flags & np.uint64(SHORT):
        for i in range(count):
            digit = ((get(code, i) & _HALF) * (divisor & _HALF)) >> shift
            whole = ((digit & _HALF) * (factor & _HALF)) >> rest
            put(out, i, digit - (whole & _HALF) * (radix & _HALF) + base)
    else:
        for i in range(count):
            digit = high(get(code, i) << _ONE, divisor) >> shift
            digit -= (high(digit << _ONE, factor) >> rest) * radix
            put(out, i, digit + base)


@_once
def _leading(code, count, word, out):
    """One lookup's leading digits: the code's fraction times the divisor, times the radix."""
    base, shift, divisor = get(word, BASE), get(word, DIVISOR_SHIFT), get(word, DIVISOR)
    radix, divided = get(word, RADIX), get(word, FLAGS) & np.uint64(DIVIDED)
    if radix > _HALF:
        for i in range(count):
            put(out, i, high((get(code, i) << shift) * divisor, radix) + base)
    else:
        for i in range(count):
            x = get(code, i) << shift
            if divided:
                x *= divisor
            upper = (x >> _WORD) * (radix & _HALF) + (((x & _HALF) * (radix & _HALF)) >> _WORD)
            put(out, i, (upper >> _WORD) + base)


@_once
def _turn(count, word, out):
    """Digits turned by the lookup's offset within its span."""
    base, offset, span = get(word, BASE), get(word, OFFSET), get(word, SPAN)
    end = base + span
    for i in range(count):
        turned = get(out, i) + offset
        put(out, i, turned - span if turned >= end else turned)


@_once
def _blot(raw, count, limit):
    """Make ids out of range 0, so that no wrong row is read; returns the first of them."""
    bad = -1
    for i in range(count - 1, -1, -1):
        if get(raw, i) >= np.uint64(limit):
            put(raw, i, np.uint64(0))
            bad = i
    return bad


@_once
def _codes(raw, count, word, tables, code):
    """The codes of a block, by the words of the first lookup that reads them."""
    flags = get(word, FLAGS)
    if flags & np.uint64(MIXED):
        salt, shift = get(word, SALT), get(word, SHIFT)
        mask, drop = get(word, MASK), get(word, DROP)
        for i in range(count):
            put(code, i, mix(get(raw, i), salt, shift, mask) >> drop)
    else:
        for i in range(count):
            put(code, i, get(raw, i))
    if flags & np.uint64(DEALT):
        table, length = np.int64(get(word, TABLE)), np.int64(get(word, BYTES))
        for i in range(count):
            x, dealt, start = get(code, i), np.uint64(0), table
            for _ in range(length):
                dealt += get(tables, start + np.int64(x & _BYTE))
                x >>= _EIGHT
                start += 256
            put(code, i, dealt)
