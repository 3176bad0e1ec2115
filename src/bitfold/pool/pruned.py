"""Pools of which some numbers are kept, and the others are zero.

`MaskedPool` is trained: rows of floats and a mask. `PrunedPool` is what serves: the kept numbers,
and an index of where they stand.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitfold.address.words import exporting, place_in
from bitfold.planning.kept import index_of
from bitfold.pool.dense import Cells, DensePool
from bitfold.pool.indexing import index_bytes, places_of


def highest(scores: Tensor, count: int) -> Tensor:
    """The places of the `count` highest of scores `[n]`, ascending; of equal ones the first.

    What is not a number is lowest.

    Example:
        >>> highest(torch.tensor([1.0, 3.0, 1.0, 2.0]), 3).tolist()
        [0, 1, 3]
    """
    scores = scores.float().nan_to_num(-math.inf, math.inf, -math.inf)
    least = scores.kthvalue(len(scores) - count + 1).values
    surely, ties = scores > least, (scores == least).nonzero().squeeze(1)
    surely[ties[: count - int(surely.sum())]] = True
    return surely.nonzero().squeeze(1)


class MaskedPool(DensePool):
    """`R` rows of `w` trained numbers, `kept` of which count; the others are read as zeros.

    Until `keep` says which, they are those that lie evenly over the pool.

    Args:
        rows: `R`.
        width: `w`.
        kept: how many numbers count.
        sparse: whether the gradient is a sparse tensor.
        device: where it lives.
        dtype: of the numbers.

    Shapes:
        cells int64 `[...]` -> pieces `[..., w]`.

    Example:
        >>> pool = MaskedPool(2, 4, kept=2)
        >>> _ = pool.weight.data.copy_(torch.arange(8.0).reshape(2, 4))
        >>> pool.keep(torch.tensor([1, 6]))
        >>> cells, served = torch.tensor([1, 0]), pool.serving()
        >>> pool(cells)
        tensor([[0., 0., 6., 0.],
                [0., 1., 0., 0.]], grad_fn=<MaskedFillBackward0>)
        >>> served.weight.tolist(), bool(torch.equal(served(cells), pool(cells)))
        ([1.0, 6.0], True)
    """

    mask: Tensor

    def __init__(
        self,
        rows: int,
        width: int,
        kept: int,
        *,
        sparse: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(rows, width, sparse=sparse, device=device, dtype=dtype)
        self.kept = kept
        # A byte a number: averages of buffers, which know nothing of bits, leave it as it is.
        mask = torch.zeros(rows, width, dtype=torch.bool, device=device)
        self.register_buffer("mask", mask)
        if not mask.is_meta:
            self.keep(torch.arange(kept, device=mask.device) * (rows * width) // kept)

    @classmethod
    def kinds(cls) -> tuple[type[DensePool], type[DensePool]]:
        """The classes of pools whose gradients are dense, and sparse."""
        return MaskedPool, SparseMaskedPool

    def read_by_kernels(self, weight: Tensor) -> bool:
        """Kernels know no masks."""
        return False

    def keep(self, places: Tensor) -> None:
        """Let the numbers at these places count, and no others: int64 `[kept]`, row by row."""
        assert len(places) == self.kept, "a plan says how many"
        self.mask.zero_().view(-1)[places] = True

    @torch.no_grad()
    def choose(self, counts: Tensor) -> None:
        """Let the numbers count that are missed most: by their squares, a row by its count `[R]`.

        Of equal ones the first.
        """
        lost = self.weight.square() * counts.to(self.weight.dtype).unsqueeze(1)
        order = lost.flatten().argsort(descending=True, stable=True)
        self.keep(order[: self.kept])

    def at(self, weight: Tensor, cells: Tensor) -> Tensor:
        """Pieces of a weight at cells."""
        return F.embedding(cells, weight, sparse=self.sparse).masked_fill(~self.mask[cells], 0)

    def places(self) -> Tensor:
        """Which numbers count, int64 `[kept]`."""
        return self.mask.view(-1).nonzero().squeeze(1)

    def serving(self) -> "PrunedPool":
        """The numbers that count, and their index."""
        rows, width = self.weight.shape
        made = PrunedPool(
            rows, width, self.kept, device=self.weight.device, dtype=self.weight.dtype
        )
        if not self.weight.is_meta:
            places = self.places()
            made.fill(places, self.weight.detach().reshape(-1)[places])
        return made

    def _apply(self, fn: Any, recurse: bool = True) -> "MaskedPool":
        """A cast is of the numbers."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.mask = self.mask.bool()
        return self


class SparseMaskedPool(MaskedPool, Cells):  # type: ignore[misc] # as `SparsePool`
    """A masked pool whose gradient is a sparse tensor."""


class PrunedPool(nn.Module):
    """The kept numbers of `R` rows of `w`, row by row, and an index of where they stand.

    The index is decoded once, to four or eight bytes a number in memory, where it is loaded or
    moved, which are not in the state dict. A read finds a row's first number among them by
    bisection.

    Args:
        rows: `R`.
        width: `w`.
        kept: how many numbers there are.
        device: where it lives.
        dtype: of the numbers.

    Shapes:
        cells int64 `[...]` -> pieces `[..., w]`.
    """

    sparse = False
    index: Tensor

    def __init__(
        self,
        rows: int,
        width: int,
        kept: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.rows, self.width, self.kept = rows, width, kept
        weight = torch.zeros(kept, device=device, dtype=dtype)
        self.weight = nn.Parameter(weight, requires_grad=False)
        size = index_of(rows * width, kept).bytes
        self.register_buffer("index", torch.zeros(size, dtype=torch.uint8, device=device))
        self.moved_by: Any = None
        self.decoded: Tensor | None = None

    def fill(self, places: Tensor, numbers: Tensor) -> None:
        """Take numbers `[kept]` and their places, ascending."""
        self.index.copy_(index_bytes(places, self.rows * self.width))
        self.weight.data.copy_(numbers)
        self.decode()

    def decode(self) -> None:
        """Read the index.

        Raises:
            BitfoldError: it is no index of so many numbers.
        """
        if not self.index.is_meta:
            numbers = self.rows * self.width
            kind = torch.int64 if numbers >> 31 else torch.int32
            self.decoded = places_of(self.index, numbers, self.kept).to(kind)

    def make_sparse(self, flag: bool) -> None:
        """Nothing is trained here."""

    def read_by_kernels(self, weight: Tensor) -> bool:
        """Kernels know no rows of ragged numbers."""
        return False

    def refresh(self) -> None:
        """Nothing follows from the numbers."""

    def at(self, weight: Tensor, cells: Tensor) -> Tensor:
        """Pieces of a weight at cells."""
        assert self.decoded is not None, "an index that was loaded or filled"
        decoded = self.decoded
        if exporting():  # a graph has the index alone
            decoded = places_of(self.index, self.rows * self.width, self.kept)
            first = place_in(cells * self.width - 1, decoded)
        else:
            first = torch.searchsorted(decoded, (cells * self.width).to(decoded.dtype))
        # A row has `w` numbers at most, so they are among the next `w`.
        near = first.unsqueeze(-1) + torch.arange(self.width, device=cells.device)
        inside = near.clamp(max=self.kept - 1)
        column = decoded[inside].long() - (cells * self.width).unsqueeze(-1)
        other = (near >= self.kept) | (column >= self.width)
        numbers = weight[inside].masked_fill(other, 0)
        return numbers.new_zeros(numbers.shape).scatter_add(
            -1, column.masked_fill(other, 0), numbers
        )

    def forward(self, cells: Tensor | Callable[[Tensor], Tensor]) -> Tensor:
        """Read the rows at `cells`, or let a function read the weight while it is there."""
        if not isinstance(cells, Tensor):
            return cells(self.weight)
        return self.at(self.weight, cells)

    def serving(self) -> "PrunedPool":
        """The pool itself."""
        return self

    def resume(self) -> MaskedPool:
        """Rows that can be trained, with the mask as it is."""
        device, dtype = self.weight.device, self.weight.dtype
        made = MaskedPool(self.rows, self.width, self.kept, device=device, dtype=dtype)
        if self.decoded is not None:
            places = self.decoded.long()
            made.keep(places)
            made.weight.data.zero_().view(-1)[places] = self.weight.detach()
        return made

    def _apply(self, fn: Any, recurse: bool = True) -> "PrunedPool":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.decoded is not None and self.decoded.device != self.index.device:
            self.decode()
        return self

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if f"{prefix}index" in state_dict:
            self.decode()

    def extra_repr(self) -> str:
        """Rows and width, and the numbers kept."""
        return f"{self.rows}, {self.width}, kept={self.kept}"
