"""Readings made ready: held against their programs, with kernels, tensors as these take them."""

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bitfold.kernels.compiled import Kernel
from bitfold.kernels.digits import digits
from bitfold.kernels.forward import forward as vectors
from bitfold.kernels.held import (
    KEPT,
    Facts,
    check_batch,
    check_single_ids,
    check_weight,
    check_words,
    described,
    facts_of,
    refused,
    row_steps,
    scales,
    stored,
)
from bitfold.kernels.kept import scratch
from bitfold.kernels.readers import (
    CODES,
    FLOATS,
    PACKED,
    PACKED_BY_ROW,
    ROUNDED,
    ROUNDED_BY_ROW,
    scale_words,
)
from bitfold.kernels.reading import Reading, lanes_of_packed
from bitfold.kernels.sharing import threads_of
from bitfold.kernels.vectors import lanes_of
from bitfold.kernels.walk import WEIGHTED

# What each pool's numbers are, and what they are added up in.
ITEMS: dict[torch.dtype, tuple[Any, Any, torch.dtype]] = {
    torch.float32: (np.float32(0), np.float32(1), torch.float32),
    torch.float64: (np.float64(0), np.float64(1), torch.float64),
    torch.bfloat16: (np.uint16(0), np.float32(1), torch.float32),
}


def as_kind(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor's numbers in a type, one after another in memory."""
    if tensor.dtype is dtype and tensor.is_contiguous() and not tensor.is_neg():
        return tensor  # most often; each of the calls below costs as much as a row's lookup
    return tensor.detach().to(dtype).contiguous().resolve_neg()


def optional(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """As `as_kind`, of a tensor that may be missing."""
    return None if tensor is None else as_kind(tensor, dtype)


def address_of(tensor: Tensor | None) -> int:
    """Where a tensor's numbers are, 0 for none."""
    return 0 if tensor is None else tensor.data_ptr()


def addresses_of(tables: Sequence[Tensor]) -> Any:
    """Where tables are, one address after another; whoever tells a kernel of them keeps it."""
    return (ctypes.c_int64 * len(tables))(*[table.data_ptr() for table in tables])


class Ready(NamedTuple):
    """A lookup whose weight and words were held against its program (`bitfold.kernels.held`).

    The first six are what a call is compared with; `version` is that of the packed program, and
    `few` the bits of a number, below 0 where each row has a step of its own. The kernels of single
    `ids` and of `bags` are found when one is needed (`kernel_of`): each takes seconds to compile.
    `spare` is the scratch that the scales of few bits take, in words; vectors are made `like`.
    """

    packed: Tensor
    version: int
    shape: torch.Size
    dtype: torch.dtype
    words: tuple[int, int, int, int, bool]
    few: int
    loops: int
    ids: Kernel | None
    bags: Kernel | None
    width: int
    spare: int
    lanes: int
    learned: bool
    facts: Facts
    wide: torch.dtype
    like: Tensor
    kind: tuple[int, Any, Any, int, int]


ready_by_program: dict[int, Ready] = {}  # by the address of the packed program


def ready_of(
    packed: Tensor, pool: Tensor, words: tuple[int, int, int, int, bool], few: int
) -> Ready | None:
    """What a lookup was made ready as, if it still is the same lookup; None if it has to be made.

    Args:
        packed: the program.
        pool: the weight; where it lies is not looked at.
        words: fusion, fields, dim, room and raw of the reading.
        few: bits of a number, below 0 where each row has a step of its own.
    """
    ready = ready_by_program.get(packed.data_ptr())
    if (
        ready is None
        or ready[0] is not packed
        or ready[2] != pool.shape
        or ready[3] is not pool.dtype
        or ready[4] != words
        or ready[5] != few
        or (ready[1] >= 0 and ready[1] != packed._version)
    ):
        return None
    return ready


def make_ready(reading: Reading) -> Ready:
    """Hold a lookup's weight and words against its program."""
    pool, packed, bits = reading.pool, reading.packed, reading.bits
    if not isinstance(pool, Tensor):
        raise refused("the weight", described(pool), "a tensor")
    facts = facts_of(packed)
    check_words(facts, reading)
    check_weight(facts, reading)
    kind = FLOATS if not bits else PACKED if reading.codes else ROUNDED
    if reading.by_row:
        kind = PACKED_BY_ROW if reading.codes else ROUNDED_BY_ROW
    if reading.dtype not in ITEMS or (bits and reading.dtype is not torch.float32):
        known = ITEMS if not bits else (torch.float32, torch.uint8)
        raise refused("the weight", described(pool), f"one of {[str(each) for each in known]}")
    width = reading.dim // facts.chunks
    item, one, wide = ITEMS[reading.dtype]
    lanes = lanes_of_packed(width, bits) if kind in CODES else lanes_of(width)
    how = lanes, item, one, kind, bits
    with torch.inference_mode(False):
        like = torch.empty(0, dtype=reading.dtype, device="cpu")
    if len(ready_by_program) >= KEPT:
        ready_by_program.clear()
    ready = ready_by_program[packed.data_ptr()] = Ready(
        facts.packed, facts.version, pool.shape, pool.dtype,
        (reading.fusion, reading.fields, reading.dim, reading.room, reading.raw),
        -bits if reading.by_row else bits,
        digits(reading.raw, bool(facts.tables)).address, None, None, width,
        scale_words(facts.lookups, width) if bits else 0, lanes, reading.fusion == WEIGHTED, facts,
        wide, like, how,
    )  # fmt: skip
    return ready


def kernel_of(ready: Ready, bags: bool) -> Kernel:
    """The kernel of a lookup of bags or of single ids; the next lookup finds it in its `Ready`."""
    found = vectors(*ready.kind, bags)
    place = ready.packed.data_ptr()
    if ready_by_program.get(place) is ready:
        more = ready._replace(bags=found) if bags else ready._replace(ids=found)
        ready_by_program[place] = more
    return found


class Given(NamedTuple):
    """A reading that was held against its program, its tensors as a kernel takes them."""

    reading: Reading
    ready: Ready
    rows: int
    threads: int
    addresses: Any

    @classmethod
    def of(cls, reading: Reading) -> "Given":
        """Hold a reading against its program."""
        (
            pool, importance, ids, offsets, weights, packed, fusion, pooling, padding, fields, dim,
            room, raw, centres, steps, bits, tables,
        ) = reading  # fmt: skip
        by_row = reading.by_row
        words = fusion, fields, dim, room, raw
        ready = ready_of(packed, pool, words, -bits if by_row else bits)
        if ready is None:
            ready = make_ready(reading)
        else:
            check_weight(ready.facts, reading)
        given = (offsets, weights, importance) != (None, None, None)
        if not given and not pooling and not ready.learned:
            check_single_ids(ids, fields)
        else:
            check_words(ready.facts, reading)
            check_batch(ready.facts, reading, WEIGHTED)
        wide = ready.wide
        if bits:
            centres = scales("centres", centres, ready.facts, ready.width)
            if by_row:
                steps = row_steps(reading)
            else:
                steps = scales("steps", steps, ready.facts, ready.width)
        else:
            centres = steps = None
        made = Reading(
            pool.contiguous(), optional(importance, wide), ids.contiguous(),
            optional(offsets, torch.int64), optional(weights, wide), packed, fusion, pooling,
            padding, fields, dim, room, raw, centres, steps, bits, stored(ready.facts, tables),
        )  # fmt: skip
        rows = made.rows
        return cls(
            made, ready, rows, threads_of(ids.numel() * dim, rows), addresses_of(made.tables)
        )

    def told(self, pooling: int, top: Tensor | None, floats: Tensor) -> tuple[int, ...]:
        """What every walk is told; `floats` are the vectors, or their gradient."""
        reading, padding = self.reading, self.reading.padding
        room = reading.room + self.ready.spare
        return (
            self.threads, self.rows, self.ready.width, reading.pool.data_ptr(),
            address_of(reading.importance), reading.ids.data_ptr(), address_of(reading.offsets),
            address_of(reading.weights), reading.packed.data_ptr(), reading.fusion, pooling,
            padding is not None, padding or 0, address_of(top), floats.data_ptr(),
            scratch(self.threads * room), room, self.ready.loops, address_of(reading.centres),
            address_of(reading.steps), ctypes.addressof(self.addresses),
        )  # fmt: skip
