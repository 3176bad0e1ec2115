"""Readers: how a kernel gets a piece of a row, whatever the pool keeps its numbers in.

A reader is one value, made once by each thread, and its type says what it does, so that a walk is
compiled for it: floats are loaded; rows in training are loaded and rounded to few bits; packed rows
are loaded as bytes and expanded. Rounding is defined in `bitfold.pool.rounding`; what is done here
gives the same numbers, to the bit.

The lowest values of lookups, their steps and inverses lie at the end of the thread's scratch, as
float32: three vectors of a row's width for each lookup. Every call makes them anew from the float16
that is stored; copies that are kept could be old ones. Where each row has a step of its own, the
first vector is the centre, and the others follow from the row.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

from bitfold.kernels.call import CENTRES, ROOM, SPACE, STEPS, WIDTH
from bitfold.kernels.halves import load_halves, rounded_to_half, widened_half
from bitfold.kernels.packing import COLUMNS, GROUP
from bitfold.kernels.reading import OF_LARGEST
from bitfold.kernels.vectors import (
    Vector,
    after,
    div,
    get,
    inner,
    larger_of,
    loaded,
    loaded_floats,
    mul,
    pointer,
    splat,
    splatted,
    store,
    sub,
    where_positive,
)
from bitfold.kernels.walk import lookups_of, program_of

FLOATS, ROUNDED, PACKED, ROUNDED_BY_ROW, PACKED_BY_ROW = range(5)  # those by row come last
CODES = (PACKED, PACKED_BY_ROW)
BY_ROW = (ROUNDED_BY_ROW, PACKED_BY_ROW)
SCALES = 3  # vectors of a lookup: lowest value, step, inverse


def scale_words(lookups: int, width: int) -> int:
    """How many 8-byte words of scratch a thread needs for the scales of all lookups."""
    return -(-SCALES * lookups * width // 2)


class Reader(types.Type):
    """A Numba type: where rows of `item`s lie, and how they are read."""

    def __init__(self, item: Any, kind: int, bits: int) -> None:
        self.item, self.kind, self.bits = item, kind, bits
        super().__init__(name=f"Reader({item}, {kind}, {bits})")

    def index(self, builder: Any, row: Any, width: Any, at: Any) -> Any:
        """The instructions that find the element where piece `at` of a row begins."""
        if self.kind not in CODES:
            return builder.add(builder.mul(row, width), at)
        word = row.type
        bits, seven, three = word(self.bits), word(7), word(3)
        stride = builder.lshr(builder.add(builder.mul(width, bits), seven), three)
        return builder.add(builder.mul(row, stride), builder.lshr(builder.mul(at, bits), three))


class Near(Reader):
    """A reader of a few terms, a piece of each: their scales are in registers."""

    def __init__(self, pool: Reader, lanes: int, terms: int) -> None:
        super().__init__(pool.item, pool.kind, pool.bits)
        self.vector, self.terms = Vector(lanes, 32), terms
        self.name = f"Near({pool.item}, {pool.kind}, {pool.bits}, {lanes}, {terms})"


@register_model(Reader)
class _ReaderModel(models.StructModel):
    def __init__(self, manager: Any, kind: Reader) -> None:
        rows, scales = types.CPointer(kind.item), types.CPointer(types.float32)
        steps = types.CPointer(types.uint16)
        super().__init__(manager, kind, [("rows", rows), ("scales", scales), ("steps", steps)])


@register_model(Near)
class _NearModel(models.StructModel):
    def __init__(self, manager: Any, kind: Near) -> None:
        names = [f"scale{n}" for n in range(kind.terms * SCALES)]
        rows = types.CPointer(kind.item)
        super().__init__(manager, kind, [("rows", rows), *((name, kind.vector) for name in names)])


def _parts(context: Any, builder: Any, kind: Reader, value: Any) -> Any:
    """A reader's parts, to read or, where there is no value yet, to write."""
    return cgutils.create_struct_proxy(kind)(context, builder, value=value)


@intrinsic(prefer_literal=True)
def reader(typingctx: Any, rows: Any, scales: Any, steps: Any, kind: Any, bits: Any) -> Any:
    """The reader of rows at an address; `kind` and `bits` are constants, `steps` are the rows'."""
    made = Reader(rows.dtype, kind.literal_value, bits.literal_value)

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        parts = _parts(context, builder, made, None)
        parts.rows, parts.scales, parts.steps = args[:3]
        return parts._getvalue()

    return made(rows, scales, steps, kind, bits), build


@intrinsic
def onward(typingctx: Any, pool: Any, lookups: Any, width: Any) -> Any:
    """The reader whose first term is so many lookups on."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if pool.kind == FLOATS:
            return args[0]
        parts = _parts(context, builder, pool, args[0])
        count = builder.mul(builder.mul(args[1], args[2]), args[1].type(SCALES))
        parts.scales = builder.gep(parts.scales, [count])
        return parts._getvalue()

    return pool(pool, types.int64, types.int64), build


@intrinsic
def fetch(typingctx: Any, pool: Any, row: Any, width: Any, at: Any) -> Any:
    """Begin to fetch piece `at` of a row; a row out of range does nothing."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        parts = _parts(context, builder, pool, args[0])
        place = builder.gep(parts.rows, [pool.index(builder, *args[1:])])
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(call, [builder.bitcast(place, byte), word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(pool, types.uint64, types.uint64, types.uint64), build


@intrinsic(prefer_literal=True)
def near(typingctx: Any, pool: Any, terms: Any, width: Any, at: Any, like: Any) -> Any:
    """The reader of piece `at`, for a loop over ids, where a load costs; `terms` is a constant.

    Floats are read as before, rows with steps of their own too, and 0 terms: any number of them.
    """
    known = terms.literal_value
    same = pool.kind == FLOATS or pool.kind in BY_ROW or known == 0
    made = pool if same else Near(pool, like.lanes, known)

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value, _, wide, begin, _ = args
        if same:
            return value
        parts, into = _parts(context, builder, pool, value), _parts(context, builder, made, None)
        into.rows = parts.rows
        for number in range(known * SCALES):
            index = builder.add(builder.mul(wide, wide.type(number)), begin)
            scale = loaded(builder, parts.scales, index, types.float32, like.lanes)
            setattr(into, f"scale{number}", scale)
        return into._getvalue()

    return made(pool, terms, types.uint64, types.uint64, like), build


@intrinsic
def read(typingctx: Any, pool: Any, term: Any, row: Any, width: Any, at: Any, like: Any) -> Any:
    """Piece `at` of a row, of the chunk's lookup `term`, as a vector of `like`'s type."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value, number, row, wide, begin, _ = args
        parts = _parts(context, builder, pool, value)
        place = pool.index(builder, row, wide, begin)
        if pool.kind == FLOATS:
            return loaded_floats(builder, parts.rows, place, pool.item, like.lanes)

        def scale(which: int) -> Any:
            if isinstance(pool, Near):  # loops over terms unroll, and choices go
                found = getattr(parts, f"scale{which}")
                for other in range(1, pool.terms):
                    here = builder.icmp_signed("==", number, number.type(other))
                    this = getattr(parts, f"scale{other * SCALES + which}")
                    found = builder.select(here, this, found)
                return found
            index = builder.mul(builder.mul(number, number.type(SCALES)), wide)
            index = builder.add(builder.add(index, builder.mul(wide, wide.type(which))), begin)
            return loaded(builder, parts.scales, index, types.float32, like.lanes)

        if pool.kind in CODES:
            codes = expanded(builder, parts.rows, place, like.lanes, pool.bits)
        else:
            numbers = loaded(builder, parts.rows, place, types.float32, like.lanes)
        if pool.kind in BY_ROW:
            step = _step_of_row(builder, pool, parts, like, number, row, wide)
            half = ir.FloatType()(((1 << pool.bits) - 1) / 2)
            reach = splatted(builder, builder.fmul(step, half), like.lanes)
            lowest, steps = builder.fsub(scale(0), reach), splatted(builder, step, like.lanes)
            if pool.kind == ROUNDED_BY_ROW:
                inverse = splatted(builder, _inverse(builder, step), like.lanes)
        else:
            lowest, steps = scale(0), scale(1)
            if pool.kind == ROUNDED:
                inverse = scale(2)
        if pool.kind not in CODES:
            codes = _rounded(builder, numbers, lowest, inverse, pool.bits)
        fuse = ("contract",)  # the product is exact
        return builder.fadd(builder.fmul(codes, steps, flags=fuse), lowest, flags=fuse)

    return like(pool, types.int64, types.uint64, types.uint64, types.uint64, like), build


def _each(number: float, like: Any) -> Any:
    return ir.Constant(like, [number] * like.count)


def _rounded(builder: Any, numbers: Any, lowest: Any, inverse: Any, bits: int) -> Any:
    """The codes of numbers, as float32."""
    kind = numbers.type
    name = f"llvm.rint.v{kind.count}f32"
    rint = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), name)
    code = builder.call(rint, [builder.fmul(builder.fsub(numbers, lowest), inverse)])
    # What is not a number is neither below nor above.
    for sign, bound in (("<", _each(0.0, kind)), (">", _each((1 << bits) - 1.0, kind))):
        code = builder.select(builder.fcmp_ordered(sign, code, bound), bound, code)
    return code


def _inverse(builder: Any, step: Any) -> Any:
    """One over a step, 0 of a step of 0."""
    one, nothing = step.type(1.0), step.type(0.0)
    above = builder.fcmp_ordered(">", step, nothing)
    return builder.select(above, builder.fdiv(one, step), nothing)


def _step_of_row(
    builder: Any, pool: Reader, parts: Any, like: Any, term: Any, row: Any, width: Any
) -> Any:
    """A row's own step: the one that is stored, or that of its number farthest from the centre."""
    if pool.kind == PACKED_BY_ROW:
        return widened_half(builder, builder.load(builder.gep(parts.steps, [row])))
    first = builder.mul(builder.mul(term, term.type(SCALES)), width)
    start = builder.mul(row, width)
    most = cgutils.alloca_once_value(builder, _each(0.0, like.llvm))
    with cgutils.for_range_slice(
        builder, width.type(0), width, width.type(like.lanes), width.type
    ) as (at, _):
        place = builder.add(start, at)
        numbers = loaded(builder, parts.rows, place, types.float32, like.lanes)
        place = builder.add(first, at)
        centre = loaded(builder, parts.scales, place, types.float32, like.lanes)
        away = _size_of(builder, builder.fsub(numbers, centre))
        builder.store(larger_of(builder, away, builder.load(most)), most)
    lanes = [
        builder.extract_element(builder.load(most), ir.IntType(32)(lane))
        for lane in range(like.lanes)
    ]
    while len(lanes) > 1:
        pairs = [larger_of(builder, *lanes[i : i + 2]) for i in range(0, len(lanes) - 1, 2)]
        lanes = pairs + lanes[len(lanes) - len(lanes) % 2 :]
    return rounded_to_half(builder, builder.fmul(lanes[0], ir.FloatType()(OF_LARGEST[pool.bits])))


def _size_of(builder: Any, numbers: Any) -> Any:
    """Numbers without their signs."""
    words = ir.VectorType(ir.IntType(32), numbers.type.count)
    bits = builder.and_(builder.bitcast(numbers, words), _each(0x7FFFFFFF, words))
    return builder.bitcast(bits, numbers.type)


def expanded(builder: Any, rows: Any, place: Any, lanes: int, bits: int) -> Any:
    """Packed codes as float32."""
    size = -(-lanes * bits // 8)
    raw = loaded(builder, rows, place, types.uint8, size)
    # Each lane gets the byte or two that its code lies in, as the lowest of four.
    nothing = size  # the first of the second operand, zeros
    picked = []
    for lane in range(lanes):
        first, last = lane * bits // 8, (lane * bits + bits - 1) // 8
        picked += [first, last if last > first else nothing, nothing, nothing]
    word, number = ir.IntType(32), ir.VectorType(ir.IntType(32), lanes)
    mask = ir.Constant(ir.VectorType(word, 4 * lanes), picked)
    wide = builder.shuffle_vector(raw, ir.Constant(raw.type, [0] * size), mask)
    codes = builder.bitcast(wide, number)
    if bits < 8:
        shifts = ir.Constant(number, [lane * bits % 8 for lane in range(lanes)])
        codes = builder.and_(builder.lshr(codes, shifts), _each((1 << bits) - 1, number))
    return builder.sitofp(codes, ir.VectorType(ir.FloatType(), lanes))


@inner
def scales_of(told, t, like, lanes, kind, few):
    """The scales of thread `t`, for readers of a kind of rows of `few` bits."""
    width, lookups = get(told, WIDTH), lookups_of(told)
    end = get(told, SPACE) + 8 * get(told, ROOM) * (t + 1)
    scales = pointer(end - 8 * ((SCALES * lookups * width + 1) // 2), np.float32(0))
    if kind != FLOATS:
        _fill(told, like, lanes, scales, lookups, width, kind, few)
    return scales


@inner
def _fill(told, like, lanes, scales, lookups, width, kind, few):
    _, _, _, _, words, _ = program_of(told)
    centres = pointer(get(told, CENTRES), np.uint16(0))
    steps = pointer(get(told, STEPS), np.uint16(0))
    one = splat(np.float32(1), like)
    half = splat(np.float32((1 << few) - 1) / np.float32(2), like)
    for m in range(lookups):
        group = np.int64(get(after(words, m * COLUMNS), GROUP))
        into = after(scales, SCALES * m * width)
        for at in range(0, width, lanes):
            place = np.uint64(group * width + at)
            centre = load_halves(centres, place, like)
            if kind >= ROUNDED_BY_ROW:
                store(into, np.uint64(at), centre)
                continue
            step = load_halves(steps, place, like)
            store(into, np.uint64(at), sub(centre, mul(step, half)))
            store(into, np.uint64(width + at), step)
            if kind == ROUNDED:
                store(into, np.uint64(2 * width + at), where_positive(div(one, step), step))
