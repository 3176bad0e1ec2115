"""bitfold's DeepFM as `bitfold train` builds it.

`settings`: `method` and `budget` of the collection, and `optimizer`: adam (fused, on everything),
or for the tables lazy-adam (sparse gradients) or lazy-adam-inside (within the backward pass), with
fused Adam for the network.
"""

from typing import Any

import torch
from deepfm import BATCHES, LR, Log, race, trainer
from process import answer
from turns import Contestant

import bitfold
from bitfold.nets.building import build_network
from bitfold.nets.model import ClickModel
from bitfold.optim import LazyAdam


def contestant(log: Log, settings: dict[str, Any]) -> Contestant:
    """Its training step."""
    how = settings["optimizer"]
    fields = [bitfold.Field(*field) for field in zip(log.names, log.sizes, strict=True)]
    collection = bitfold.EmbeddingCollection(
        fields, log.dim, method=settings["method"], budget=settings["budget"],
        sparse=how == "lazy-adam",
    )  # fmt: skip
    network = build_network("deepfm", len(fields), log.dim, hidden=tuple(log.hidden))
    model = ClickModel(collection, network)
    numeric = torch.empty(len(log.labels[0]), 0)
    if how == "adam":
        optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Adam(model.parameters(), lr=LR, fused=True)
        ]
    else:
        tables = LazyAdam(collection.parameters(), lr=LR)
        optimizers = [tables, torch.optim.Adam(network.parameters(), lr=LR, fused=True)]
        if how == "lazy-adam-inside":
            tables.into_backward(collection)
    return trainer(
        lambda turn: model.logits(log.ids[turn % BATCHES], None, numeric), log, optimizers
    )


answer(lambda settings: race(settings, lambda log: contestant(log, settings)))
