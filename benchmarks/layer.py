"""One layer on one field: its batches, its training step, the full table, and a race beside it.

Needs torch alone: rivals race in environments of their own.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from turns import RING, Contestant, drawn, filled, measure, peak_resident

IDS, ROWS, DIM = 33_700_000, 212_992, 16
KINDS = ("uniform", "zipf")
PHASES = ("forward", "step")
PLAIN = "plain"
Row = dict[str, Any]


class Runs(NamedTuple):
    """A layer's forward, and its training step, on batch `turn`."""

    forward: Contestant
    step: Contestant


def stepper(
    forward: Contestant, grads: Tensor, optimizer: torch.optim.Optimizer | None
) -> Contestant:
    """One training step of a layer: forward, backward of a ready gradient, optimizer.

    Without an optimizer, the backward pass is taken to update the weights.
    """

    def step(turn: int) -> None:
        output: Any = forward(turn)
        output.backward(grads)
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()

    return step


def full_table(ids: int, dim: int) -> nn.Embedding:
    """`nn.Embedding` with sparse gradients."""
    return nn.Embedding(ids, dim, sparse=True, _weight=filled(ids, dim))


def layer_runs(
    module: nn.Module,
    inputs: Sequence[Any],
    grads: Tensor,
    optimizer: type = torch.optim.SGD,
    inside: bool = False,
) -> Runs:
    """Runs of a module on a ring of inputs; `inside`: rows are moved within the backward pass."""
    made = optimizer(module.parameters(), lr=0.01)
    if inside:
        made.into_backward(module)

    def forward(turn: int) -> object:
        return module(inputs[turn % RING])

    return Runs(forward, stepper(forward, grads, made))


def race(settings: dict[str, Any], layer: Callable[[Sequence[Tensor], Tensor], Runs]) -> Row:
    """A layer's forward and step beside the full table's (sparse gradients, SGD).

    Args:
        settings: `ids`, `rows`, `dim`, `rounds`, `threads`.
        layer: its runs for a ring of batches `[rows]` and a gradient `[rows, dim]`; asked once
            for each kind of ids.

    Returns:
        For each kind of ids and each phase, milliseconds of both in each round; and the most
        bytes that the process held with the layer alone in it.
    """
    torch.set_num_threads(settings["threads"])
    ids, rows, dim = settings["ids"], settings["rows"], settings["dim"]
    grads = torch.randn(rows, dim)
    batches = {kind: [drawn(kind, rows, seed, ids) for seed in range(RING)] for kind in KINDS}
    layers = {kind: layer(batches[kind], grads) for kind in KINDS}
    for run in layers[KINDS[0]]:
        run(0)
        run(1)
    peak = peak_resident()
    table = full_table(ids, dim)
    found = []
    for kind, runs in layers.items():
        plain = layer_runs(table, batches[kind], grads)
        for phase, ours, theirs in zip(PHASES, runs, plain, strict=True):
            group = {"contestant": ours, PLAIN: theirs}
            times, _ = measure(group, settings["rounds"], frozen=phase == "forward")
            taken = {"milliseconds": times["contestant"], PLAIN: times[PLAIN]}
            found.append({"ids": kind, "phase": phase, **taken})
    return {"results": found, "peak_resident": peak}
