"""Packed pools: rows of codes, and what they have in common with the pools they come from."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bitfold.address.constants import WithConstants
from bitfold.errors import BitfoldError
from bitfold.kernels.reading import lanes_of_packed
from bitfold.pool.pages import ask_for_large_pages
from bitfold.pool.rounding import Rounding, check_bits, row_bytes, unpack, values_of

if TYPE_CHECKING:
    from bitfold.pool.lowbit import LowBitPool

CHUNK = 1 << 16  # rows that are packed at a time
SCALES = ("slice", "row")


class Sliced(WithConstants):
    """Rows in slices that share centres, and steps, of few bits.

    Args:
        rows: `R`.
        width: `w`, numbers of a row.
        bits: of a number: 8, 4, 3, 2 or 1.
        slices: the first row of each slice, ascending, the first 0.
        scale: `slice`: a step for each column of a slice; `row`: a step for each row. Centres are
            always the slice's.
    """

    centres: Tensor
    steps: Tensor | None
    first_rows: Tensor

    def describe(self, rows: int, width: int, bits: int, slices: Sequence[int], scale: str) -> None:
        """Keep and check what the pool is."""
        check_bits(bits)
        ascending = all(a < b for a, b in pairwise(slices))
        if not slices or slices[0] != 0 or not ascending or slices[-1] > max(rows - 1, 0):
            raise BitfoldError(
                "slices are runs of rows",
                got=list(slices[:8]),
                expected=f"first rows in ascending order, from 0 to {rows - 1}",
            )
        if scale not in SCALES:
            raise BitfoldError("unknown scale", got=scale, expected=" or ".join(SCALES))
        self.rows, self.width, self.bits = rows, width, bits
        self.slices, self.scale = tuple(slices), scale

    def add_scales(self, shape: tuple[int, ...], device: torch.device | str | None) -> None:
        """Add centres, and steps of a shape; none where that is empty."""
        with torch.inference_mode(False):
            centres = torch.zeros(len(self.slices), self.width, dtype=torch.half, device=device)
            steps = torch.zeros(shape, dtype=torch.half, device=device) if shape else None
        self.register_buffer("centres", centres)
        self.register_buffer("steps", steps)

    def told(self) -> Rounding:
        """What the kernels need beside the rows."""
        buffers = self._buffers
        return Rounding(buffers["centres"], buffers["steps"], self.bits)  # type: ignore[arg-type]

    def of_slice(self, scales: Tensor, cells: Tensor) -> Tensor:
        """Centres or steps of the rows at cells: `[..., w]`, or `[w]` for all."""
        if len(self.slices) == 1:
            return scales[0]
        if self.first_rows.device != cells.device:  # weights that went there past `Module.to`
            self.place_constants(cells.device)
        number = torch.bucketize(cells, self.first_rows, right=True) - 1
        return scales[number]

    def _apply(self, fn: Any, recurse: bool = True) -> "Sliced":
        """Follow the weights to their device; a cast leaves float16 as it is."""
        kept = self._buffers["centres"], self._buffers["steps"]
        super()._apply(fn, recurse)
        for name, value in zip(("centres", "steps"), kept, strict=True):
            moved = self._buffers[name]
            if value is not None and moved is not None and moved.dtype != value.dtype:
                self._buffers[name] = value.to(moved.device)
        return self

    def _constants(self) -> dict[str, Tensor]:
        return {"first_rows": torch.tensor(self.slices)}

    def extra_repr(self) -> str:
        """Rows, width, bits, slices."""
        shape = f"{self.rows}, {self.width}, bits={self.bits}, slices={len(self.slices)}"
        return shape if self.scale == "slice" else f"{shape}, scale={self.scale}"


class PackedPool(Sliced):
    """Rows of codes: what a pool of few bits weighs when it is served. Nothing of it is trained.

    Its state dict is `weight`, uint8 `[R, ceil(w * bits / 8)]`, and float16 `centres` `[S, w]` and
    `steps` `[S, w]`, or `[R]` with a step for each row.

    Args:
        rows, width, bits, slices, scale: as in `Sliced`.
        device: where it lives.
        dtype: of the pieces.

    Shapes:
        cells int64 `[...]` -> pieces `[..., w]`.
    """

    weight: Tensor
    steps: Tensor
    sparse = False

    def __init__(
        self,
        rows: int,
        width: int,
        bits: int,
        slices: Sequence[int] = (0,),
        *,
        scale: str = "slice",
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.describe(rows, width, bits, slices, scale)
        self.cast(dtype)
        self.moved_by: Any = None
        with torch.inference_mode(False):
            codes = torch.empty(rows, row_bytes(width, bits), dtype=torch.uint8, device=device)
            self.register_buffer("weight", ask_for_large_pages(codes).zero_())
        self.add_scales((rows,) if scale == "row" else (len(self.slices), width), device)
        self.place_constants(device)

    def cast(self, dtype: torch.dtype) -> None:
        """Have pieces of a type from now on; `in_pieces` says whether the kernels can read them."""
        known = self.scale == "slice" and dtype is torch.float32
        self.dtype, self.in_pieces = dtype, known and lanes_of_packed(self.width, self.bits) > 0

    def make_sparse(self, flag: bool) -> None:
        """There are no gradients."""

    def read_by_kernels(self, weight: Tensor) -> bool:
        """Whether the kernels know how its rows are packed."""
        return self.in_pieces

    def refresh(self) -> None:
        """Centres and steps are as they were packed."""

    def count_forward(self, weight: Tensor) -> None:
        """There is no training."""

    def forward(self, cells: Tensor | Callable[[Tensor], Tensor]) -> Tensor:
        """Read the rows at `cells`, or let a function read the codes."""
        return self.at(self.weight, cells) if isinstance(cells, Tensor) else cells(self.weight)

    def at(self, weight: Tensor, cells: Tensor) -> Tensor:
        """The values of codes at cells."""
        codes = unpack(F.embedding(cells, weight), self.width, self.bits)
        centre = self.of_slice(self.centres, cells)
        if self.scale == "row":
            step = self.steps[cells].unsqueeze(-1)
        else:
            step = self.of_slice(self.steps, cells)
        return values_of(codes, centre, step, self.bits).to(self.dtype)

    def serving(self) -> "PackedPool":
        """The pool itself."""
        return self

    @torch.no_grad()
    def resume(self) -> "LowBitPool":
        """A pool to train on, whose rows are the values of the codes: it reads the same numbers.

        Raises:
            BitfoldError: with a step for each row: it would follow from the values, and differ.
        """
        from bitfold.pool.lowbit import LowBitPool

        if self.scale == "row":
            raise BitfoldError(
                "codes with a step for each row cannot be trained on",
                got=f"{self.bits} bits, scale={self.scale!r}",
                expected="a checkpoint of the training, or scale='slice'",
            )
        device = self.weight.device
        made = LowBitPool(
            self.rows, self.width, self.bits, self.slices, device=device, dtype=self.dtype
        ).train(self.training)
        made.forwards += made.every + 1  # it goes on with the scales that it has for a while
        made.centres.copy_(self.centres)
        if made.steps is not None:
            made.steps.copy_(self.steps)
        for begin in range(0, 0 if self.weight.is_meta else self.rows, CHUNK):
            cells = torch.arange(begin, min(begin + CHUNK, self.rows), device=device)
            made.weight[begin : begin + CHUNK] = self.at(self.weight, cells)
        return made

    def _apply(self, fn: Any, recurse: bool = True) -> "PackedPool":
        """A cast is of the pieces: codes are no numbers."""
        super()._apply(fn, recurse)
        self.cast(fn(torch.empty(0, dtype=self.dtype)).dtype)
        return self
