"""Tables: what a program reads beside its pools, as part of the module that runs it."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from bitfold.errors import BitfoldError


class StoredTables(nn.Module):
    """Stored bytes by name: buffers, so they are in the state dict and move along.

    Until something is put there they are zeros, which every source can read.

    Args:
        sizes: names and bytes.
        device: where they live.

    Example:
        >>> tables = StoredTables([("clusters", 3)])
        >>> tables.put("clusters", torch.tensor([1, 2, 3], dtype=torch.uint8))
        >>> tables.state_dict()["clusters"].tolist()
        [1, 2, 3]
    """

    def __init__(
        self, sizes: Iterable[tuple[str, int]] = (), device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        for name, size in sizes:
            if not name.isidentifier() or hasattr(self, name):
                raise BitfoldError(
                    "a stored table has a name that cannot be",
                    got=name,
                    expected="a name of letters, digits and _, that is not taken",
                )
            self.register_buffer(name, torch.zeros(size, dtype=torch.uint8, device=device))

    def named(self) -> dict[str, Tensor]:
        """The tables by name, uint8."""
        # Buffers alone, without a walk over modules: it is asked for in every lookup.
        return {name: each for name, each in self._buffers.items() if each is not None}

    def put(self, name: str, table: Tensor) -> None:
        """Write a whole table.

        Raises:
            BitfoldError: it has another type or size than was planned.
        """
        place = self._buffers[name]
        assert place is not None
        if table.dtype != torch.uint8 or table.shape != place.shape:
            raise BitfoldError(
                f"table {name!r} is not what was planned",
                got=f"{table.dtype} {list(table.shape)}",
                expected=f"torch.uint8 {list(place.shape)}",
            )
        with torch.no_grad():
            place.copy_(table)
