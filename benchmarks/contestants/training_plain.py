"""Plain PyTorch's DeepFM, and the network alone on ready vectors: the ceiling.

The words of `settings["form"]`: sparse | dense | dense fused | ceiling | ceiling grad.
"""

from typing import Any

import torch
from deepfm import LR, Log, Network, plain, race, trainer
from process import answer
from turns import RING, Contestant


def ceiling(log: Log, grad: bool) -> Contestant:
    """The network alone; with `grad`, its vectors' gradient is computed too."""
    torch.manual_seed(0)
    network = Network(len(log.sizes), log.dim, log.hidden)
    shape = (len(log.labels[0]), len(log.sizes), log.dim)
    vectors = [torch.randn(shape).mul_(0.01).requires_grad_(grad) for _ in range(RING)]
    optimizer = torch.optim.Adam(network.parameters(), lr=LR, fused=True)
    step = trainer(lambda turn: network(vectors[turn % RING]), log, [optimizer])

    def fresh(turn: int) -> None:
        step(turn)
        vectors[turn % RING].grad = None

    return fresh


def measured(settings: dict[str, Any]) -> dict[str, Any]:
    """The form that the settings name."""
    form = settings["form"]
    if form.startswith("ceiling"):
        return race(settings, lambda log: ceiling(log, form == "ceiling grad"))
    return race(settings, lambda log: plain(log, form == "sparse", form != "dense"))


answer(measured)
