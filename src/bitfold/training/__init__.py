"""Training: from a log to a run.

fit        the whole job                       job         one training, once its folder is claimed
resolve    its options, said and saved         folder      its folder: begun, resumed, tidied
processes  several that train one model        starting    copies of the command, one a process
loop       steps, validation, early stopping   rows        where its batches come from
lifecycle  what embedders do between steps     phases      a training that plans anew
counting   how often ids occur                 unseen      ids that training lacks
parts      can the log be trained on?          memory      do the tables fit this machine?
checkpoint all that going on needs             logs        CSV, TensorBoard, MLflow
distilling a run that teaches the training
optimizers which of them move the model        measuring   the figures of metrics.json
ahead      kernels that are compiled ahead

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
