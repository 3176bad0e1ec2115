"""Pools of few bits a number: float32 rows that are read rounded while they are trained.

`LowBitPool` keeps the rows that an optimizer moves; `PackedPool` what is left of them to serve:
codes. Both read the same numbers, to the bit (`bitfold.pool.rounding`).

A row of 16 numbers takes 8 bytes at 4 bits, 4 at 2. Rows that play the same part share a centre
and a step for each column, so that they cost no bytes a row: later factors of a product live around
1, and levels around 0 would erase what tells them apart.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bitfold.errors import BitfoldError
from bitfold.kernels.pages import ask_for_large_pages
from bitfold.kernels.reading import lanes_of_packed, row_bytes
from bitfold.pool.counted import Counted
from bitfold.pool.dense import Cells, DensePool
from bitfold.pool.refreshing import count_forward, refresh
from bitfold.pool.rounding import codes_of, pack, rounded, row_steps, unpack, values_of
from bitfold.pool.sliced import CHUNK, Sliced


class LowBitPool(Counted, Sliced, DensePool):
    """Rows that are trained in floats and read as if they were kept in few bits.

    A read rounds the rows that it gathers, never the pool. The gradient of a rounded number goes to
    its row as it is (straight through). Centres and steps follow the rows at some of the forwards
    of training (`bitfold.pool.refreshing`) and never in evaluation; with how many forwards there
    were they are in the state dict, so a training that goes on does what one that never stopped
    would have done.

    Args:
        rows, width, bits, slices, scale: as in `Sliced`.
        every: after how many forwards of training centres and steps are made anew.
        sparse: whether the gradient is a sparse tensor.
        device: where it lives.
        dtype: of the rows; rounding is that of float32.

    Shapes:
        cells int64 `[...]` -> pieces `[..., w]`.

    Example:
        >>> pool = LowBitPool(100, 8, bits=4).eval()
        >>> _ = pool.weight.data.normal_()
        >>> pool.refresh()
        >>> cells, packed = torch.tensor([3, 99]), pool.serving()
        >>> bool(torch.equal(pool(cells), packed(cells))), packed.weight.shape
        (True, torch.Size([100, 4]))
    """

    counter = "forwards"
    forwards: Tensor

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
        dtype: torch.dtype | None = torch.float32,
    ) -> None:
        super().__init__(rows, width, sparse=sparse, device=device, dtype=dtype)
        self.describe(rows, width, bits, slices, scale)
        self.every = every
        self.start_count()
        self.add_scales(() if scale == "row" else (len(self.slices), width), device)
        self.place_constants(device)

    @classmethod
    def kinds(cls) -> tuple[type[DensePool], type[DensePool]]:
        """The classes of pools whose gradients are dense, and sparse."""
        return LowBitPool, SparseLowBitPool

    def read_by_kernels(self, weight: Tensor) -> bool:
        """Whether the kernels know how its rows are rounded."""
        return weight.dtype is torch.float32

    def refresh(self) -> None:
        """Make centres and steps those of the rows as they are: after they were drawn or set."""
        if not self.weight.is_meta:
            refresh(self.weight, self.centres, self.steps, self.slices, self.bits)

    def count_forward(self, weight: Tensor) -> None:
        """Count a forward, if this is training, and refresh what is due; before its first read."""
        if self.training:
            own: Any = self._buffers  # past `nn.Module`'s attributes, slower than the count
            count_forward(
                weight, own["centres"], own["steps"], self.forwards, self.slices, self.bits,
                self.every,
            )  # fmt: skip

    def forward(self, cells: Tensor | Callable[[Tensor], Tensor]) -> Tensor:
        """Read the rows at `cells`, or let a function read the weight while it is there."""
        if not isinstance(cells, Tensor):
            return cells(self.weight)
        self.count_forward(self.weight)
        return self.at(self.weight, cells)

    def at(self, weight: Tensor, cells: Tensor) -> Tensor:
        """Pieces of a weight at cells, rounded."""
        found = F.embedding(cells, weight, sparse=self.sparse)
        kept = found.detach()
        values = rounded(kept, *self._scales(cells, kept), self.bits).to(found.dtype)
        # Exactly the values, with the rows' gradient; a difference of infinities is none.
        return values + (found - kept).nan_to_num(0.0, 0.0, 0.0)

    def _scales(self, cells: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        if self.steps is not None:
            return self.of_slice(self.centres, cells), self.of_slice(self.steps, cells)
        centre = self.of_slice(self.centres, cells)
        return centre, row_steps(numbers, centre, self.bits)

    @torch.no_grad()
    def serving(self) -> "PackedPool":
        """The packed pool that reads the same numbers.

        Raises:
            BitfoldError: for rows that are not numbers.
        """
        device, weight = self.weight.device, self.weight
        made = PackedPool(
            self.rows, self.width, self.bits, self.slices, scale=self.scale, device=device,
            dtype=weight.dtype,
        ).train(self.training)  # fmt: skip
        if weight.is_meta:
            return made
        made.centres.copy_(self.centres)
        if self.steps is not None:
            made.steps.copy_(self.steps)
        for begin in range(0, self.rows, CHUNK):
            numbers = weight[begin : begin + CHUNK]
            cells = torch.arange(begin, begin + len(numbers), device=device)
            centre, step = self._scales(cells, numbers)
            if self.steps is None:
                made.steps[begin : begin + CHUNK] = step.squeeze(-1)
            codes = codes_of(numbers, centre, step, self.bits)
            made.weight[begin : begin + CHUNK] = pack(codes, self.bits)
        return made


class SparseLowBitPool(LowBitPool, Cells):  # type: ignore[misc] # as `SparsePool`
    """A pool of few bits whose gradient is a sparse tensor."""


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
        lanes = lanes_of_packed(self.width, self.bits)
        self.dtype, self.in_pieces = dtype, dtype is torch.float32 and lanes > 0

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

    def check_resumable(self) -> None:
        """Raise unless the codes can be trained on.

        Raises:
            BitfoldError: with a step for each row: it would follow from the values, and differ.
        """
        if self.scale == "row":
            raise BitfoldError(
                "codes with a step for each row cannot be trained on",
                got=f"{self.bits} bits, scale={self.scale!r}",
                expected="a checkpoint of the training, or scale='slice'",
            )

    @torch.no_grad()
    def resume(self) -> LowBitPool:
        """A pool to train on, whose rows are the values of the codes: it reads the same numbers.

        Raises:
            BitfoldError: as `check_resumable`.
        """
        self.check_resumable()
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
