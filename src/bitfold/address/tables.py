"""Tables: what a program reads beside its pools, as part of the module that runs it."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bitfold.errors import BitfoldError


class StoredTables(nn.Module):
    """Stored bytes by name: in the state dict, and where the weights are.

    They are no buffers, which averages of weights (EMA, SWA) and casts write into: a bit less in a
    byte, and ids read other rows.

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
        self._tables: dict[str, Tensor] = {}
        for name, size in sizes:
            if not name.isidentifier() or hasattr(self, name) or name in self._tables:
                raise BitfoldError(
                    "a stored table has a name that cannot be",
                    got=name,
                    expected="a name of letters, digits and _, that is not taken",
                )
            self._tables[name] = torch.zeros(size, dtype=torch.uint8, device=device)

    def named(self) -> dict[str, Tensor]:
        """The tables by name, uint8."""
        return self._tables

    def listed(self, names: Sequence[str]) -> list[Tensor]:
        """Some of the tables, in the order of their names."""
        return [self._tables[name] for name in names]

    def put(self, name: str, table: Tensor) -> None:
        """Write a whole table.

        Raises:
            BitfoldError: it has another type or size than was planned.
        """
        place = self._tables[name]
        if table.dtype != torch.uint8 or table.shape != place.shape:
            raise BitfoldError(
                f"table {name!r} is not what was planned",
                got=f"{table.dtype} {list(table.shape)}",
                expected=f"torch.uint8 {list(place.shape)}",
            )
        with torch.no_grad():
            place.copy_(table)

    def _apply(self, fn: Any, recurse: bool = True) -> "StoredTables":
        """Follow the weights, and stay bytes, whatever `fn` does to numbers."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._tables = {name: fn(each).to(torch.uint8) for name, each in self._tables.items()}
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.update({f"{prefix}{name}": each for name, each in self._tables.items()})

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local: Any,
        strict: bool,
        missing: list[str],
        unexpected: list[str],
        errors: list[str],
    ) -> None:
        state_dict = dict(state_dict)
        for name, place in self._tables.items():
            found = state_dict.pop(f"{prefix}{name}", None)
            if found is None:
                missing += [f"{prefix}{name}"] * strict
            elif found.dtype != torch.uint8 or found.shape != place.shape:
                errors.append(
                    f"size mismatch for {prefix}{name}: {found.dtype} {list(found.shape)} in the "
                    f"checkpoint, {place.dtype} {list(place.shape)} in the model."
                )
            elif local.get("assign_to_params_buffers", False):
                self._tables[name] = found
            elif not place.is_meta:
                place.copy_(found)
        super()._load_from_state_dict(
            state_dict, prefix, local, strict, missing, unexpected, errors
        )
