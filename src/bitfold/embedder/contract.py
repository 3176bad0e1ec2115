"""The contract of embedders: modules that turn the ids of `F` fields into vectors."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from bitfold.planning.plan import Plan


class Embedder(nn.Module):
    """The contract of a group of fields: `B` rows, `F` fields, `T` ids in bags, `D` width."""

    plan: Plan
    sparse: bool = False  # whether gradients are sparse tensors

    @property
    def table(self) -> str | None:
        """The name of the parameter that is the only field's table; None where one is computed."""
        return None

    def forward(self, ids: Tensor, padding_idx: int | None = None) -> Tensor:
        """Vectors `[B, F, D]` of int64 ids `[B, F]`; those of `padding_idx` are zero."""
        raise NotImplementedError

    def forward_bags(
        self,
        ids: Tensor,
        offsets: Tensor,
        weights: Tensor | None = None,
        mode: str = "sum",
        padding_idx: int | None = None,
    ) -> Tensor:
        """Vectors `[B, F, D]` of bags: int64 ids `[T]`, offsets `[F * B + 1]`, field-major."""
        raise NotImplementedError

    def bytes(self, phase: str = "serving") -> dict[str, int]:
        """Bytes by kind, to serve or to train (before any optimizer's state)."""
        raise NotImplementedError

    def serving(self) -> "Embedder":
        """A packed and frozen copy; the bytes of its state dict are `bytes("serving")`."""
        raise NotImplementedError

    def reset_parameters(self) -> None:
        """Draw fresh weights from the seed, or from torch's generator where none was said."""
        raise NotImplementedError

    def redraw(self, std: float, generator: torch.Generator | None = None) -> bool:
        """Draw fresh weights, for vectors of deviation `std`; False if that cannot be done."""
        return False

    def read(self, reading: Callable[[Tensor], Tensor]) -> Tensor:
        """What `reading` makes of the table; for embedders that have one."""
        raise NotImplementedError

    def check(self, ids: Tensor) -> None:
        """Raise `IdOutOfRange` for a dense id of `[B, F]` that has no vector."""
        raise NotImplementedError

    def own_rows(self) -> tuple[int, ...]:
        """The fields, by number, where each id has rows that no other id reads."""
        return ()

    def fill_unseen(self, counts: Mapping[int, Tensor]) -> None:
        """Give ids that were never trained a vector that is no noise; nothing by default.

        Args:
            counts: how often each id was met in training, int64 `[V]`, for fields of `own_rows`.
        """
