"""What a code costs: a mixed id, a place in a compact map, a stored integer.

    python benchmarks/codes.py

For fields of growing size: nanoseconds an id of a forward and of a training step (SGD within the
backward pass), the rest of the lookup the same; the map's bits an id, and what building it takes.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import machine, table, write
from rich.console import Console
from turns import RING, Contestant, measure, quartiles

from bitfold import Field, Plan
from bitfold.address import Lookup, Mapped, Mixed, Program, Source, Stored
from bitfold.embedder.corridor import Corridor
from bitfold.kernels.map_building import build_map
from bitfold.optim import SGD
from bitfold.planning.spec import Group, PoolSpec, StoredSpec

DIM, ROWS, POOL = 16, 212_992, 4096  # rows of the pool: small, so that codes are what differs
SIZES = (13_296, 1_000_000, 10_000_000)
UNSEEN = 0.1
Row = dict[str, Any]


def layer(source: Source, tables: dict[str, torch.Tensor]) -> Corridor:
    """A layer of one lookup from that source; every digit falls on a pool of the same size."""
    leading = isinstance(source, Mixed)
    program = Program(1, ((Lookup(source, POOL, 0, leading=leading),),), POOL)
    stored = tuple(StoredSpec(*each) for each in program.tables.values())
    pools = (PoolSpec("pool", POOL, DIM),)
    group = Group((0,), "hash", 1, {}, program, pools, stored, width=DIM)
    fields = (Field("query", distinct=1),)
    made = Corridor(Plan(fields, DIM, None, "hash", {}, (group,)), std=0.1, seed=0)
    for name, each in tables.items():
        made.stored.put(name, each)
    made.waits = False
    return made


def forms(ids: np.ndarray) -> tuple[dict[str, Corridor], float]:
    """A layer for each kind of source, and the seconds that the map took."""
    mapped = Mapped("map", len(ids), 7, Mixed(9), misses=8)
    begin = time.perf_counter()
    built = torch.from_numpy(build_map(mapped.map, ids))
    seconds = time.perf_counter() - begin
    pointers = Stored("pointers", len(ids), 12, Mixed(5))
    over = Stored("pointers", len(ids) + 8, 12, mapped)
    drawn = torch.randint(0, 256, (over.tables[0].bytes,), dtype=torch.uint8)
    return {
        "mixed": layer(Mixed(3), {}),
        "mapped": layer(mapped, {"map": built}),
        "stored at a bucket": layer(pointers, {"pointers": drawn[: pointers.tables[0].bytes]}),
        "stored at a place": layer(over, {"map": built, "pointers": drawn}),
    }, seconds


def contestants(module: Corridor, batches: list[torch.Tensor]) -> dict[str, Contestant]:
    """A forward, and a step."""
    optimizer, grads = SGD(module.parameters(), lr=0.01), torch.randn(ROWS, 1, DIM)
    optimizer.into_backward(module)

    def forward(turn: int) -> object:
        with torch.no_grad():
            return module(batches[turn % RING])

    def step(turn: int) -> None:
        module(batches[turn % RING]).backward(grads)

    return {"forward": forward, "step": step}


def measured(size: int, rounds: int) -> tuple[list[Row], Row]:
    """Nanoseconds an id of every form, and the map's figures."""
    drawn = np.random.default_rng(0)
    ids = drawn.integers(-(2**63), 2**63 - 1, size)
    layers, seconds = forms(ids)
    known = [torch.from_numpy(ids[drawn.integers(0, size, ROWS)]).unsqueeze(1) for _ in range(RING)]
    mixed = [torch.where(torch.rand(ROWS, 1) < UNSEEN, each ^ 1, each) for each in known]
    rows = []
    for batches, kind in ((known, "known"), (mixed, "a tenth unseen")):
        group = {
            f"{name}: {phase}": run
            for name, module in layers.items()
            for phase, run in contestants(module, batches).items()
        }
        times, _ = measure(group, rounds)
        for name, taken in times.items():
            source, _, phase = name.partition(": ")
            nanoseconds = quartiles(taken)[1] * 1e6 / ROWS
            where = {"ids": size, "kind": kind, "source": source, "phase": phase}
            rows.append({**where, "nanoseconds": nanoseconds})
    bits = 8 * layers["mapped"].plan.group.stored[0].bytes / size
    return rows, {"ids": size, "bits": bits, "seconds": seconds}


def main() -> None:
    """Measure, print, write `codes.json`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="where to write")
    parser.add_argument("--rounds", type=int, default=9, help="turns of every contestant")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    build_map(Mapped("map", 9, 7, Mixed(9)).map, np.arange(9))  # compiled before it is timed
    console, results, maps = Console(width=110), [], []
    for size in SIZES:
        rows, built = measured(size, words.rounds)
        results += rows
        maps.append(built)
        console.print(
            f"{size:,} ids: a map of {built['bits']:.2f} bits each, {built['seconds']:.2f} s"
        )
    shown = table("nanoseconds an id", ["ids", "which", "source", "forward", "step"])
    for one, two in zip(results[::2], results[1::2], strict=True):
        cells = [f"{each['nanoseconds']:.2f}" for each in (one, two)]
        shown.add_row(f"{one['ids']:,}", one["kind"], one["source"], *cells)
    console.print(shown)
    figures = {"machine": machine(batch=ROWS), "results": results, "maps": maps}
    write(words.out, "codes", figures, console)


if __name__ == "__main__":
    main()
