"""A flat pool: one array of numbers, in which a piece begins at any of them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bitfold.address.constants import WithConstants
from bitfold.kernels.pages import ask_for_large_pages


class FlatPool(WithConstants):
    """`R` numbers; a cell is the first of the `w` that a lookup reads.

    The array is a ring: a piece that begins near its end goes on at its beginning.

    Args:
        rows: `R`.
        width: `w`.

    Shapes:
        cells int64 `[...]` -> pieces `[..., w]`.

    Example:
        >>> pool = FlatPool(5, 3)
        >>> _ = pool.weight.data.copy_(torch.arange(5.0))
        >>> pool(torch.tensor([1, 4]))
        tensor([[1., 2., 3.],
                [4., 0., 1.]], grad_fn=<IndexBackward0>)
    """

    sparse = False
    run: Tensor

    def __init__(
        self,
        rows: int,
        width: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.width = width
        with torch.inference_mode(False):  # it can be trained wherever it was built
            weight = torch.empty(rows, device=device, dtype=dtype)
            self.weight = nn.Parameter(ask_for_large_pages(weight))
        self.moved_by: Any = None
        self.place_constants(device)

    def make_sparse(self, flag: bool) -> None:
        """Pieces overlap, so the gradient is dense whatever is asked for."""

    def at(self, weight: Tensor, cells: Tensor) -> Tensor:
        """Pieces of a weight at cells."""
        first, numbers = cells.unsqueeze(-1), weight.shape[0]
        places = first + self.run
        past = (places >= numbers) & (first < numbers)  # a cell outside stays there, and raises
        return weight[torch.where(past, places - numbers, places)]

    def forward(self, cells: Tensor | Callable[[Tensor], Tensor]) -> Tensor:
        """Read the pieces at `cells`, or let a function read the weight while it is there."""
        if not isinstance(cells, Tensor):
            return cells(self.weight)
        return self.at(self.weight, cells)

    def read_by_kernels(self, weight: Tensor) -> bool:
        """Whether the kernels can read it."""
        return False

    @property
    def dtype(self) -> torch.dtype:
        """The type of the pieces."""
        return self.weight.dtype

    @torch.no_grad()
    def draw(self, means: Tensor, deviations: Tensor, generator: torch.Generator) -> None:
        """Fill the array with normal numbers, of a mean and a deviation `[R]` for each."""
        shape = len(self.weight), 1
        noise = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
        self.weight.copy_(noise.squeeze(1) * deviations + means)

    def numbers(self, cells: Tensor) -> Tensor:
        """The trained numbers at cells `[n]`, each alone: `[n, 1]`."""
        return self.weight.detach()[cells].unsqueeze(1)

    @torch.no_grad()
    def put(self, cells: Tensor, numbers: Tensor) -> None:
        """Write the numbers `[n, 1]` at cells."""
        self.weight[cells] = numbers.squeeze(1).to(self.weight.dtype)

    def held(self, cells: Tensor, numbers: Tensor) -> Tensor:
        """What to `put` so that numbers are read."""
        return numbers

    def refresh(self) -> None:
        """Nothing follows from the numbers."""

    def count_forward(self, weight: Tensor) -> None:
        """Nothing follows from the numbers."""

    def serving(self) -> "FlatPool":
        """The pool itself: numbers are served as they are trained."""
        return self

    def resume(self) -> "FlatPool":
        """The pool itself."""
        return self

    def _constants(self) -> dict[str, Tensor]:
        return {"run": torch.arange(self.width)}

    def extra_repr(self) -> str:
        """Numbers, and how many a lookup reads."""
        return f"{self.weight.shape[0]}, width={self.width}"
