"""Lookups and training steps beside `nn.Embedding`, rivals and the machine's own limits.

    python benchmarks/lookups.py --out bench-out

One field of 33.7 M ids, width 16, batches of 212,992 ids, uniform and Zipf (exponent 1.05). A
forward is timed with its output freed at once; a step is forward, backward of a ready gradient,
optimizer and `zero_grad`. Times are medians over rounds in which every contestant takes its turn
(twice, the second is timed), so what else the machine does strikes all of them; ratios are
medians of each round's ratio. The limits: filling a ring of outputs that are larger than the
last-level cache and already mapped, and adding up the ids. Rivals run in environments of their
own (`make rivals`), each beside the full table in the same rounds: compare ratios, not times.
The peak of resident memory that the JSON has beside each time is the process's up to then.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from layer import DIM, IDS, KINDS, PHASES, PLAIN, ROWS, full_table, layer_runs
from process import ask
from report import Row, faster, machine, spread, table, write
from rich.console import Console
from torch import nn
from turns import RING, Contestant, drawn, measure, quartiles, ratio

import bitfold
from bitfold.kernels.lookup import cache_bytes
from bitfold.optim import SGD, RowWiseAdagrad

RIVALS = {
    "FBGEMM, row-wise Adagrad": ("layer_fbgemm.py", "fbgemm"),
    "TorchRec, dense gradients, SGD": ("layer_torchrec.py", "fbgemm"),
}


def contestants(kind: str, rows: int) -> dict[str, dict[str, Contestant]]:
    """What is measured on ids of one kind: forwards, and whole steps."""
    batches = [drawn(kind, rows, seed, IDS) for seed in range(RING)]
    grads = torch.randn(rows, DIM)
    # More than any cache holds of what was written: four times the last level's size.
    ring = max(RING, -(-4 * cache_bytes() // grads.nbytes))
    outputs = [torch.ones(rows, DIM) for _ in range(ring)]
    full = full_table(IDS, DIM)
    forwards: dict[str, Contestant] = {
        "limit: fill the output": lambda turn: outputs[turn % ring].fill_(1.0),
        "limit: read the ids": lambda turn: batches[turn % RING].sum(),
        "nn.Embedding, full table": lambda turn: full(batches[turn % RING]),
    }
    steps = {"nn.Embedding(sparse), full table, SGD": layer_runs(full, batches, grads).step}
    for budget in ("1000x", "100x", "10x"):
        size = IDS // int(budget[:-1])
        trick = nn.Embedding(size, DIM, sparse=True)
        forwards[f"nn.Embedding, hash trick, {budget}"] = lambda turn, trick=trick, size=size: (
            trick(batches[turn % RING] % size)
        )
        trick_step = torch.optim.SGD(trick.parameters(), lr=0.01)
        steps[f"nn.Embedding(sparse), hash trick, {budget}, SGD"] = (
            lambda turn, trick=trick, size=size, optimizer=trick_step: (
                trick(batches[turn % RING] % size).backward(grads),
                optimizer.step(),
                optimizer.zero_grad(),
            )
        )
        for name, words in {
            "product": {},
            "sum": {"fusion": "sum"},
            "skip": {"strategy": "skip"},
            "hashed ids": {"hashed": True},
        }.items():
            if name != "product" and budget != "1000x":
                continue
            words = {"method": "binary-code", **words}
            hashed = words.pop("hashed", False)
            ids = {"num_embeddings": None, "distinct": IDS} if hashed else {"num_embeddings": IDS}
            ours = bitfold.Embedding(**ids, embedding_dim=DIM, budget=budget, **words)
            forwards[f"bitfold {name}, {budget}"] = lambda turn, ours=ours: ours(
                batches[turn % RING]
            )
            if name != "product":
                continue
            for form in ("dense", "sparse", "in the backward"):
                if form == {"1000x": "sparse", "10x": "dense"}.get(budget):
                    continue
                for optimizer in (SGD, RowWiseAdagrad):
                    ours = bitfold.Embedding(
                        IDS, DIM, budget=budget, sparse=form == "sparse", method="binary-code"
                    )
                    runs = layer_runs(ours, batches, grads, optimizer, form == "in the backward")
                    steps[f"bitfold {name}, {budget}, {form}, {optimizer.__name__}"] = runs.step
        # A budget alone: few bits, rounded as they are read in training, packed when they serve.
        ours = bitfold.Embedding(IDS, DIM, budget=budget)
        served = ours.serving()
        forwards[f"bitfold auto, {budget}"] = lambda turn, ours=ours: ours(batches[turn % RING])
        forwards[f"bitfold auto, {budget}, served"] = lambda turn, served=served: served(
            batches[turn % RING]
        )
        runs = layer_runs(ours, batches, grads, RowWiseAdagrad, inside=True)
        steps[f"bitfold auto, {budget}, in the backward, RowWiseAdagrad"] = runs.step
    return {"forward": forwards, "step": steps}


def report(kind: str, phase: str, found: list[Row], console: Console) -> None:
    """Print the table of a phase."""
    heads = ["", "ms", "quartiles", "faster than the full table", "times the fill"]
    made = table(f"{phase}, {kind} ids", heads)
    for row in found:
        if "missing" in row:
            made.add_row(row["name"], row["missing"])
            continue
        over = row.get("times_fill")
        made.add_row(
            row["name"], f"{row['milliseconds']:.2f}", spread(*row["quartiles"]),
            faster(row["times_faster"]), f"{over:.2f}" if over else "",
        )  # fmt: skip
    console.print(made)


def figures(kind: str, phase: str, name: str, taken: list[float], yard: list[float]) -> Row:
    """A contestant's row."""
    low, middle, high = quartiles(taken)
    return {
        "ids": kind, "phase": phase, "name": name, "milliseconds": round(middle, 3),
        "quartiles": [round(low, 3), round(high, 3)],
        "times_faster": round(ratio(yard, taken), 3), "rounds": len(taken),
    }  # fmt: skip


def ours(kind: str, rows: int, rounds: int) -> list[Row]:
    """Forwards and steps in this process."""
    found = []
    for phase, group in contestants(kind, rows).items():
        times, peaks = measure(group, rounds, frozen=phase == "forward")
        yard = next(name for name in times if name.startswith("nn.Embedding"))
        floor = next((name for name in times if name.startswith("limit")), None)
        for name, taken in times.items():
            row = figures(kind, phase, name, taken, times[yard])
            if floor:
                row["times_fill"] = round(ratio(taken, times[floor]), 2)
            found.append({**row, "peak_resident": peaks[name]})
    return found


def rivals(rows: int, rounds: int, threads: int) -> list[Row]:
    """Forwards and steps of the rivals, or why there are none."""
    settings = {"ids": IDS, "rows": rows, "dim": DIM, "rounds": rounds, "threads": threads}
    found = []
    for name, (script, environment) in RIVALS.items():
        told = ask(script, settings, environment)
        if "missing" in told:
            found += [
                {"ids": kind, "phase": phase, "name": name, "missing": told["missing"]}
                for kind in KINDS
                for phase in PHASES
            ]
        for race in told.get("results", ()):
            taken, yard = race["milliseconds"], race[PLAIN]
            row = figures(race["ids"], race["phase"], name, taken, yard)
            peak = told["peak_resident"]
            found.append({**row, "peak_resident": peak, "own_process": True})
    return found


def serving(console: Console, calls: int) -> list[Row]:
    """Latency of lookups of a few rows of 26 fields, beside one `nn.Embedding` of all fields."""
    sizes = [bitfold.Field(f"f{i}", 200_000) for i in range(26)]
    ours = bitfold.EmbeddingCollection(sizes, DIM, budget="100x", method="binary-code").serving()
    theirs = nn.Embedding(26 * 200_000, DIM)
    starts = torch.arange(26) * 200_000
    heads = ["rows", "bitfold p50", "p99", "nn.Embedding p50", "p99", "ratio of p50"]
    made = table("serving, 26 fields of 200,000 ids, microseconds", heads)
    found = []
    with torch.no_grad():
        for rows in (1, 16, 256):
            ids = torch.randint(0, 200_000, (rows, 26))
            runs: list[Callable[[torch.Tensor], object]] = [ours, lambda ids: theirs(ids + starts)]
            pair: list[list[float]] = [[], []]
            for turn in range(calls + 50):
                for taken, run in zip(pair, runs, strict=True):
                    begin = time.perf_counter()
                    run(ids)
                    if turn >= 50:
                        taken.append((time.perf_counter() - begin) * 1e6)
            marks = [statistics.quantiles(taken, n=100) for taken in pair]
            p50, p99 = [mark[49] for mark in marks], [mark[98] for mark in marks]
            row = {"rows": rows, "p50": p50, "p99": p99, "ratio": p50[0] / p50[1]}
            found.append(row)
            made.add_row(
                str(rows), f"{p50[0]:.1f}", f"{p99[0]:.1f}", f"{p50[1]:.1f}", f"{p99[1]:.1f}",
                f"{row['ratio']:.2f}",
            )  # fmt: skip
    console.print(made)
    return found


def main() -> None:
    """Measure, print and write `lookups.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="where to write")
    parser.add_argument("--rounds", type=int, default=15, help="turns of every contestant")
    parser.add_argument("--rows", type=int, default=ROWS, help="ids a batch")
    parser.add_argument("--rival-rounds", type=int, default=5, help="turns of every rival")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of torch")
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    console = Console(width=130)
    theirs = rivals(words.rows, words.rival_rounds, words.threads)
    rows = []
    for kind in KINDS:
        found = ours(kind, words.rows, words.rounds)
        found += [row for row in theirs if row["ids"] == kind]
        for phase in PHASES:
            report(kind, phase, [row for row in found if row["phase"] == phase], console)
        rows += found
    results = {
        "machine": machine(batch=words.rows), "results": rows, "serving": serving(console, 1000),
    }  # fmt: skip
    write(words.out, "lookups", results, console)


if __name__ == "__main__":
    main()
