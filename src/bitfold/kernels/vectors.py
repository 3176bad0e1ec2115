"""Vectors of floats inside compiled loops: one load, one multiply-add, one store per piece.

Numba compiles loops over an array's elements, which LLVM then has to turn back into vector
instructions; a loop over the sixteen floats of a row keeps a counter, a remainder and checks that
cost more than the row. Here a piece of a row *is* one value, of the type `<lanes x float>`, and
LLVM lowers it to whatever registers the processor has.

Numbers of float32, float64, and bfloat16 (as the uint16 that holds its bits); bfloat16 is computed
in float32 and rounded to nearest even on the way back.

Lanes and bits travel in the type: a kernel makes one `zero(lanes, bits)` from constants, and what
it calls takes that value and reads the type off it. An index counts elements and is uint64, so
that nothing looks for negative ones.
"""

from functools import cache
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

# What only other kernels call needs no way in from Python: a sixth of the compiler's time. Nothing
# divides by zero, so there is no code for that error either.
_INNER: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
inner: Any = numba.njit(nogil=True, error_model="numpy", **_INNER)
inlined: Any = numba.njit(nogil=True, error_model="numpy", forceinline=True, **_INNER)

MOST_LANES = 32  # four registers of AVX2: an accumulator and two operands still fit


class Vector(types.Type):
    """A Numba type: `lanes` floats of `bits` bits."""

    def __init__(self, lanes: int, bits: int) -> None:
        self.lanes, self.bits = lanes, bits
        super().__init__(name=f"Vector({lanes}, {bits})")

    @property
    def scalar(self) -> ir.Type:
        """The LLVM type of one lane."""
        return ir.DoubleType() if self.bits == 64 else ir.FloatType()

    @property
    def llvm(self) -> ir.Type:
        """The LLVM type."""
        return ir.VectorType(self.scalar, self.lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, kind.llvm)


@cache
def lanes_of(width: int) -> int:
    """The lanes that rows of `width` numbers are read in: the widest that divides it.

    Example:
        >>> lanes_of(16), lanes_of(48), lanes_of(10)
        (16, 24, 10)
    """
    return max(lanes for lanes in range(1, min(width, MOST_LANES) + 1) if width % lanes == 0)


@intrinsic
def high(typingctx: Any, a: Any, b: Any) -> Any:
    """The upper 64 bits of the product of two uint64."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), build


@intrinsic
def pointer(typingctx: Any, address: Any, item: Any) -> Any:
    """An integer as the address of numbers of `item`'s type.

    Numba counts references to arrays, with atomic instructions wherever a function takes one.
    An address has no count: whoever takes it sees to it that the array outlives it.
    """
    kind = types.CPointer(item)

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(kind))

    return kind(types.int64, item), build


@intrinsic
def after(typingctx: Any, address: Any, count: Any) -> Any:
    """The address `count` elements on."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.gep(args[0], [args[1]])

    return address(address, types.int64), build


@intrinsic
def get(typingctx: Any, address: Any, index: Any) -> Any:
    """Element `index`, unchecked."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.gep(args[0], [args[1]]))

    return address.dtype(address, types.int64), build


@intrinsic
def put(typingctx: Any, address: Any, index: Any, value: Any) -> Any:
    """Write element `index`, unchecked."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], builder.gep(args[0], [args[1]]))
        return context.get_dummy_value()

    return types.void(address, types.int64, address.dtype), build


def splatted(builder: Any, value: Any, lanes: int) -> Any:
    """The instructions that put a number in every lane."""
    one = ir.VectorType(value.type, 1)
    start = builder.insert_element(ir.Constant(one, ir.Undefined), value, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return builder.shuffle_vector(start, ir.Constant(one, ir.Undefined), zeros)


def _widen(builder: Any, bits: Any, lanes: int) -> Any:
    """bfloat16 bits as float32."""
    words = ir.VectorType(ir.IntType(32), lanes)
    shift = ir.Constant(words, [16] * lanes)
    return builder.bitcast(
        builder.shl(builder.zext(bits, words), shift), ir.VectorType(ir.FloatType(), lanes)
    )


def _narrow(builder: Any, value: Any, lanes: int) -> Any:
    """float32 rounded to bfloat16 bits: to nearest, ties to even; NaN stays NaN."""
    words = ir.VectorType(ir.IntType(32), lanes)

    def each(number: int) -> Any:
        return ir.Constant(words, [number] * lanes)

    bits = builder.bitcast(value, words)
    odd = builder.and_(builder.lshr(bits, each(16)), each(1))
    rounded = builder.lshr(builder.add(bits, builder.add(odd, each(0x7FFF))), each(16))
    quiet = builder.or_(builder.lshr(bits, each(16)), each(0x40))
    kept = builder.select(builder.fcmp_unordered("uno", value, value), quiet, rounded)
    return builder.trunc(kept, ir.VectorType(ir.IntType(16), lanes))


@intrinsic(prefer_literal=True)
def zero(typingctx: Any, lanes: Any, bits: Any) -> Any:
    """A vector of zeros; both arguments are constants."""
    kind = Vector(lanes.literal_value, bits.literal_value)

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(kind.llvm, [0.0] * kind.lanes)

    return kind(lanes, bits), build


def loaded(builder: Any, address: Any, index: Any, item: Any, lanes: int) -> Any:
    """The instructions that load `lanes` of an address' elements, of Numba's type `item`."""
    place = builder.gep(address, [index])
    stored = ir.VectorType(address.type.pointee, lanes)
    return builder.load(builder.bitcast(place, stored.as_pointer()), align=item.bitwidth // 8)


def loaded_floats(builder: Any, address: Any, index: Any, item: Any, lanes: int) -> Any:
    """As `loaded`, with bfloat16, kept as uint16, widened to float32."""
    raw = loaded(builder, address, index, item, lanes)
    return _widen(builder, raw, lanes) if item == types.uint16 else raw


@intrinsic
def load(typingctx: Any, address: Any, index: Any, like: Any) -> Any:
    """The vector of `like`'s type that begins at element `index`."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return loaded_floats(builder, args[0], args[1], address.dtype, like.lanes)

    return like(address, types.uint64, like), build


def _write(builder: Any, address: Any, value: Any, args: Any, align: int) -> Any:
    """The instruction that writes a vector at element `args[1]`, in the type that is kept there."""
    narrow = address.dtype == types.uint16
    out = _narrow(builder, args[2], value.lanes) if narrow else args[2]
    place = builder.bitcast(builder.gep(args[0], [args[1]]), out.type.as_pointer())
    return builder.store(out, place, align=align)


@intrinsic
def store(typingctx: Any, address: Any, index: Any, value: Any) -> Any:
    """Write a vector at element `index`."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _write(builder, address, value, args, _size(address))
        return context.get_dummy_value()

    return types.void(address, types.uint64, value), build


@intrinsic
def stream(typingctx: Any, address: Any, index: Any, value: Any) -> Any:
    """Write a vector past the caches; aligned as its size allows, up to 32 bytes."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        size = value.lanes * _size(address)
        write = _write(builder, address, value, args, min(32, size & -size))
        one = ir.Constant(ir.IntType(32), 1)
        write.set_metadata("nontemporal", builder.module.add_metadata([one]))
        return context.get_dummy_value()

    return types.void(address, types.uint64, value), build


@intrinsic(prefer_literal=True)
def prefetch(typingctx: Any, address: Any, index: Any, write: Any) -> Any:
    """Begin to fetch the cache line of element `index`; an index out of range does nothing.

    `write`, a constant, says that the line will be written.
    """

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.gep(args[0], [args[1]])
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        name = "llvm.prefetch.p0"
        fetch = cgutils.get_or_insert_function(builder.module, kind, name)
        wanted = [word(int(write.literal_value)), word(3), word(1)]
        builder.call(fetch, [builder.bitcast(place, byte), *wanted])
        return context.get_dummy_value()

    return types.void(address, types.uint64, write), build


@intrinsic
def fence(typingctx: Any) -> Any:
    """Wait until all that was written is there for other threads."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), build


@intrinsic
def splat(typingctx: Any, number: Any, like: Any) -> Any:
    """A number in every lane."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return splatted(builder, args[0], like.lanes)

    return like(_scalar(like), like), build


def _elementwise(name: str, doc: str, operands: int, compute: Any) -> Any:
    def typed(typingctx: Any, like: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return compute(builder, *args)

        return like(*[like] * operands), build

    wrappers = {
        1: lambda typingctx, a: typed(typingctx, a),
        2: lambda typingctx, a, b: typed(typingctx, a),
        3: lambda typingctx, a, b, c: typed(typingctx, a),
    }
    made = wrappers[operands]
    made.__name__ = made.__qualname__ = name
    made.__doc__ = doc
    return intrinsic(made)


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return builder.fadd(builder.fmul(a, b, ("contract",)), c, ("contract",))


def larger_of(builder: Any, a: Any, b: Any) -> Any:
    """The instructions that find the larger of two numbers, lane by lane; NaN wins."""
    more = builder.fcmp_ordered(">", a, b)
    return builder.select(builder.or_(more, builder.fcmp_unordered("uno", a, a)), a, b)


def _where_positive(builder: Any, a: Any, b: Any) -> Any:
    zeros = ir.Constant(a.type, [0.0] * a.type.count)
    return builder.select(builder.fcmp_ordered(">", b, zeros), a, zeros)


def _same(builder: Any, a: Any, b: Any) -> Any:
    return builder.uitofp(builder.fcmp_ordered("==", a, b), a.type)


def _root(builder: Any, a: Any) -> Any:
    kind = f"v{a.type.count}f{64 if isinstance(a.type.element, ir.DoubleType) else 32}"
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(a.type, [a.type]), f"llvm.sqrt.{kind}"
    )
    return builder.call(function, [a])


add = _elementwise("add", "a + b", 2, lambda builder, a, b: builder.fadd(a, b))
sub = _elementwise("sub", "a - b", 2, lambda builder, a, b: builder.fsub(a, b))
div = _elementwise("div", "a / b", 2, lambda builder, a, b: builder.fdiv(a, b))
root = _elementwise("root", "The square root of a.", 1, _root)
mul = _elementwise("mul", "a * b", 2, lambda builder, a, b: builder.fmul(a, b))
fma = _elementwise("fma", "a * b + c, rounded once where the processor can", 3, _fma)
larger = _elementwise("larger", "The larger of a and b, lane by lane; NaN wins.", 2, larger_of)
where_positive = _elementwise("where_positive", "a where b is above 0, else 0.", 2, _where_positive)
same = _elementwise("same", "1 where a equals b, else 0.", 2, _same)


@intrinsic
def total(typingctx: Any, value: Any) -> Any:
    """The sum of the lanes."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        parts = [builder.extract_element(args[0], ir.IntType(32)(i)) for i in range(value.lanes)]
        while len(parts) > 1:
            pairs = [builder.fadd(*parts[i : i + 2]) for i in range(0, len(parts) - 1, 2)]
            parts = pairs + parts[len(parts) - len(parts) % 2 :]
        return parts[0]

    return _scalar(value)(value), build


@intrinsic
def empty(typingctx: Any, value: Any) -> Any:
    """Whether every lane is zero; a lane that is not a number is not."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zeros = ir.Constant(value.llvm, [0.0] * value.lanes)
        lanes = builder.fcmp_unordered("!=", args[0], zeros)
        bits = builder.bitcast(lanes, ir.IntType(value.lanes))
        return builder.icmp_unsigned("==", bits, ir.Constant(ir.IntType(value.lanes), 0))

    return types.boolean(value), build


@intrinsic
def rounded(typingctx: Any, value: Any, address: Any) -> Any:
    """A vector as it would come back after a store to `address`."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if address.dtype != types.uint16:
            return args[0]
        return _widen(builder, _narrow(builder, args[0], value.lanes), value.lanes)

    return value(value, address), build


def _scalar(like: Any) -> Any:
    return types.float64 if like.bits == 64 else types.float32


def _size(address: Any) -> int:
    return int(address.dtype.bitwidth) // 8
