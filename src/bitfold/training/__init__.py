"""Training: the whole job (fit), its loop, checkpoints and logs.

Names are imported on first use, so that the command can show its options without loading torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from bitfold.runs.options import TrainConfig

if TYPE_CHECKING:
    from bitfold.training.fit import RunResult, train

__all__ = ["RunResult", "TrainConfig", "train"]


def __getattr__(name: str) -> Any:
    if name in ("RunResult", "train"):
        return getattr(importlib.import_module("bitfold.training.fit"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
