"""float16 inside compiled loops, by arithmetic on its bits.

Processors without float16 do it too, and none takes its small numbers for zeros, as those do that
are told to take float32's small numbers for zeros (`denormals.py`).
"""

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from bitfold.kernels.vectors import loaded

MOST = 65504.0  # the largest number
_SIZE, _SPECIAL, _NORMAL = 0x7FFF, 0x7C00, 0x400  # bits but the sign; from here on inf; normal
_LEAST = 2.0**-14  # the least normal number
_GROWS = 112 << 23  # by how much an exponent's bias grows, in float32's bits


def _each(number: Any, kind: Any) -> Any:
    """A constant of a type, or a vector of it."""
    return ir.Constant(kind, [number] * kind.count if isinstance(kind, ir.VectorType) else number)


def _like(kind: Any, item: Any) -> Any:
    """As many of `item` as there are numbers in a type."""
    return ir.VectorType(item, kind.count) if isinstance(kind, ir.VectorType) else item


def widened_half(builder: Any, halves: Any) -> Any:
    """The instructions that make float32 of float16's bits, one or a vector."""
    words, floats = (_like(halves.type, item) for item in (ir.IntType(32), ir.FloatType()))
    raw = builder.zext(halves, words)
    size = builder.and_(raw, _each(_SIZE, words))
    shifted = builder.shl(size, _each(13, words))
    special = builder.icmp_unsigned(">=", size, _each(_SPECIAL, words))
    grown = builder.select(special, _each(2 * _GROWS, words), _each(_GROWS, words))
    small = builder.bitcast(builder.or_(shifted, _each(113 << 23, words)), floats)
    small = builder.bitcast(builder.fsub(small, _each(_LEAST, floats)), words)
    is_small = builder.icmp_unsigned("<", size, _each(_NORMAL, words))
    found = builder.select(is_small, small, builder.add(shifted, grown))
    sign = builder.shl(builder.and_(raw, _each(0x8000, words)), _each(16, words))
    return builder.bitcast(builder.or_(found, sign), floats)


def rounded_to_half(builder: Any, value: Any) -> Any:
    """The instructions that round a float32 from 0 on to the nearest float16, ties to even.

    It stays a float32. What is beyond float16's largest number becomes that; NaN stays NaN.
    """
    kind, word = value.type, ir.IntType(32)
    beyond = builder.fcmp_ordered(">", value, kind(MOST))
    value = builder.select(beyond, kind(MOST), value)
    small = builder.fsub(builder.fadd(value, kind(0.5)), kind(0.5))  # a multiple of 2**-24
    bits = builder.bitcast(value, word)
    odd = builder.and_(builder.lshr(bits, word(13)), word(1))
    up = builder.add(bits, builder.add(odd, word(0xFFF)))
    normal = builder.bitcast(builder.and_(up, word(0xFFFFE000)), kind)
    found = builder.select(builder.fcmp_ordered("<", value, kind(_LEAST)), small, normal)
    return builder.select(builder.fcmp_unordered("uno", value, value), value, found)


@intrinsic
def load_halves(typingctx: Any, address: Any, index: Any, like: Any) -> Any:
    """The vector of float16 numbers, kept as uint16, that begins at element `index`, as float32."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if like.bits != 32:  # typed in walks that do not get here
            return ir.Constant(like.llvm, ir.Undefined)
        return widened_half(builder, loaded(builder, args[0], args[1], types.uint16, like.lanes))

    return like(address, types.uint64, like), build
