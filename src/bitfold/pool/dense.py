"""A dense pool: rows of trained numbers, read whole."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitfold.kernels.pages import ask_for_large_pages
from bitfold.kernels.reading import NO_ROUNDING


class DensePool(nn.Module):
    """`R` rows of `w` trained numbers.

    Args:
        rows: `R`.
        width: `w`, numbers per row.
        sparse: whether the gradient is a sparse tensor that holds the rows of the batch alone.

    Shapes:
        cells int64 `[...]` -> pieces `[..., w]`.
    """

    def __init__(
        self,
        rows: int,
        width: int,
        *,
        sparse: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.make_sparse(sparse)
        with torch.inference_mode(False):  # a table can be trained wherever it was built
            weight = torch.empty(rows, width, device=device, dtype=dtype)
            self.weight = nn.Parameter(ask_for_large_pages(weight))
        # The optimizer that moves the rows within the backward pass: see `bitfold.optim`.
        self.moved_by: Any = None

    def make_sparse(self, flag: bool) -> None:
        """Whether gradients are sparse tensors from now on."""
        self.sparse = flag
        self.__class__ = self.kinds()[flag]

    @classmethod
    def kinds(cls) -> tuple[type["DensePool"], type["DensePool"]]:
        """The classes of pools whose gradients are dense, and sparse."""
        return DensePool, SparsePool

    def forward(self, cells: Tensor | Callable[[Tensor], Tensor]) -> Tensor:
        """Read the rows at `cells`, or let a function read the weight while it is there."""
        if not isinstance(cells, Tensor):
            return cells(self.weight)
        return self.at(self.weight, cells)

    def at(self, weight: Tensor, cells: Tensor) -> Tensor:
        """Pieces of a weight at cells."""
        return F.embedding(cells, weight, sparse=self.sparse)

    def read_by_kernels(self, weight: Tensor) -> bool:
        """Whether the kernels can read it, whatever `choice.way_of` says of the weight."""
        return True

    def told(self) -> tuple[Any, ...]:
        """What the kernels need beside the weight."""
        return NO_ROUNDING

    @property
    def dtype(self) -> torch.dtype:
        """The type of the pieces."""
        return self.weight.dtype

    @torch.no_grad()
    def draw(self, means: Tensor, deviations: Tensor, generator: torch.Generator) -> None:
        """Fill the rows with normal numbers, of a mean and a deviation `[R]` for each row."""
        shape = self.weight.shape
        noise = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
        self.weight.copy_(noise * deviations[:, None] + means[:, None])
        self.refresh()

    def numbers(self, cells: Tensor) -> Tensor:
        """The trained numbers of the rows at cells `[n]`: `[n, w]`."""
        return self.weight.detach()[cells]

    @torch.no_grad()
    def put(self, cells: Tensor, numbers: Tensor) -> None:
        """Write the rows at cells."""
        self.weight[cells] = numbers.to(self.weight.dtype)

    def held(self, cells: Tensor, numbers: Tensor) -> Tensor:
        """What to `put` at cells so that numbers `[n, w]` are read there."""
        return numbers

    def refresh(self) -> None:
        """Nothing follows from the rows."""

    def count_forward(self, weight: Tensor) -> None:
        """Nothing follows from the rows."""

    def serving(self) -> Any:
        """The pool itself: numbers are served as they are trained."""
        return self

    def resume(self) -> Any:
        """The pool itself."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        """A copy has no optimizer."""
        return {**self.__dict__, "moved_by": None}

    def extra_repr(self) -> str:
        """Rows and width."""
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}"


class Cells(nn.Embedding):
    """What makes a pool an `nn.Embedding` of cells, whose gradient is a sparse tensor.

    `DistributedDataParallel` asks the module that owns a parameter for that when it decides which
    gradients will be sparse.
    """

    padding_idx = None
    max_norm = None
    norm_type = 2.0
    scale_grad_by_freq = False


class SparsePool(DensePool, Cells):  # type: ignore[misc] # one says Tensor, one Parameter
    """A dense pool whose gradient is a sparse tensor."""
