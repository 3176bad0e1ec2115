"""The in-batch softmax of two towers, loss and gradients: in blocks, beside one matrix in autograd.

    python benchmarks/in_batch.py [--width 64] [--memory 8192] [--threads 1] [--rounds 20]

Both take their turns in one run. `memory` further vectors, which do not learn, are scored beside
those of the batch in half of the lines, as a memory of batches is. Times are medians over the
rounds, the ratio the median of each round's; MiB is what a call adds, at its peak, to what the
process holds.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from report import spread, table
from rich.console import Console
from torch import Tensor, nn
from turns import measure, quartiles, ratio

from bitfold.retrieval.in_blocks import Shared
from bitfold.retrieval.losses import softmax_loss

BATCHES, ITEMS, TEMPERATURE = (256, 1024, 4096, 8192), 40_000, 0.1

Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Shared | None]


def whole(
    users: Tensor, items: Tensor, places: Tensor, log_q: Tensor, more: Shared | None
) -> Tensor:
    """The same loss of one matrix of all scores."""
    groups = [Shared(items, places, log_q), *([more] if more else [])]
    parts = []
    for group in groups:
        hidden = places[:, None] == group.places
        if group.vectors is items:
            hidden.fill_diagonal_(False)
        scores = (users / TEMPERATURE) @ group.vectors.T - group.log_q
        parts.append(scores.masked_fill(hidden, -torch.inf))
    logits = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    return nn.functional.cross_entropy(logits, torch.arange(len(users)))


def blocks(
    users: Tensor, items: Tensor, places: Tensor, log_q: Tensor, more: Shared | None
) -> Tensor:
    """Ours."""
    shared = (more,) if more else ()
    return softmax_loss(users, items, places, TEMPERATURE, log_q, shared)


FORMS = {"one matrix": whole, "in blocks": blocks}


def inputs(batch: int, memory: int, width: int) -> Inputs:
    """Vectors of length 1, of items drawn alike."""
    draw = torch.Generator().manual_seed(0)

    def vectors(count: int) -> Tensor:
        return nn.functional.normalize(torch.randn(count, width, generator=draw), dim=1)

    def items(count: int) -> tuple[Tensor, Tensor]:
        return torch.randint(0, ITEMS, (count,), generator=draw), torch.randn(count, generator=draw)

    more = Shared(vectors(memory), *items(memory)) if memory else None
    users, theirs = vectors(batch).requires_grad_(), vectors(batch).requires_grad_()
    return users, theirs, *items(batch), more


def call(name: str, given: Inputs, turn: int = 0) -> None:
    """The loss and its gradients, once."""
    users, items = given[0], given[1]
    users.grad = items.grad = None
    FORMS[name](*given).backward()


def added(name: str, given: Inputs) -> float:
    """MiB that a call adds, at its peak, to what this process holds (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is counted from here
    call(name, given)
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    held = {name: words for name, *words in map(str.split, lines)}
    return (int(held["VmHWM:"][0]) - int(held["VmRSS:"][0])) / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--memory", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    heads = ["", "batch", "memory", "ms", "quartiles", "faster", "MiB"]
    made = table(f"in-batch softmax, width {asked.width}, {asked.threads} threads", heads)
    for memory in (0, asked.memory):
        for batch in BATCHES:
            given = inputs(batch, memory, asked.width)
            group = {name: partial(call, name, given) for name in FORMS}
            times, _ = measure(group, asked.rounds)
            for name, each in times.items():
                low, middle, high = quartiles(each)
                made.add_row(
                    name,
                    f"{batch:,}",
                    f"{memory:,}",
                    f"{middle:.2f}",
                    spread(low, high),
                    f"{ratio(times['one matrix'], each):.2f}",
                    f"{added(name, given):,.0f}",
                )
    Console().print(made)


if __name__ == "__main__":
    main()
