"""Rows in slices that share centres and steps: what pools of few bits have in common."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from bitfold.address.constants import WithConstants
from bitfold.address.words import place_in
from bitfold.errors import BitfoldError
from bitfold.pool.rounding import check_bits

CHUNK = 1 << 16  # rows that are packed at a time
SCALES = ("slice", "row")


def runs_of(slices: Sequence[int], rows: int) -> list[tuple[int, int]]:
    """Where each slice begins, and where it ends.

    Example:
        >>> runs_of((0, 3), 10)
        [(0, 3), (3, 10)]
    """
    return list(pairwise((*slices, rows)))


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

    def told(self) -> tuple[Any, ...]:
        """What the kernels need beside the rows, as the end of a `Reading`'s words.

        Centres are float16 `[S, w]`; steps float16 `[S, w]`, or `[R]` where each row has its own,
        or None where that follows from the row (`rounding.row_steps`); then come the bits.
        """
        buffers = self._buffers
        return buffers["centres"], buffers["steps"], self.bits

    def of_slice(self, scales: Tensor, cells: Tensor) -> Tensor:
        """Centres or steps of the rows at cells: `[..., w]`, or `[w]` for all."""
        return scales[0] if len(self.slices) == 1 else scales[self.slice_at(cells)]

    def slice_at(self, cells: Tensor) -> Tensor:
        """The slice that each cell lies in, by number."""
        if self.first_rows.device != cells.device:  # weights that went there past `Module.to`
            self.place_constants(cells.device)
        return place_in(cells, self.first_rows) - 1

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
