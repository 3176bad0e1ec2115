"""Where the sums of a pool's gradient are kept: private to each thread, or listed and owned.

    python benchmarks/sums.py

Milliseconds of a step (forward, backward, SGD) on pools of growing size, with either way forced:
`bitfold.kernels.gradients.PRIVATE_BYTES` is set where they cross.
"""

import argparse
import os
from pathlib import Path

import torch
from report import machine, table, write
from rich.console import Console
from turns import RING, Contestant, drawn, measure, quartiles

import bitfold
from bitfold.kernels import gradients
from bitfold.optim import SGD

IDS, ROWS, DIM = 33_700_000, 212_992, 16
SIZES = (2, 4, 6, 8, 12, 16, 24)
WAYS = {"private": 1 << 62, "listed or owned": 0}


def step(size: int, inside: bool, limit: int) -> Contestant:
    """A step on a pool of `size` MiB."""
    module = bitfold.Embedding(IDS, DIM, budget=size << 20, method="binary-code")
    optimizer = SGD(module.parameters(), lr=0.01)
    if inside:
        optimizer.into_backward(module)
    batches = [drawn("uniform", ROWS, seed, IDS) for seed in range(RING)]
    grads = torch.randn(ROWS, DIM)

    def run(turn: int) -> None:
        gradients.PRIVATE_BYTES = limit
        module(batches[turn % RING]).backward(grads)
        optimizer.step()
        optimizer.zero_grad()

    return run


def main() -> None:
    """Measure, print, write `sums.json`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="where to write")
    parser.add_argument("--rounds", type=int, default=9, help="turns of every contestant")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of torch")
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    console, results = Console(width=100), []
    heads = [f"{form}, {way}" for form in ("in the backward", "gradient") for way in WAYS]
    shown = table("milliseconds a step", ["pool, MiB", *heads])
    for size in SIZES:
        group = {
            f"{form}, {way}": step(size, form == "in the backward", limit)
            for form in ("in the backward", "gradient")
            for way, limit in WAYS.items()
        }
        times, _ = measure(group, words.rounds)
        middle = {name: quartiles(taken)[1] for name, taken in times.items()}
        results.append({"mebibytes": size, **middle})
        shown.add_row(str(size), *(f"{middle[head]:.2f}" for head in heads))
    console.print(shown)
    write(words.out, "sums", {"machine": machine(batch=ROWS), "results": results}, console)


if __name__ == "__main__":
    main()
