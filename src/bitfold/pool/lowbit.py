"""Pools of few bits a number: float32 rows that are read rounded while they are trained.

`LowBitPool` keeps the rows that an optimizer moves, the master; `PackedPool` what is left of it to
serve: codes. Both read the same numbers, to the bit (`bitfold.pool.rounding`).

A row of 16 numbers takes 8 bytes at 4 bits, 4 at 2. Rows that play the same part share a centre
and a step for each column, so that they cost no bytes a row: later factors of a product live around
1, and levels around 0 would erase what tells them apart.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitfold.address.constants import WithConstants
from bitfold.errors import BitfoldError
from bitfold.pool.dense import DensePool
from bitfold.pool.pages import ask_for_large_pages
from bitfold.pool.refreshing import count_forward, refresh
from bitfold.pool.rounding import (
    Rounding,
    check_bits,
    codes_of,
    pack,
    rounded,
    row_bytes,
    row_steps,
    unpack,
    values_of,
)

CHUNK = 1 << 16  # rows that are packed at a time
SCALES = ("slice", "row")


class _Sliced(WithConstants):
    """What the two have in common: rows in slices, and a rounding.

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
        """Keep and check what the pool is; called once the module is there."""
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

    def told(self) -> Rounding:
        """What the kernels need beside the rows."""
        return Rounding(self.centres, self.steps, self.bits)

    def centre_of(self, cells: Tensor) -> Tensor:
        """The centres of the rows at cells: `[..., w]`, or one for all."""
        return self.centres[0] if len(self.slices) == 1 else self.centres[self._slice(cells)]

    def _slice(self, cells: Tensor) -> Tensor:
        if self.first_rows.device != cells.device:  # weights that went there past `Module.to`
            self.place_constants(cells.device)
        return torch.bucketize(cells, self.first_rows, right=True) - 1

    def _apply(self, fn: Any, recurse: bool = True) -> "_Sliced":
        """Follow the weights to their device; a cast leaves float16 as it is."""
        kept = self.centres, self.steps
        super()._apply(fn, recurse)
        for name, value in zip(("centres", "steps"), kept, strict=True):
            moved = getattr(self, name)
            if value is not None and moved.dtype != value.dtype:
                setattr(self, name, value.to(moved.device))
        return self

    def _constants(self) -> dict[str, Tensor]:
        return {"first_rows": torch.tensor(self.slices)}

    def extra_repr(self) -> str:
        """Rows, width, bits, slices."""
        shape = f"{self.rows}, {self.width}, bits={self.bits}, slices={len(self.slices)}"
        return shape if self.scale == "slice" else f"{shape}, scale={self.scale}"


class LowBitPool(_Sliced, DensePool):
    """Rows that are trained as float32 and read as if they were kept in few bits.

    A read rounds the rows that it gathers, never the pool. The gradient of a rounded number goes to
    its row as it is (straight through). Centres and steps follow the rows at some of the forwards
    of training (`bitfold.pool.refreshing`) and never in evaluation; with how many forwards there
    were they are in the state dict, so a training that goes on does what one that never stopped
    would have done.

    Args:
        rows, width, bits, slices, scale: as in `_Sliced`.
        every: after how many forwards of training centres and steps are made anew.
        sparse: whether the gradient is a sparse tensor.
        device: where it lives.

    Shapes:
        cells int64 `[...]` -> pieces `[..., w]`.

    Example:
        >>> pool = LowBitPool(100, 8, bits=4)
        >>> with torch.no_grad():
        ...     _ = pool.weight.normal_()
        >>> pool.refresh()
        >>> cells, packed = torch.tensor([3, 99]), pool.serving()
        >>> bool(torch.equal(pool(cells), packed(cells))), packed.weights.shape
        (True, torch.Size([100, 4]))
    """

    def __init__(
        self,
        rows: int,
        width: int,
        bits: int,
        slices: Sequence[int] = (0,),
        *,
        scale: str = "slice",
        every: int = 64,
        sparse: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(rows, width, sparse=sparse, device=device, dtype=torch.float32)
        self.describe(rows, width, bits, slices, scale)
        self.every = every
        with torch.inference_mode(False):
            centres, steps = torch.zeros(
                2, len(self.slices), width, dtype=torch.half, device=device
            )
            # Neither a buffer nor elsewhere than here: it is read at each forward.
            self.forwards = torch.zeros((), dtype=torch.int64, device="cpu")
        self.register_buffer("centres", centres.clone())
        self.register_buffer("steps", steps.clone() if scale == "slice" else None)
        self.place_constants(device)

    @classmethod
    def kinds(cls) -> tuple[type[DensePool], type[DensePool]]:
        """The classes of pools whose gradients are dense, and sparse."""
        return LowBitPool, SparseLowBitPool

    def refresh(self) -> None:
        """Make centres and steps those of the rows as they are: after they were drawn or set."""
        if not self.weight.is_meta:
            refresh(self.weight, self.centres, self.steps, self.slices, self.bits)

    def count_forward(self, weight: Tensor) -> None:
        """Count a forward, if this is training, and refresh what is due; before its first read."""
        if self.training:
            count_forward(
                weight, self.centres, self.steps, self.forwards, self.slices, self.bits, self.every
            )

    def forward(self, cells: Tensor | Callable[[Tensor], Tensor]) -> Tensor:
        """Read the rows at `cells`, or let a function read the weight while it is there."""
        self.count_forward(self.weight)
        return self.read(cells, self.weight) if isinstance(cells, Tensor) else cells(self.weight)

    def read(self, cells: Tensor, weight: Tensor) -> Tensor:
        """The rows of a weight at cells, rounded."""
        found = F.embedding(cells, weight, sparse=self.sparse)
        kept = found.detach()
        values = rounded(kept, *self._scales(cells, kept), self.bits).to(found.dtype)
        return values + (found - kept)  # exactly the values, with the rows' gradient

    def _scales(self, cells: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        if self.steps is None:
            centre = self.centre_of(cells)
            return centre, row_steps(numbers, centre, self.bits)
        if len(self.slices) == 1:
            return self.centres[0], self.steps[0]
        number = self._slice(cells)
        return self.centres[number], self.steps[number]

    @torch.no_grad()
    def serving(self) -> "PackedPool":
        """The packed pool that reads the same numbers."""
        device = self.weight.device
        made = PackedPool(
            self.rows, self.width, self.bits, self.slices, scale=self.scale, device=device
        )
        made.centres.copy_(self.centres)
        if self.steps is not None and made.steps is not None:
            made.steps.copy_(self.steps)
        for begin in range(0, self.rows, CHUNK):
            numbers = self.weight[begin : begin + CHUNK]
            cells = torch.arange(begin, begin + len(numbers), device=device)
            centre, step = self._scales(cells, numbers)
            if self.steps is None and made.steps is not None:
                made.steps[begin : begin + CHUNK] = step.squeeze(-1)
            codes = codes_of(numbers, centre, step, self.bits)
            made.weights[begin : begin + CHUNK] = pack(codes, self.bits)
        return made.train(self.training)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}forwards"] = self.forwards.clone()

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local: Any, strict: bool, missing: Any, *rest: Any
    ) -> None:
        key, state_dict = f"{prefix}forwards", dict(state_dict)
        made = state_dict.pop(key, None)
        if made is not None and not made.is_meta:
            self.forwards = made.detach().to("cpu", torch.int64, copy=True).reshape(())
        elif made is None and strict:
            missing.append(key)
        super()._load_from_state_dict(state_dict, prefix, local, strict, missing, *rest)


class SparseLowBitPool(LowBitPool, nn.Embedding):  # type: ignore[misc] # as `SparsePool`
    """A pool of few bits whose gradient is a sparse tensor."""

    padding_idx = None
    max_norm = None
    norm_type = 2.0
    scale_grad_by_freq = False


class PackedPool(_Sliced, nn.Module):
    """Rows of codes: what a pool of few bits weighs when it is served. Nothing of it is trained.

    Its state dict is `weights`, uint8 `[R, ceil(w * bits / 8)]`, and the float16 `centres` `[S, w]`
    and `steps` `[S, w]`, or `[R]` with a step for each row.

    Args:
        rows, width, bits, slices, scale: as in `_Sliced`.
        device: where it lives.

    Shapes:
        cells int64 `[...]` -> pieces float32 `[..., w]`.
    """

    weights: Tensor

    def __init__(
        self,
        rows: int,
        width: int,
        bits: int,
        slices: Sequence[int] = (0,),
        *,
        scale: str = "slice",
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.describe(rows, width, bits, slices, scale)
        shape = (rows,) if scale == "row" else (len(self.slices), width)
        with torch.inference_mode(False):
            weights = torch.empty(rows, row_bytes(width, bits), dtype=torch.uint8, device=device)
            centres = torch.zeros(len(self.slices), width, dtype=torch.half, device=device)
            steps = torch.zeros(shape, dtype=torch.half, device=device)
        self.register_buffer("weights", ask_for_large_pages(weights).zero_())
        self.register_buffer("centres", centres)
        self.register_buffer("steps", steps)
        self.place_constants(device)

    def forward(self, cells: Tensor | Callable[[Tensor], Tensor]) -> Tensor:
        """Read the rows at `cells`, or let a function read the codes."""
        return self.read(cells, self.weights) if isinstance(cells, Tensor) else cells(self.weights)

    def read(self, cells: Tensor, weights: Tensor) -> Tensor:
        """The values of the codes at cells."""
        codes = unpack(F.embedding(cells, weights), self.width, self.bits)
        return values_of(codes, *self._scales(cells), self.bits)

    def _scales(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        assert self.steps is not None
        if self.scale == "row":
            return self.centre_of(cells), self.steps[cells].unsqueeze(-1)
        if len(self.slices) == 1:
            return self.centres[0], self.steps[0]
        number = self._slice(cells)
        return self.centres[number], self.steps[number]

    @torch.no_grad()
    def opened(self, *, every: int = 64, sparse: bool = False) -> LowBitPool:
        """A pool to train on, whose rows are the values of the codes: it reads the same numbers.

        Raises:
            BitfoldError: where that is not so: steps below what float32 can tell apart around
                their centres, or a step for each row, which would follow from the values.
        """
        made = LowBitPool(
            self.rows, self.width, self.bits, self.slices, scale=self.scale, every=every,
            sparse=sparse, device=self.weights.device,
        )  # fmt: skip
        made.centres.copy_(self.centres)
        if made.steps is not None and self.steps is not None:
            made.steps.copy_(self.steps)
        for begin in range(0, self.rows, CHUNK):
            cells = torch.arange(begin, min(begin + CHUNK, self.rows), device=self.weights.device)
            values = self.read(cells, self.weights)
            made.weight[begin : begin + CHUNK] = values
            if not torch.equal(made.read(cells, made.weight), values):
                raise BitfoldError(
                    "these codes cannot be trained on: rounded again, they are other numbers",
                    got=f"{self.bits} bits, scale={self.scale!r}",
                    expected="a state dict of the training",
                )
        return made.train(self.training)
