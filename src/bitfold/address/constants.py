"""Constants of a module: tensors that follow from what it was built from.

They are neither parameters nor buffers. Whatever walks over a module's buffers - averages of
weights (EMA, SWA), casts, broadcasts, checkpoints - would write into them, and every id would read
other rows without an error.
"""

from typing import Any

import torch
from torch import Tensor, nn


class WithConstants(nn.Module):
    """A module whose constants are plain attributes, on the device where its weights are."""

    def _constants(self) -> dict[str, Tensor]:
        """The constants by name, on the CPU."""
        raise NotImplementedError

    def place_constants(self, device: torch.device | str | None = None) -> None:
        """Make the constants anew on a device; on torch's default one for None."""
        target = torch.get_default_device() if device is None else torch.device(device)
        # Ordinary tensors, even where the module is built under `inference_mode`.
        with torch.inference_mode(False), torch.device("cpu"):
            for name, value in self._constants().items():
                setattr(self, name, value.to(target))

    def _apply(self, fn: Any, recurse: bool = True) -> "WithConstants":
        """Follow the weights, whatever `fn` does to numbers."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        names = self._constants()
        if names:
            old = getattr(self, next(iter(names))).device
            self.place_constants(fn(torch.empty(0, dtype=torch.int64, device=old)).device)
        return self
