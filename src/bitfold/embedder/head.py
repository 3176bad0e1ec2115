"""The head: vectors of another width than the model wants, lifted field by field."""

import torch
from torch import Tensor, nn


class Head(nn.Module):
    """A matrix `[w, D]` for each of `F` fields.

    Args:
        fields: `F`.
        width: `w`, numbers of a vector before the head.
        dim: `D`.
        device: where it lives.
        dtype: its type.

    Shapes:
        `[B, F, w]` -> `[B, F, D]`, or `[T, w]` with the field of each -> `[T, D]`.

    Example:
        >>> Head(3, 4, 16)(torch.zeros(5, 3, 4)).shape
        torch.Size([5, 3, 16])
    """

    def __init__(
        self,
        fields: int,
        width: int,
        dim: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        with torch.inference_mode(False):  # it can be trained wherever it was built
            weight = torch.empty(fields, width, dim, device=device, dtype=dtype)
            self.weight = nn.Parameter(weight)
        if not weight.is_meta:
            self.draw(torch.Generator().manual_seed(0))

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> None:
        """Start with rows of length 1 that stand at right angles, so that no direction is lost."""
        fields, width, dim = self.weight.shape
        most = max(width, dim)
        noise = torch.randn(fields, most, most, generator=generator, dtype=torch.float32)
        turned = torch.linalg.qr(noise)[0][:, :width, :dim]
        self.weight.copy_(turned)

    def forward(self, vectors: Tensor, field: Tensor | None = None) -> Tensor:
        """Lift vectors."""
        if field is not None:
            lifted: Tensor = torch.bmm(vectors.unsqueeze(1), self.weight[field]).squeeze(1)
            return lifted
        # By fields first: the gradient of `weight` has the strides of `weight`, as DDP wants.
        return torch.bmm(vectors.transpose(0, 1), self.weight).transpose(0, 1)

    def deviation(self, std: float) -> float:
        """The deviation of a narrow vector's components whose lifted ones have `std`."""
        _, width, dim = self.weight.shape
        return float(std * (max(width, dim) / width) ** 0.5)
