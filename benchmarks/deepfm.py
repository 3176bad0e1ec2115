"""The click log of the training benchmark, and what every contestant races beside.

Needs torch alone: rivals race in environments of their own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from turns import RING, Contestant, measure, peak_resident

BATCHES = 8
LR = 1e-3
PLAIN, CEILING, CEILING_GRAD = "plain", "ceiling", "ceiling grad"  # the yardsticks


@dataclass(frozen=True)
class Log:
    """Random rows, ready in memory: ids `[B, F]` and labels `[B]` of a ring of batches.

    Args:
        sizes: ids of each field.
        dim: D, width of a vector.
        hidden: sizes of the network's hidden layers.
        ids: int64, numbered field by field from 0.
        labels: float32, 0 or 1.
    """

    sizes: Sequence[int]
    dim: int
    hidden: Sequence[int]
    ids: list[Tensor]
    labels: list[Tensor]

    @property
    def names(self) -> list[str]:
        """A name for each field."""
        return [f"f{field}" for field in range(len(self.sizes))]


def make_log(settings: dict[str, Any]) -> Log:
    """The log that `settings` describe: the same one in every process."""
    generator = torch.Generator().manual_seed(0)
    sizes, rows = settings["sizes"], settings["batch"]
    ids, labels = [], []
    for _ in range(BATCHES):
        columns = [torch.randint(0, size, (rows,), generator=generator) for size in sizes]
        ids.append(torch.stack(columns, dim=1))
        labels.append(torch.randint(0, 2, (rows,), generator=generator).float())
    return Log(sizes, settings["dim"], settings["hidden"], ids, labels)


class Network(nn.Module):
    """DeepFM above the vectors `[B, F, D]`: linear terms, pairwise products, MLP."""

    def __init__(self, fields: int, dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = fields * dim
        self.direction = nn.Linear(width, 1)
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU()]
            width = size
        self.deep = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, vectors: Tensor) -> Tensor:
        """Logits `[B]`."""
        flat = vectors.flatten(1)
        squares = flat.square().sum(dim=1)
        pairs = 0.5 * (vectors.sum(dim=1).square().sum(dim=1) - squares)
        logits: Tensor = (self.direction(flat) + self.deep(flat)).squeeze(1) + pairs
        return logits


class PlainDeepFM(nn.Module):
    """All fields in one `nn.Embedding`, each from an offset of its own, and the network."""

    starts: Tensor

    def __init__(self, log: Log, sparse: bool) -> None:
        super().__init__()
        ends = torch.tensor(log.sizes).cumsum(0)
        self.register_buffer("starts", ends - torch.tensor(log.sizes))
        self.table = nn.Embedding(int(ends[-1]), log.dim, sparse=sparse)
        self.network = Network(len(log.sizes), log.dim, log.hidden)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits `[B]` of ids `[B, F]`."""
        logits: Tensor = self.network(self.table(ids + self.starts))
        return logits


def trainer(
    forward: Callable[[int], Tensor], log: Log, optimizers: Sequence[torch.optim.Optimizer]
) -> Contestant:
    """One training step on batch `turn`: forward to logits, loss, backward, optimizers."""

    def step(turn: int) -> None:
        for optimizer in optimizers:
            optimizer.zero_grad()
        labels = log.labels[turn % BATCHES]
        nn.functional.binary_cross_entropy_with_logits(forward(turn), labels).backward()
        for optimizer in optimizers:
            optimizer.step()

    return step


def plain(log: Log, sparse: bool = True, fused: bool = True) -> Contestant:
    """Plain PyTorch: sparse gradients and SparseAdam for the table, or Adam for everything."""
    torch.manual_seed(0)
    model = PlainDeepFM(log, sparse)
    if sparse:
        optimizers: list[torch.optim.Optimizer] = [
            torch.optim.SparseAdam(model.table.parameters(), lr=LR),
            torch.optim.Adam(model.network.parameters(), lr=LR, fused=fused),
        ]
    else:
        optimizers = [torch.optim.Adam(model.parameters(), lr=LR, fused=fused)]
    return trainer(lambda turn: model(log.ids[turn % BATCHES]), log, optimizers)


def ceiling(log: Log, grad: bool) -> Contestant:
    """The network alone on ready vectors; with `grad`, their gradient is computed too."""
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


def race(settings: dict[str, Any], contestant: Callable[[Log], Contestant]) -> dict[str, Any]:
    """A contestant's steps beside those of the yardsticks in the same rounds.

    The yardsticks are plain PyTorch (sparse gradients, SparseAdam) and the ceilings, without and
    with the gradient of their vectors.

    Returns:
        Milliseconds of each in each round, and the most bytes that the process held with the
        contestant alone in it.
    """
    torch.set_num_threads(settings["threads"])
    log = make_log(settings)
    before = peak_resident()
    step = contestant(log)
    step(0)
    step(1)
    peak = peak_resident()
    yardsticks = {
        PLAIN: plain(log), CEILING: ceiling(log, False), CEILING_GRAD: ceiling(log, True),
    }  # fmt: skip
    times, _ = measure({"milliseconds": step, **yardsticks}, settings["rounds"])
    return {**times, "peak_resident": peak, "before": before}
