"""A batch of rows, as tensors."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Batch:
    """B rows of F fields and N numbers.

    Args:
        ids: int64 `[B, F]` if `offsets` is None, else int64 `[T]`: the ids of all bags, field
            after field.
        offsets: None, or int64 `[F*B + 1]`: the bag of field f and row b is
            `ids[offsets[f*B + b] : offsets[f*B + b + 1]]`.
        numeric: float32 `[B, N]`; N may be 0.
        labels: float32 `[B]` of 0 and 1, or None where the data have none.
        weights: float32 `[B]`, or None.
        groups: int64 `[B]`, the hashed user of each row, or None.

    Example:
        >>> import torch
        >>> batch = Batch(torch.zeros(2, 3, dtype=torch.int64), None, torch.zeros(2, 0))
        >>> batch.rows
        2
    """

    ids: "torch.Tensor"
    offsets: "torch.Tensor | None"
    numeric: "torch.Tensor"
    labels: "torch.Tensor | None" = None
    weights: "torch.Tensor | None" = None
    groups: "torch.Tensor | None" = None

    @property
    def rows(self) -> int:
        """B, the number of rows."""
        return self.numeric.shape[0]

    def to(self, device: "torch.device | str") -> "Batch":
        """The same batch on a device."""
        moved: dict[str, Any] = {}
        for field in fields(self):
            tensor = getattr(self, field.name)
            moved[field.name] = None if tensor is None else tensor.to(device, non_blocking=True)
        return Batch(**moved)
