"""Codes that are read from tables: places in compact maps, stored integers (`address/source.py`).

A step at a time over a block of ids, as in `digits.py`: mixing and scaling are loops that LLVM
vectorizes, and between them lie loops that only load, so that many loads are under way at once.

No byte of a table is trusted: an index is scaled to the table, or cut off at its end, before it is
used. That the table has the size that its record says is held beforehand (`held.py`).
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from bitfold.address.compact_map import PILOTS_AT, SPREAD, STEP
from bitfold.kernels.packing import BLOCK
from bitfold.kernels.source_words import (
    ALIGN,
    BITS,
    BUCKETS,
    DROP,
    HOW,
    IDS,
    INTEGERS,
    LAST,
    LENGTH,
    MAP,
    MAP_SALT,
    MAPS,
    MASK,
    MISSES,
    MIXES,
    OF_DROP,
    OF_MASK,
    OF_MIXED,
    OF_SALT,
    OF_SHIFT,
    SALT,
    SALTED,
    SHIFT,
    SIZE,
    TABLE,
)
from bitfold.kernels.vectors import after, get, inlined, pointer, put

_FIRST, _SECOND = np.uint64(0xD6E8FEB86659FD93), np.uint64(0xA0761D6478BD642F)
_STEP, _SPREAD = np.uint64(STEP), np.uint64(SPREAD)
_HALF, _BYTE, _WORD = np.uint64(0xFFFFFFFF), np.uint64(255), np.uint64(32)
_ONE, _THREE, _SEVEN, _EIGHT = np.uint64(1), np.uint64(3), np.uint64(7), np.uint64(8)


@intrinsic
def _word_at(typingctx: Any, address: Any, index: Any) -> Any:
    """The eight bytes from `index` on as a number, the lowest first."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.gep(args[0], [args[1]])
        return builder.load(builder.bitcast(place, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(address, types.int64), build


@inlined
def mix(x, salt, shift, mask):
    """`mixing.mix_int`."""
    x = (x ^ salt) & mask
    x ^= x >> shift
    x = (x * _FIRST) & mask
    x ^= x >> shift
    x = (x * _SECOND) & mask
    return x ^ (x >> shift)


@inlined
def read_codes(raw, count, record, addresses, code, spare):
    """The codes of a block.

    Args:
        raw: the ids, uint64.
        count: how many.
        record: the source's words (`source_words.py`).
        addresses: where the program's tables are.
        code: the result.
        spare: two blocks of scratch.
    """
    how, salt = get(record, HOW), get(record, SALT)
    if how & np.uint64(SALTED):
        salt += _word_at(_table(record, addresses, TABLE), np.int64(0))
        _scaled(raw, count, record, salt, get(record, MISSES), code)
    elif how & np.uint64(MAPS):
        _places(raw, count, record, addresses, code, spare)
    elif how & np.uint64(MIXES):
        _scaled(raw, count, record, salt, get(record, LENGTH), code)
    else:
        for i in range(count):
            put(code, i, get(raw, i))
    if how & np.uint64(INTEGERS):
        _integers(count, record, _table(record, addresses, TABLE), code)


@inlined
def _table(record, addresses, which):
    """Where the table lies that a word of a record numbers."""
    return pointer(np.int64(get(addresses, np.int64(get(record, which)))), np.uint8(0))


@inlined
def _scaled(raw, count, record, salt, size, out):
    """Mixed codes as numbers below `size`."""
    shift, mask = get(record, SHIFT), get(record, MASK)
    drop, align = get(record, DROP), get(record, ALIGN)
    for i in range(count):
        x = mix(get(raw, i), salt, shift, mask) >> drop << align
        upper = (x >> _WORD) * (size & _HALF) + (((x & _HALF) * (size & _HALF)) >> _WORD)
        put(out, i, upper >> _WORD)


@inlined
def _places(raw, count, record, addresses, code, spare):
    """Places in a compact map; `code` holds the ids' hashes until the end."""
    table = _table(record, addresses, MAP)
    ids, buckets, found = get(record, IDS), get(record, BUCKETS), after(spare, BLOCK)
    salt = get(record, MAP_SALT) + np.uint64(get(table, 0)) * _STEP
    held = raw
    if get(record, HOW) & np.uint64(OF_MIXED):
        held, mask = code, get(record, OF_MASK)
        first, shift, drop = get(record, OF_SALT), get(record, OF_SHIFT), get(record, OF_DROP)
        for i in range(count):
            put(code, i, mix(get(raw, i), first, shift, mask) >> drop)
    for i in range(count):
        h = mix(get(held, i), salt, _WORD, ~np.uint64(0))
        put(code, i, h)
        x = h >> _WORD
        square = (x * x) >> _WORD
        y = (square + ((square * x) >> _WORD)) >> _ONE
        y = y - (y >> _EIGHT) + (x >> _EIGHT)
        put(spare, i, ((y & _HALF) * (buckets & _HALF)) >> _WORD)
    pilots = after(table, PILOTS_AT)
    for i in range(count):
        put(spare, i, np.uint64(get(pilots, np.int64(get(spare, i)))))
    for i in range(count):
        spread = (get(code, i) ^ (get(spare, i) * _STEP)) * _SPREAD
        put(spare, i, ((spread >> _WORD) * (ids & _HALF)) >> _WORD)
    prints = after(pilots, np.int64(buckets))
    for i in range(count):
        put(found, i, np.uint64(get(prints, np.int64(get(spare, i)))))
    missed = np.uint64(0)
    for i in range(count):
        missed |= (get(found, i) ^ get(code, i)) & _BYTE
    if missed == np.uint64(0):
        for i in range(count):
            put(code, i, get(spare, i))
        return
    for i in range(count):  # 0 for a hit
        put(found, i, (get(found, i) ^ get(code, i)) & _BYTE)
    _scaled(raw, count, record, get(record, SALT), get(record, MISSES), code)
    for i in range(count):
        put(code, i, get(code, i) + ids if get(found, i) else get(spare, i))


@inlined
def _integers(count, record, table, code):
    """The integers at the codes, or the last one for codes beyond."""
    end, bits, last = get(record, LENGTH) - _ONE, get(record, BITS), get(record, LAST)
    mask, size = (_ONE << bits) - _ONE, get(record, SIZE)
    for i in range(count):
        put(code, i, min(get(code, i), end) * bits)
    if size >= _EIGHT:
        for i in range(count):
            at = get(code, i)
            byte = min(at >> _THREE, last)  # eight bytes from here on are the table's
            put(code, i, (_word_at(table, np.int64(byte)) >> (at - byte * _EIGHT)) & mask)
    else:
        word = np.uint64(0)
        for i in range(np.int64(size)):
            word |= np.uint64(get(table, i)) << np.uint64(8 * i)
        for i in range(count):
            put(code, i, (word >> get(code, i)) & mask)
