"""Bags of ids, and many fields of unequal size, beside the full tables.

    python benchmarks/bags.py --out bench-out

Bags: one field of 33.7 M ids, width 16, 212,992 ids a batch in bags of 1, 10 and 100, summed and
averaged: `bitfold.EmbeddingBag` beside `nn.EmbeddingBag`. Fields: 26 of them, from 14 to 14 million
ids in equal ratios and 33.7 M in all, 8,192 rows a batch: `bitfold.EmbeddingCollection` beside an
`nn.Embedding` for each field, and beside one for all of them. Forward, and the whole step: forward,
backward of a ready gradient, optimizer (SGD) and `zero_grad`. Turns and ratios as in lookups.py.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from layer import DIM, IDS, KINDS, PHASES, ROWS, Row, Runs, layer_runs, stepper
from report import faster, machine, spread, table, write
from rich.console import Console
from torch import Tensor, nn
from turns import RING, drawn, filled, measure, quartiles, ratio

import bitfold
from bitfold.optim import SGD

LENGTHS, MODES = (1, 10, 100), ("sum", "mean")
FIELDS = 26
FORMS = (  # name, budget, whether gradients are sparse, whether rows move within the backward pass
    ("1000x", "1000x", False, False),
    ("100x, sparse", "100x", True, False),
    ("100x, in the backward", "100x", False, True),
)


def field_sizes(count: int, total: int) -> list[int]:
    """Sizes in equal ratios, the largest a million times the smallest, that add up to `total`."""
    shares = [10 ** (6 * place / (count - 1)) for place in range(count)]
    sizes = [max(1, round(share * total / sum(shares))) for share in shares]
    sizes[-1] += total - sum(sizes)
    return sizes


def race(group: dict[str, Runs], rounds: int, facts: Row) -> list[Row]:
    """Forward and step of every contestant; the first is the yardstick."""
    found = []
    for place, phase in enumerate(PHASES):
        runs = {name: pair[place] for name, pair in group.items()}
        times, peaks = measure(runs, rounds, frozen=phase == "forward")
        yard = next(iter(times.values()))
        for name, taken in times.items():
            low, middle, high = quartiles(taken)
            found.append(
                {
                    **facts, "phase": phase, "name": name, "milliseconds": round(middle, 3),
                    "quartiles": [round(low, 3), round(high, 3)],
                    "times_faster": round(ratio(yard, taken), 3), "rounds": rounds,
                    "peak_resident": peaks[name],
                }
            )  # fmt: skip
    return found


class Bags(nn.Module):
    """A layer that is told its bags once, and then the ids of each batch."""

    offsets: Tensor

    def __init__(self, layer: nn.Module, length: int, ids: int) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("offsets", torch.arange(0, ids, length))

    def forward(self, ids: Tensor) -> Tensor:
        """One vector a bag."""
        vectors: Tensor = self.layer(ids, self.offsets)
        return vectors


def bags(weights: Tensor, kind: str, ids: int, rounds: int) -> list[Row]:
    """Bags of every length, pooled in both ways."""
    found = []
    for mode in MODES:
        for length in LENGTHS:
            count = ids // length * length
            batches = [drawn(kind, count, seed, IDS) for seed in range(RING)]
            grads = torch.randn(count // length, DIM)
            full = nn.EmbeddingBag(IDS, DIM, mode=mode, sparse=True, _weight=weights)
            group = {
                "nn.EmbeddingBag(sparse), full table": layer_runs(
                    Bags(full, length, count), batches, grads
                )
            }
            for name, budget, sparse, inside in FORMS:
                ours = bitfold.EmbeddingBag(
                    IDS, DIM, mode=mode, budget=budget, sparse=sparse, method="binary-code"
                )
                group[f"bitfold.EmbeddingBag, {name}"] = layer_runs(
                    Bags(ours, length, count), batches, grads, SGD, inside
                )
            facts = {"group": "bags", "ids": kind, "mode": mode, "length": length}
            found += race(group, rounds, facts)
    return found


def each_field(
    weights: Tensor, sizes: Sequence[int], batches: Sequence[Tensor], grads: Tensor
) -> Runs:
    """An `nn.Embedding` for each field, their vectors put together."""
    layers = [
        nn.Embedding(len(part), DIM, sparse=True, _weight=part)
        for part in weights.split(list(sizes))
    ]
    optimizer = torch.optim.SGD([layer.weight for layer in layers], lr=0.01)

    def forward(turn: int) -> Any:
        columns = batches[turn % RING].unbind(1)
        return torch.stack([layer(ids) for layer, ids in zip(layers, columns, strict=True)], dim=1)

    return Runs(forward, stepper(forward, grads, optimizer))


def one_table(
    weights: Tensor, sizes: Sequence[int], batches: Sequence[Tensor], grads: Tensor
) -> Runs:
    """One `nn.Embedding`, each field from an offset of its own."""
    layer = nn.Embedding(len(weights), DIM, sparse=True, _weight=weights)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
    starts = torch.tensor(sizes).cumsum(0) - torch.tensor(sizes)

    def forward(turn: int) -> Any:
        return layer(batches[turn % RING] + starts)

    return Runs(forward, stepper(forward, grads, optimizer))


def fields(weights: Tensor, kind: str, ids: int, rounds: int) -> list[Row]:
    """Fields of unequal size."""
    sizes, rows = field_sizes(FIELDS, IDS), ids // FIELDS
    batches = [
        torch.stack(
            [drawn(kind, rows, 26 * seed + at, size) for at, size in enumerate(sizes)], dim=1
        )
        for seed in range(RING)
    ]
    grads = torch.randn(rows, FIELDS, DIM)
    group = {
        "nn.Embedding(sparse) for each field": each_field(weights, sizes, batches, grads),
        "nn.Embedding(sparse) for all fields": one_table(weights, sizes, batches, grads),
    }
    named = [bitfold.Field(f"f{place}", size) for place, size in enumerate(sizes)]
    for name, budget, sparse, inside in FORMS:
        ours = bitfold.EmbeddingCollection(
            named, DIM, budget=budget, sparse=sparse, method="binary-code"
        )
        runs = layer_runs(ours, batches, grads, SGD, inside)
        group[f"bitfold.EmbeddingCollection, {name}"] = runs
    return race(group, rounds, {"group": "fields", "ids": kind})


def show(title: str, found: list[Row], console: Console) -> None:
    """Print a table of one group and phase."""
    bagged = "length" in found[0]
    heads = ["", *(["bag", "pooling"] if bagged else [])]
    heads += ["ms", "quartiles", "faster than the full table"]
    made = table(title, heads)
    for row in found:
        made.add_row(
            row["name"], *([str(row["length"]), row["mode"]] if bagged else []),
            f"{row['milliseconds']:.2f}", spread(*row["quartiles"]),
            faster(row["times_faster"]),
        )  # fmt: skip
    console.print(made)


def main() -> None:
    """Measure, print and write `bags.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="where to write")
    parser.add_argument("--rounds", type=int, default=9, help="turns of every contestant")
    parser.add_argument("--rows", type=int, default=ROWS, help="ids a batch")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of torch")
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    console = Console(width=130)
    weights = filled(IDS, DIM)
    rows = []
    for kind in KINDS:
        for name, measured in (("bags", bags), ("26 fields", fields)):
            found = measured(weights, kind, words.rows, words.rounds)
            for phase in PHASES:
                part = [row for row in found if row["phase"] == phase]
                show(f"{name}, {phase}, {kind} ids", part, console)
            rows += found
    results = {"machine": machine(batch=words.rows), "results": rows}
    write(words.out, "bags", results, console)


if __name__ == "__main__":
    main()
