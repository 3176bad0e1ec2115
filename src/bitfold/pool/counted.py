"""A count that goes with a pool: of the forwards or the moves that its scales follow."""

from typing import Any, ClassVar

import torch
from torch import nn


class Counted(nn.Module):
    """A pool with a count, an int64 in its state dict under the name `counter`.

    It is no buffer: it stays on the CPU wherever the rows are, since each count reads it.
    """

    counter: ClassVar[str]

    def start_count(self) -> None:
        """Begin at 0."""
        with torch.inference_mode(False):
            setattr(self, self.counter, torch.zeros((), dtype=torch.int64, device="cpu"))

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}{self.counter}"] = getattr(self, self.counter).clone()

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local: Any, strict: bool, missing: Any, *rest: Any
    ) -> None:
        key, state_dict = f"{prefix}{self.counter}", dict(state_dict)
        made = state_dict.pop(key, None)
        if made is not None and not made.is_meta:
            count = made.detach().to("cpu", torch.int64, copy=True).reshape(())
            setattr(self, self.counter, count)
        elif made is None and strict:
            missing.append(key)
        super()._load_from_state_dict(state_dict, prefix, local, strict, missing, *rest)
