"""Rows that are codes, moved in one pass: each is decoded, moved as floats are, and encoded again.

What a row becomes stays in registers and the first-level cache; neither floats nor states of a
batch's rows are ever a table. The codes are those of `coding.decode`, `updates.update` and
`coding.encode`, one after the other, to the bit.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from torch import Tensor

from bitfold.kernels.call import (
    CODES,
    COUNT,
    GRAD,
    INVERSE,
    KEPT,
    KIND,
    LIST,
    LOWEST,
    OF_CODE,
    ONE,
    SLICE_COUNT,
    SLICES,
    SPARE,
    THREADS,
    TURN,
    TWO,
    tell,
)
from bitfold.kernels.call import MOVED_WIDTH as WIDTH
from bitfold.kernels.coding import Coded, seed_of
from bitfold.kernels.compiled import STAMP, Kernel, kernel, run
from bitfold.kernels.held import refused
from bitfold.kernels.move import Move, check_floats, check_states
from bitfold.kernels.packing import AHEAD
from bitfold.kernels.readers import expanded
from bitfold.kernels.reading import APART, TURNS, lanes_of_packed
from bitfold.kernels.updates import ADAM, KINDS, ROWWISE, move_rows, options_of, told_options
from bitfold.kernels.vectors import (
    after,
    empty,
    fma,
    get,
    inlined,
    lanes_of,
    load,
    pointer,
    prefetch,
    put,
    splatted,
    store,
    sub,
    zero,
)


@intrinsic(prefer_literal=True)
def _decoded(typingctx: Any, codes: Any, place: Any, like: Any, bits: Any) -> Any:
    """The codes that begin at a byte, as a vector of numbers; `bits` is a constant."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return expanded(builder, args[0], args[1], like.lanes, bits.literal_value)

    return like(codes, types.uint64, like, bits), build


@intrinsic
def _chances(typingctx: Any, seed: Any, at: Any, like: Any) -> Any:
    """The chances of a row's columns from `at` on; see `bitfold.pool.chance`."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(32)
        words = ir.VectorType(word, like.lanes)

        def each(number: int) -> Any:
            return ir.Constant(words, [number] * like.lanes)

        first = builder.add(args[0], builder.mul(builder.trunc(args[1], word), word(APART)))
        steps = ir.Constant(words, [lane * APART & 0xFFFFFFFF for lane in range(like.lanes)])
        drawn = builder.add(splatted(builder, first, like.lanes), steps)
        for down, factor in TURNS:
            drawn = builder.xor(drawn, builder.lshr(drawn, each(down)))
            drawn = builder.mul(drawn, each(factor))
        drawn = builder.lshr(builder.xor(drawn, builder.lshr(drawn, each(16))), each(8))
        unit = ir.Constant(like.llvm, [2.0**-24] * like.lanes)
        return builder.fmul(builder.sitofp(drawn, like.llvm), unit)

    return like(types.uint32, types.uint64, like), build


@intrinsic(prefer_literal=True)
def _encode(
    typingctx: Any, codes: Any, place: Any, numbers: Any, lowest: Any, inverse: Any, chances: Any,
    bits: Any,
) -> Any:  # fmt: skip
    """Write the codes of numbers from a byte on, rounded by their chances."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows, begin, values, low, inverses, chance, _ = args
        kind, few, lanes = values.type, bits.literal_value, numbers.lanes
        name = f"llvm.floor.v{lanes}f32"
        floor = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), name)
        levels = builder.fmul(builder.fsub(values, low), inverses)
        drawn = builder.call(floor, [builder.fadd(levels, chance)])
        for sign, bound in ((">", 0.0), ("<", (1 << few) - 1.0)):
            limit = ir.Constant(kind, [bound] * lanes)
            drawn = builder.select(builder.fcmp_ordered(sign, drawn, limit), drawn, limit)
        words = builder.fptosi(drawn, ir.VectorType(ir.IntType(32), lanes))
        out = _packed(builder, words, few)
        into = builder.bitcast(builder.gep(rows, [begin]), out.type.as_pointer())
        builder.store(out, into, align=1)
        return context.get_dummy_value()

    given = codes, types.uint64, numbers, lowest, inverse, chances, bits
    return types.void(*given), build


def _packed(builder: Any, codes: Any, bits: int) -> Any:
    """Codes of 32 bits as bytes, the first code lowest; what is left of the last byte is 0."""
    lanes = codes.type.count
    size, word = -(-lanes * bits // 8), ir.IntType(32)
    wide = ir.VectorType(word, size)
    # The lanes that each byte has a part of, and where in it their first bit would be.
    parts = [
        [(lane, lane * bits - 8 * byte) for lane in range(8 * byte // bits, lanes)
         if lane * bits < 8 * byte + 8]
        for byte in range(size)
    ]  # fmt: skip
    nothing = ir.Constant(codes.type, [0] * lanes)
    found = ir.Constant(wide, [0] * size)
    for number in range(max(map(len, parts))):
        here = [each[number] if number < len(each) else (lanes, 0) for each in parts]
        mask = ir.Constant(wide, [lane for lane, _ in here])
        part = builder.shuffle_vector(codes, nothing, mask)
        part = builder.shl(part, ir.Constant(wide, [max(first, 0) for _, first in here]))
        part = builder.lshr(part, ir.Constant(wide, [max(-first, 0) for _, first in here]))
        found = builder.or_(found, part)
    return builder.trunc(found, ir.VectorType(ir.IntType(8), size))


@inlined
def _begin_to_fetch(told, row, wide, stride):
    """Fetch a row's codes and states; they are written soon."""
    prefetch(pointer(get(told, CODES), np.uint8(0)), np.uint64(row * stride), 1)
    one, two = pointer(get(told, ONE), np.float32(0)), pointer(get(told, TWO), np.float32(0))
    kind = get(told, KIND)
    if kind == ROWWISE:
        prefetch(one, np.uint64(row), 1)
    elif get(told, ONE) != 0:
        for piece in range(0, wide, 16):  # a cache line
            prefetch(one, np.uint64(row * wide + piece), 1)
            if kind == ADAM:
                prefetch(two, np.uint64(row * wide + piece), 1)


@lru_cache(maxsize=None, typed=True)
def recoding(lanes: int, pieces: int, bits: int) -> Kernel:
    """Move the rows of a list, each thread a part of it.

    A row is moved in vectors of `lanes` numbers, and read and written in `pieces` of whole bytes.
    A row that would not be finite keeps its codes; `KEPT` of a thread counts them.
    """
    stamp = STAMP

    @kernel
    def walk(address, t):
        number, item = np.int64(stamp), np.float32(0)
        told = pointer(address, number)
        options = options_of(address)
        like, few = zero(lanes, 32), zero(pieces, 32)
        threads, count, kind = get(told, THREADS), get(told, COUNT), get(told, KIND)
        width, of_slices = get(told, WIDTH), get(told, SLICE_COUNT)
        stride = (width * bits + 7) // 8
        rows, grads = pointer(get(told, LIST), number), pointer(get(told, GRAD), item)
        one, two = pointer(get(told, ONE), item), pointer(get(told, TWO), item)
        codes, slices = pointer(get(told, CODES), np.uint8(0)), pointer(get(told, SLICES), number)
        lows, ups = pointer(get(told, LOWEST), item), pointer(get(told, OF_CODE), item)
        downs = pointer(get(told, INVERSE), item)
        floats = after(pointer(get(told, SPARE), item), t * width)
        lo, hi = count * t // threads, count * (t + 1) // threads
        near, kept = 0, 0
        for i in range(lo, hi):
            _begin_to_fetch(told, get(rows, min(i + AHEAD, hi - 1)), width, stride)
            row = get(rows, i)
            if row < get(slices, near):
                near = 0
            while near + 1 < of_slices and get(slices, near + 1) <= row:
                near += 1
            for at in range(0, width, pieces):
                place = np.uint64(row * stride + at * bits // 8)
                scale = np.uint64(near * width + at)
                found = _decoded(codes, place, few, bits)
                low, up = load(lows, scale, few), load(ups, scale, few)
                store(floats, np.uint64(at), fma(found, up, low))  # the product is exact
            state = row if kind == ROWWISE else row * width
            move_rows(
                like, lanes, kind, floats, rows, after(grads, i * width), after(one, state),
                after(two, state), 0, 1, width, False, options, False,
            )  # fmt: skip
            finite = True
            for at in range(0, width, lanes):
                moved = load(floats, np.uint64(at), like)
                finite &= empty(sub(moved, moved))
            if not finite:
                kept += 1
                continue
            seed = seed_of(row, get(told, TURN))
            for at in range(0, width, pieces):
                place = np.uint64(row * stride + at * bits // 8)
                scale = np.uint64(near * width + at)
                _encode(
                    codes, place, load(floats, np.uint64(at), few), load(lows, scale, few),
                    load(downs, scale, few), _chances(seed, np.uint64(at), few), bits,
                )  # fmt: skip
        put(pointer(get(told, KEPT), number), t, kept)

    return walk


def move(coded: Coded, how: Move, rows: Tensor, grad: Tensor, moves: int, threads: int) -> int:
    """Move rows of codes on the CPU, in place.

    Args:
        coded: the codes; `bitfold.kernels.reading.lanes_of_packed` is not 0 for them.
        how: the optimizer's words; its weight has the shape of the numbers, its states too.
        rows: int64 `[n]`, each once.
        grad: float32 `[n, w]`.
        moves: how many moves there were, an int64 that chances follow from.
        threads: how many share the rows.

    Returns:
        How many rows kept their codes, since what they would have become is not finite.
    """
    coded.check(rows)
    check_states(how)
    width, bits = coded.lowest.shape[1], coded.bits
    pieces = lanes_of_packed(width, bits)
    if tuple(how.weight.shape) != (len(coded.codes), width) or not pieces:
        raise refused("the weight", list(how.weight.shape), f"[{len(coded.codes)}, {width}]")
    check_floats("the gradient", grad, (len(rows), width))
    if not len(rows):
        return 0
    inverse = torch.where(coded.steps > 0, 1 / coded.steps, 0.0)
    spare, kept = torch.empty(threads * width), torch.zeros(threads, dtype=torch.int64)
    told = tell(
        threads, width, KINDS[how.kind], 0, rows.data_ptr(), grad.data_ptr(), _address(how.one),
        _address(how.two), len(rows), 0, 0, 0, *told_options(how),
        coded.codes.data_ptr(), coded.lowest.data_ptr(), coded.steps.data_ptr(),
        inverse.data_ptr(), coded.slices.data_ptr(), len(coded.slices),
        moves, spare.data_ptr(), kept.data_ptr(),
    )  # fmt: skip
    run(recoding(lanes_of(width), pieces, bits), told, threads)
    torch.autograd.graph.increment_version(coded.codes)
    return int(kept.sum())


def _address(state: Tensor) -> int:
    """Where a state lies; 0 of one that is not there."""
    return state.data_ptr() if state.numel() else 0
