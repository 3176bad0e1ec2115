"""Lookups and training steps beside `nn.Embedding` and the machine's own limits, in one run.

    python benchmarks/lookups.py --out bench-out

One field of 33.7 M ids, width 16, batches of 212,992 ids, uniform and Zipf (exponent 1.05). A
forward is timed with its output freed at once; a step is forward, backward of a ready gradient,
optimizer and `zero_grad`. Times are medians over rounds in which every contestant takes its turn
(twice, the second is timed), so what else the machine does strikes all of them; ratios are
medians of each round's ratio. The limits: filling a ring of outputs that are larger than the
last-level cache and already mapped, and adding up the ids.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import bitfold
from bitfold.optim import SGD, RowWiseAdagrad

IDS, ROWS, DIM = 33_700_000, 212_992, 16
RING = 4
Contestant = Callable[[int], object]


def drawn(kind: str, count: int, seed: int) -> torch.Tensor:
    """Ids, uniform or by Zipf's law; their numbers are in order of frequency."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "uniform":
        return torch.randint(0, IDS, (count,), generator=generator)
    exponent = 1 - 1.05
    unit = torch.rand(count, generator=generator, dtype=torch.float64)
    ranks = (1 + unit * ((IDS + 1.0) ** exponent - 1)) ** (1 / exponent)
    return (ranks.long() - 1).clamp(0, IDS - 1)


def stepper(module: nn.Module, optimizer: torch.optim.Optimizer, batches, grads) -> Contestant:
    """One training step of a layer."""

    def step(turn: int) -> None:
        module(batches[turn % RING]).backward(grads)
        optimizer.step()
        optimizer.zero_grad()

    return step


def contestants(kind: str, rows: int) -> dict[str, dict[str, Contestant]]:
    """What is measured on ids of one kind: forwards, and whole steps."""
    batches = [drawn(kind, rows, seed) for seed in range(RING)]
    grads = torch.randn(rows, DIM)
    outputs = [torch.ones(rows, DIM) for _ in range(RING)]
    full = nn.Embedding(IDS, DIM, sparse=True)
    forwards: dict[str, Contestant] = {
        "limit: fill the output": lambda turn: outputs[turn % RING].fill_(1.0),
        "limit: read the ids": lambda turn: batches[turn % RING].sum(),
        "nn.Embedding, full table": lambda turn: full(batches[turn % RING]),
    }
    steps = {
        "nn.Embedding(sparse), full table, SGD": stepper(
            full, torch.optim.SGD(full.parameters(), lr=0.01), batches, grads
        )
    }
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
            words = dict(words)
            hashed = words.pop("hashed", False)
            ids = {"num_embeddings": None, "distinct": IDS} if hashed else {"num_embeddings": IDS}
            ours = bitfold.Embedding(**ids, embedding_dim=DIM, budget=budget, **words)
            forwards[f"bitfold {name}, {budget}"] = lambda turn, ours=ours: ours(
                batches[turn % RING]
            )
            if name != "product":
                continue
            for sparse in (False, True):
                if budget == ("10x" if not sparse else "1000x"):
                    continue
                ours = bitfold.Embedding(IDS, DIM, budget=budget, sparse=sparse)
                for optimizer in (SGD, RowWiseAdagrad):
                    form = "sparse" if sparse else "dense"
                    steps[f"bitfold {name}, {budget}, {form}, {optimizer.__name__}"] = stepper(
                        ours, optimizer(ours.parameters(), lr=0.01), batches, grads
                    )
    return {"forward": forwards, "step": steps}


def measure(
    group: dict[str, Contestant], rounds: int, frozen: bool
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Milliseconds of each contestant in each round, and the peak resident bytes after it."""
    times: dict[str, list[float]] = {name: [] for name in group}
    peaks = {}
    with torch.set_grad_enabled(not frozen):
        for name, run in group.items():  # compile, map, warm up
            run(0)
            run(1)
            peaks[name] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        for turn in range(rounds):
            for name, run in group.items():
                run(turn)  # so that nobody starts with what the one before left in the caches
                begin = time.perf_counter()
                run(turn + 1)
                times[name].append((time.perf_counter() - begin) * 1e3)
    return times, peaks


def report(kind: str, phase: str, times: dict[str, list[float]], console: Console) -> list[dict]:
    """Print a table, and return its rows."""
    yard = next(name for name in times if name.startswith("nn.Embedding"))
    floor = next((name for name in times if name.startswith("limit")), None)
    table = Table(title=f"{phase}, {kind} ids", title_justify="left")
    for head in ("", "ms", "quartiles", "faster than the full table", "times the fill"):
        table.add_column(head, justify="left" if not head else "right")
    rows = []
    for name, taken in times.items():
        low, middle, high = statistics.quantiles(taken, n=4)
        ahead = statistics.median(a / b for a, b in zip(times[yard], taken, strict=True))
        over = floor and statistics.median(b / a for a, b in zip(times[floor], taken, strict=True))
        rows.append(
            {
                "ids": kind, "phase": phase, "name": name, "milliseconds": round(middle, 3),
                "quartiles": [round(low, 3), round(high, 3)], "times_faster": round(ahead, 2),
                "times_fill": over and round(over, 2), "rounds": len(taken),
            }
        )  # fmt: skip
        shown = "" if not over else f"{over:.2f}"
        table.add_row(name, f"{middle:.2f}", f"{low:.2f} - {high:.2f}", f"{ahead:.1f}x", shown)
    console.print(table)
    return rows


def serving(console: Console, calls: int) -> list[dict]:
    """Latency of lookups of a few rows of 26 fields, beside one `nn.Embedding` of all fields."""
    sizes = [bitfold.Field(f"f{i}", 200_000) for i in range(26)]
    ours = bitfold.EmbeddingCollection(sizes, DIM, budget="100x").serving()
    theirs = nn.Embedding(26 * 200_000, DIM)
    starts = torch.arange(26) * 200_000
    table = Table(title="serving, 26 fields of 200,000 ids, microseconds", title_justify="left")
    for head in ("rows", "bitfold p50", "p99", "nn.Embedding p50", "p99", "ratio of p50"):
        table.add_column(head, justify="right")
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
            table.add_row(
                str(rows), f"{p50[0]:.1f}", f"{p99[0]:.1f}", f"{p50[1]:.1f}", f"{p99[1]:.1f}",
                f"{row['ratio']:.2f}",
            )  # fmt: skip
    console.print(table)
    return found


def main() -> None:
    """Measure, print and write `lookups.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="where to write")
    parser.add_argument("--rounds", type=int, default=15, help="turns of every contestant")
    parser.add_argument("--rows", type=int, default=ROWS, help="ids a batch")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of torch")
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    console = Console(width=120)
    rows = []
    for kind in ("uniform", "zipf"):
        for phase, group in contestants(kind, words.rows).items():
            times, peaks = measure(group, words.rounds, phase == "forward")
            found = report(kind, phase, times, console)
            rows += [{**row, "peak_resident": peaks[row["name"]]} for row in found]
    machine = {
        "threads": words.threads, "cpu": platform.processor() or platform.machine(),
        "torch": torch.__version__, "bitfold": bitfold.__version__, "batch": words.rows,
    }  # fmt: skip
    results = {"machine": machine, "results": rows, "serving": serving(console, 1000)}
    words.out.mkdir(parents=True, exist_ok=True)
    (words.out / "lookups.json").write_text(json.dumps(results, indent=1) + "\n")
    console.print(f"written: {words.out / 'lookups.json'}")


if __name__ == "__main__":
    main()
