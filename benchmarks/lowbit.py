"""Pools of few bits beside float32's of as many rows: reads, and steps of training.

    python benchmarks/lowbit.py --out bench-out

One field of 33.7 M ids, width 16, batches of 212,992 uniform ids, two digits fused by product. The
number of rows grows from a thousandth of the ids, where a float32 pool fits a core's cache, to a
tenth, where it leaves the last-level one. A *read* is a forward without gradients: of float32, of
float32 rows that are rounded as they are read (training's forward), and of packed codes (serving).
A *step* is forward, backward of a ready gradient and the optimizer's move, within the backward pass
and from a gradient, of float32 rows that are rounded as they are read and of rows that are codes
while they are trained (`low_precision`). Ratios are medians of each round's ratio to float32 at the
same rows; below 1 is faster. The last table is of few rows of 26 fields, in microseconds.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from layer import DIM, IDS, ROWS
from report import Row, machine, table, write
from rich.console import Console
from turns import RING, Contestant, drawn, measure, quartiles, ratio

import bitfold
from bitfold.kernels.reading import row_bytes
from bitfold.optim import SGD, LazyAdam, RowWiseAdagrad
from bitfold.planning.spec import FEW_BITS

SHARES = (1000, 300, 100, 30, 10)
STEPS = ((RowWiseAdagrad, True), (LazyAdam, True), (SGD, False))  # True: in the backward pass
FLOAT, FIELDS, FIELD_IDS = "float32", 26, 200_000


def collection(rows: int, bits: int | None, **options: bool) -> bitfold.EmbeddingCollection:
    """One field with about so many rows, in two slices, each of its own scales."""
    size = rows * (row_bytes(DIM, bits) if bits else 4 * DIM) + 8 * DIM * bool(bits) + 8
    return bitfold.EmbeddingCollection(
        [bitfold.Field("ids", IDS)], DIM, budget=size, bits=bits, seed=0, method="binary-code",
        **options,
    )  # fmt: skip


def reads(rows: int, batches: list[torch.Tensor]) -> dict[str, Contestant]:
    """Forwards without gradients."""
    modules = {FLOAT: collection(rows, None).eval(), "rounded, 4 bits": collection(rows, 4).eval()}
    modules |= {f"packed, {bits} bits": collection(rows, bits).serving() for bits in FEW_BITS}
    return {
        name: lambda turn, module=module: module(batches[turn % RING])
        for name, module in modules.items()
    }


def steps(
    rows: int, batches: list[torch.Tensor], kind: type, inside: bool
) -> dict[str, Contestant]:
    """Steps of training by an optimizer."""
    grads = torch.randn(ROWS, 1, DIM)

    def step(bits: int | None, **options: bool) -> Contestant:
        module = collection(rows, bits, **options)
        optimizer = kind(module.parameters(), lr=0.01)
        if inside:
            optimizer.into_backward(module)

        def run(turn: int) -> None:
            module(batches[turn % RING]).backward(grads)
            optimizer.step()
            optimizer.zero_grad()

        return run

    rounded = {f"rounded, {bits} bits": step(bits) for bits in (8, 4, 1)}
    codes = {f"codes, {bits} bits": step(bits, low_precision=True) for bits in (8, 4)}
    return {FLOAT: step(None), **rounded, **codes}


def raced(group: dict[str, Contestant], rounds: int, **what: object) -> list[Row]:
    """A row of figures for each contestant."""
    times, _ = measure(group, rounds, frozen=what["phase"] == "read")
    found = []
    for name, taken in times.items():
        figures = {"milliseconds": round(quartiles(taken)[1], 3), "rounds": rounds}
        found.append({**what, "name": name, **figures, "ratio": ratio(taken, times[FLOAT])})
    return found


def few_rows(calls: int) -> list[Row]:
    """Latency of serving a few rows of 26 fields, of as many pool rows."""
    fields = [bitfold.Field(f"f{i}", FIELD_IDS) for i in range(FIELDS)]
    size = FIELDS * FIELD_IDS * DIM * 4 // 100
    modules: dict[str, Callable[[torch.Tensor], object]] = {}
    for bits in (None, 8, 4, 2):
        budget = size * row_bytes(DIM, bits) // (4 * DIM) if bits else size
        made = bitfold.EmbeddingCollection(
            fields, DIM, budget=budget, bits=bits, method="binary-code"
        )
        modules[f"packed, {bits} bits" if bits else FLOAT] = made.serving()
    found = []
    with torch.no_grad():
        for rows in (1, 16, 256):
            ids = torch.randint(0, FIELD_IDS, (rows, FIELDS))
            times: dict[str, list[float]] = {name: [] for name in modules}
            for turn in range(calls + 50):
                for name, module in modules.items():
                    begin = time.perf_counter()
                    module(ids)
                    if turn >= 50:
                        times[name].append((time.perf_counter() - begin) * 1e6)
            middle = {name: statistics.median(taken) for name, taken in times.items()}
            found.append({"rows": rows, "microseconds": middle})
    return found


def shown(title: str, found: list[Row], console: Console) -> None:
    """Print the ratios of a phase: a row a size, a column a contestant."""
    names = list(dict.fromkeys(row["name"] for row in found if row["name"] != FLOAT))
    made = table(title, ["float32 pool", "ids a row", f"{FLOAT}, ms", *names])
    for share in SHARES:
        here = {row["name"]: row for row in found if row["share"] == share}
        made.add_row(
            f"{IDS // share * DIM * 4 / 2**20:,.0f} MiB", str(share),
            f"{here[FLOAT]['milliseconds']:.2f}", *(f"{here[name]['ratio']:.2f}" for name in names),
        )  # fmt: skip
    console.print(made)


def main() -> None:
    """Measure, print and write `lowbit.json`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="where to write")
    parser.add_argument("--rounds", type=int, default=15, help="turns of every contestant")
    parser.add_argument("--calls", type=int, default=2000, help="lookups of a few rows")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of torch")
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    console = Console(width=130)
    batches = [drawn("uniform", ROWS, seed, IDS).unsqueeze(1) for seed in range(RING)]
    results: list[Row] = []
    for share in SHARES:
        group = reads(IDS // share, batches)
        results += raced(group, words.rounds, phase="read", share=share)
    shown("reads: times float32's", results, console)
    for kind, inside in STEPS:
        form = "in the backward" if inside else "from a gradient"
        phase, found = f"step, {kind.__name__}, {form}", []
        for share in SHARES:
            group = steps(IDS // share, batches, kind, inside)
            found += raced(group, words.rounds, phase=phase, share=share)
        shown(f"{phase}: times float32's", found, console)
        results += found
    serving = few_rows(words.calls)
    names = list(serving[0]["microseconds"])
    made = table("serving, 26 fields of 200,000 ids, microseconds", ["rows", *names])
    for row in serving:
        made.add_row(str(row["rows"]), *(f"{row['microseconds'][name]:.1f}" for name in names))
    console.print(made)
    written = {"machine": machine(batch=ROWS), "results": results, "serving": serving}
    write(words.out, "lowbit", written, console)


if __name__ == "__main__":
    main()
