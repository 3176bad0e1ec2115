"""What a lookup costs as one thing grows: ids, width, blocks, batch, threads.

    python benchmarks/scaling.py --out bench-out

Nanoseconds for an id, forward and whole step (forward, backward of a ready gradient, SGD), of
`bitfold.Embedding` by binary code in a pool of 5 MiB that does not grow (but with the width), whose
rows move within the backward pass; and of `nn.Embedding` on the full table (sparse gradients) where
that takes 4.5 GiB at most. Uniform ids. Where it is not what grows: 33.7 M ids, width 16, two
blocks, batches of 212,992 ids, all threads. Turns as in lookups.py; a turn repeats small batches.
"""

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from layer import PHASES, Row, Runs, full_table, layer_runs
from report import machine, table, write
from rich.console import Console
from torch import nn
from turns import RING, Contestant, drawn, measure, quartiles

import bitfold
from bitfold.optim import SGD

POOL = 5 * 2**20
MOST_FULL = 9 * 2**29  # bytes
IDS_A_TURN = 256
OURS, FULL = "bitfold", "nn.Embedding"


@dataclass(frozen=True)
class Setting:
    """One point: what is looked up, how, and how much at a time."""

    ids: int = 33_700_000
    dim: int = 16
    blocks: int = 2
    batch: int = 212_992
    threads: int = 0

    @property
    def budget(self) -> int:
        """Bytes of the pool: as many rows at any width."""
        return POOL * self.dim // 16


def subjects(threads: int) -> Iterator[tuple[str, str, list[Setting]]]:
    """What grows, the setting's word for it, and the points."""
    base = Setting(threads=threads)
    some = tuple(dict.fromkeys((1, threads)))
    for subject, word, values in (
        ("ids", "ids", [10**power for power in range(5, 10)]),
        ("width", "dim", [4, 8, 16, 32, 64, 128]),
        ("blocks", "blocks", list(range(1, 7))),
        ("batch", "batch", [10**power for power in range(7)]),
        ("threads", "threads", some),
    ):
        yield subject, word, [replace(base, **{word: value}) for value in values]


def ours(setting: Setting) -> nn.Module:
    """Binary code. One block cannot tell so many ids apart: that is the hash trick."""
    words: dict[str, Any] = {"blocks": setting.blocks}
    if setting.blocks == 1:
        words = {"method": "hash"}
    return bitfold.Embedding(setting.ids, setting.dim, budget=setting.budget, **words)


def repeated(run: Contestant, setting: Setting) -> Contestant:
    """A turn of small batches, long enough to be timed, on the setting's threads."""
    times = max(1, IDS_A_TURN // setting.batch)

    def turn(number: int) -> None:
        torch.set_num_threads(setting.threads)
        for time in range(times):
            run(number + time)

    return turn


def point(setting: Setting, full: nn.Module | None, rounds: int) -> list[Row]:
    """Nanoseconds an id of ours, and of the full table if there is one."""
    batches = [drawn("uniform", setting.batch, seed, setting.ids) for seed in range(RING)]
    grads = torch.randn(setting.batch, setting.dim)
    group: dict[str, Runs] = {OURS: layer_runs(ours(setting), batches, grads, SGD, inside=True)}
    if full is not None:
        group[FULL] = layer_runs(full, batches, grads)
    found = []
    count = setting.batch * max(1, IDS_A_TURN // setting.batch)
    for place, phase in enumerate(PHASES):
        runs = {name: repeated(pair[place], setting) for name, pair in group.items()}
        times, peaks = measure(runs, rounds, frozen=phase == "forward")
        for name, taken in times.items():
            low, middle, high = (each * 1e6 / count for each in quartiles(taken))
            found.append(
                {
                    "name": name, "phase": phase, "nanoseconds": round(middle, 3),
                    "quartiles": [round(low, 3), round(high, 3)], "rounds": rounds,
                    "peak_resident": peaks[name],
                }
            )  # fmt: skip
    return found


class FullTables:
    """The full table of a setting, made anew only when the setting needs another."""

    def __init__(self) -> None:
        self.made: nn.Module | None = None
        self.shape = (0, 0)

    def of(self, setting: Setting) -> nn.Module | None:
        """None if it would be too large."""
        if 4 * setting.ids * setting.dim > MOST_FULL:
            return None
        if self.shape != (setting.ids, setting.dim):
            self.made = None  # gone before the next one comes
            self.made = full_table(setting.ids, setting.dim)
            self.shape = setting.ids, setting.dim
        return self.made


def show(subject: str, word: str, rows: list[Row], console: Console) -> None:
    """Print the table of a subject."""
    heads = [subject, *(f"{name}, {phase}" for phase in PHASES for name in (OURS, FULL))]
    made = table(f"nanoseconds an id as the {subject} grow", heads)
    for value in dict.fromkeys(row[word] for row in rows):
        cells = {
            (row["name"], row["phase"]): f"{row['nanoseconds']:.1f}"
            for row in rows
            if row[word] == value
        }
        wanted = [(name, phase) for phase in PHASES for name in (OURS, FULL)]
        made.add_row(f"{value:,}", *(cells.get(cell, "not run") for cell in wanted))
    console.print(made)


def main() -> None:
    """Measure, print and write `scaling.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="where to write")
    parser.add_argument("--rounds", type=int, default=9, help="turns of every contestant")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of torch")
    words = parser.parse_args()
    console = Console(width=130)
    tables, rows = FullTables(), []
    for subject, word, settings in subjects(words.threads):
        found: list[Row] = []
        for setting in settings:
            facts = {"subject": subject, "word": word, **vars(setting)}
            measured = point(setting, tables.of(setting), words.rounds)
            found += [{**facts, **row} for row in measured]
        show(subject, word, found, console)
        rows += found
    torch.set_num_threads(words.threads)
    write(words.out, "scaling", {"machine": machine(pool=POOL), "results": rows}, console)


if __name__ == "__main__":
    main()
