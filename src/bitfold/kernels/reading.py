"""What a lookup is told, once for all who pass it on: operators, autograd, kernels."""

from functools import cache
from typing import Any, NamedTuple, get_type_hints

import torch
from torch import Tensor

# What a row's own step is of its largest distance from the centre: near the best of 16 numbers of a
# Gaussian, and exact in float32.
OF_LARGEST = {8: 129 / 16384, 4: 133 / 1024, 3: 17 / 64, 2: 1 / 2, 1: 25 / 32}
# What numbers are mixed with to round by chance (`bitfold.pool.chance`): a row in 64 bits, then
# each of its columns in 32, which vectors of the processor multiply. Odd, and as good as drawn.
ODD, MIX = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03
APART, TURNS = 0x9E3779B9, ((16, 0x85EBCA6B), (13, 0xC2B2AE35))
LANES = 32  # of a piece at most, as `vectors.lanes_of` has it
MOST_LANES = 64  # of a row that no other number of lanes reads in whole bytes

_SPELLED = {
    Tensor: "Tensor",
    Tensor | None: "Tensor?",
    int: "int",
    int | None: "int?",
    bool: "bool",
    list[Tensor]: "Tensor[]",
}


class Reading(NamedTuple):
    """A lookup: what is read, of which ids, and how.

    Shapes: R pool rows, w width of a row, B rows of the batch, F fields, T ids, L lookups, D width
    of a vector, S slices.

    Args:
        pool: the trained numbers `[R, w]`, or packed rows, uint8 `[R, bytes]`.
        importance: a learned factor for each lookup, `[L]`.
        ids: int64 `[B, F]`, or `[T]` with offsets.
        offsets: int64 `[F * B + 1]`, field by field, where bags begin.
        weights: what each id of a bag counts, `[T]`.
        packed: the program (`packing.pack`).
        fusion, pooling: by the numbers of `ops`.
        padding: an id that counts nothing.
        fields, dim: `F` and `D`.
        room: words of scratch that a thread needs (`packing.scratch_words`).
        raw: whether no code is mixed, dealt or read from its leading end.
        centres: float16 `[S, w]`, of a pool of few bits.
        steps: float16 `[S, w]`, its steps; `[R]` of packed rows with one each; None of rows that
            get one as they are read.
        bits: of a number; 0 for floats.
        tables: what sources read, uint8, in the program's order.
    """

    pool: Tensor
    importance: Tensor | None
    ids: Tensor
    offsets: Tensor | None
    weights: Tensor | None
    packed: Tensor
    fusion: int
    pooling: int
    padding: int | None
    fields: int
    dim: int
    room: int
    raw: bool
    centres: Tensor | None
    steps: Tensor | None
    bits: int
    tables: list[Tensor]

    @property
    def codes(self) -> bool:
        """Whether rows are packed codes, which nothing trains."""
        return self.pool.dtype == torch.uint8

    @property
    def by_row(self) -> bool:
        """Whether each row of few bits has a step of its own."""
        return self.bits > 0 and (self.steps is None or self.steps.dim() == 1)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the vectors."""
        return torch.float32 if self.codes else self.pool.dtype

    @property
    def rows(self) -> int:
        """`B`, the rows of the batch."""
        if self.offsets is None:
            return self.ids.shape[0]
        return (self.offsets.shape[0] - 1) // self.fields


def row_bytes(width: int, bits: int) -> int:
    """Bytes of a packed row of `width` numbers.

    Example:
        >>> [row_bytes(10, bits) for bits in (8, 4, 3, 2, 1)]
        [10, 5, 4, 3, 2]
    """
    return -(-width * bits // 8)


@cache
def lanes_of_packed(width: int, bits: int) -> int:
    """The lanes that packed rows are read in: pieces of whole bytes; 0 where there are none.

    Example:
        >>> lanes_of_packed(16, 4), lanes_of_packed(40, 1), lanes_of_packed(37, 3)
        (16, 8, 37)
    """
    if width <= LANES:
        return width
    whole = [lanes for lanes in range(LANES, 0, -1) if width % lanes == lanes * bits % 8 == 0]
    return max(whole, default=width if width <= MOST_LANES else 0)


LENGTH = len(Reading._fields)
NO_ROUNDING: tuple[Any, ...] = (None, None, 0)  # centres, steps, bits of floats


def spelled(before: str = "", after: str = "") -> str:
    """The arguments of an operator that takes a reading, in the language of torch's schemas.

    Example:
        >>> spelled(before="Tensor grad")[:30]
        'Tensor grad, Tensor pool, Tens'
    """
    kinds: dict[str, Any] = get_type_hints(Reading)
    own = [f"{_SPELLED[kinds[name]]} {name}" for name in Reading._fields]
    return ", ".join(part for part in (before, *own, after) if part)
