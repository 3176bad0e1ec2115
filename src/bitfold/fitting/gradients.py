"""What has no rows to solve for: steps of Adam on the squared error of the module's own vectors."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bitfold.embedder.contract import Embedder
from bitfold.embedder.group import GroupEmbedder
from bitfold.fitting.tables import Trained

STEPS, BATCH = 3000, 2048
RATE = 0.01
LOOKS = 8
"""How often the error is looked at: the numbers of the best look are kept."""
PROBES = 4096


def descend(part: Embedder, tables: Sequence[Trained], seed: int) -> str:
    """Fit all parameters of an embedder to the tables of its fields; returns how."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(len(each) for each in tables)
    steps = min(STEPS, 200 + 30 * total // BATCH)
    sparse, training = part.sparse, part.training
    parameters = list(part.parameters())
    trained = [each.requires_grad for each in parameters]
    draws = [_Draw(each) for each in tables]
    try:
        part.sparse = False
        part.train().requires_grad_(True)
        with torch.enable_grad():
            _steps(part, parameters, draws, steps, generator)
    finally:
        for each, flag in zip(parameters, trained, strict=True):
            each.grad = None
            each.requires_grad_(flag)
        part.train(training)
        part.sparse = sparse
    return f"{steps} steps of Adam"


def _steps(
    part: Embedder,
    parameters: list[torch.nn.Parameter],
    draws: list["_Draw"],
    steps: int,
    generator: torch.Generator,
) -> None:
    scale = _scale(draws)
    probes = [draw.some(PROBES, generator) for draw in draws]
    best, kept = _error(part, probes, scale), [each.detach().clone() for each in parameters]
    optimizer = torch.optim.Adam(parameters, lr=RATE)
    every = max(1, steps // LOOKS)
    batch = min(BATCH, sum(len(draw.trained) for draw in draws))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        share = -(-batch // len(draws))
        optimizer.zero_grad()
        loss: Any = _loss(part, [draw.some(share, generator) for draw in draws], scale)
        loss.backward()
        optimizer.step()
        if (step + 1) % every == 0 or step + 1 == steps:
            with torch.no_grad():
                error = _error(part, probes, scale)
            if error < best:
                best, kept = error, [each.detach().clone() for each in parameters]
    with torch.no_grad():
        for each, numbers in zip(parameters, kept, strict=True):
            each.copy_(numbers)
    _refresh(part)


def _refresh(part: Embedder) -> None:
    for pool in part.pools() if isinstance(part, GroupEmbedder) else ():
        pool.refresh()


Some = tuple[Tensor, Tensor]


class _Draw:
    """Ids of a table, drawn as often as they occur; a slice of rows at a time."""

    def __init__(self, trained: Trained) -> None:
        self.trained, self.size = trained, trained.at_once()
        masses = [float(chunk.weights.sum()) for chunk in trained.chunks(self.size)]
        self.masses = torch.tensor(masses, dtype=torch.float64)

    def some(self, count: int, generator: torch.Generator) -> Some:
        """Ids `[n]`, and their vectors."""
        if not float(self.masses.sum()):
            return torch.empty(0, dtype=torch.int64), torch.empty(0, self.trained.dim)
        number = int(torch.multinomial(self.masses, 1, generator=generator))
        begin = number * self.size
        chunk = self.trained.chunk(begin, min(begin + self.size, len(self.trained)))
        drawn = torch.multinomial(chunk.weights.cpu(), count, True, generator=generator)
        drawn = drawn.to(chunk.ids.device)
        return chunk.ids[drawn], chunk.vectors[drawn]


def _scale(draws: list[_Draw]) -> float:
    """The mean square of a number, which losses are measured by."""
    energy = sum(draw.trained.energy for draw in draws)
    mass = sum(draw.trained.mass for draw in draws)
    return energy / max(mass * draws[0].trained.dim, 1e-30) or 1.0


def _loss(part: Embedder, batches: list[Some], scale: float) -> Tensor:
    ids = torch.cat([ids for ids, _ in batches])
    wanted = torch.cat([vectors for _, vectors in batches])
    counts = torch.tensor([len(ids) for ids, _ in batches])
    field = torch.repeat_interleave(torch.arange(len(batches)), counts).to(ids.device)
    off = part.vectors(ids, field) - wanted.to(next(part.parameters()).dtype)
    return off.float().square().mean() / scale


def _error(part: Embedder, batches: list[Some], scale: float) -> float:
    """The loss, with the levels that follow from the rows as they are."""
    _refresh(part)
    return float(_loss(part, batches, scale).detach())
