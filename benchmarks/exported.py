"""Exported files beside the models that they come from: wrong rows, bytes, time.

    python -m benchmarks.exported cells --ids 100000000 --out bench-out
    python -m benchmarks.exported models --out bench-out

`cells` runs the addresses of some methods, and every kind of source, over random ids of all 64
bits with the ends of their ranges among them, in chunks, through each runtime that is installed
and eagerly, and counts the rows where a cell is another one. It should say 0. `models` exports
click models, and says their bytes beside those of their weights, the largest difference of a
score, and the time of a batch of 1 and of 1,000 rows, by the median. One thread.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import bitfold
from bitfold import Field
from bitfold.address import Address, Lookup, Mapped, Mixed, Program, Raw, Salted, Stored
from bitfold.exporting.checking import check
from bitfold.exporting.formats import FORMATS, Scorer
from bitfold.exporting.graphs import Graph
from bitfold.exporting.writing import graph_of
from bitfold.kernels.map_building import build_map
from bitfold.nets.building import build_network
from bitfold.nets.model import ClickModel

FIELDS = (Field("user", 4_000_000), Field("item", 900_000), Field("query", distinct=10**9))
PLANNED = {
    "binary-code": {},
    "binary-code, skip": {"method": "binary-code", "strategy": "skip", "code_bits": 61},
    "hash": {},
    "multi-hash": {},
    "quotient-remainder": {},
    "tensor-train": {},
    "unified": {},
}
MODELS = {
    f"{method}, {bits or 32} bits": {"method": method, "bits": bits}
    for method in ("binary-code", "hash")
    for bits in (None, 8, 4, 2)
}
WIDTH, BUDGET, NUMBERS = 16, "16MiB", 4
EDGES = (0, 1, -1, 2**63 - 1, -(2**63), 2**32, -(2**32), 2**24 + 1, 2**53 + 1)


class Cells(nn.Module):
    """The cells `[B, F, C, K]` of ids `[B, F]`."""

    def __init__(self, program: Program, tables: dict[str, Tensor]) -> None:
        super().__init__()
        self.address, self.tables = Address(program), tables

    def forward(self, ids: Tensor) -> Tensor:
        """Run the program."""
        return self.address.cells(ids, None, self.tables)


def sources() -> tuple[Program, dict[str, Tensor]]:
    """A field for each kind of source, and its tables."""
    random = np.random.default_rng(0)
    known = np.unique(random.integers(-(2**63), 2**63 - 1, 100_000))
    held = Mapped("map", len(known), 7, Mixed(9), misses=500)
    fields = (
        (Lookup(Raw(), 997, 3, 11, 5, 1000), Lookup(Raw(), 1 << 10, 0, 1 << 20)),
        (Lookup(Raw(40, 3), 1 << 13, 0), Lookup(Raw(40, 3), 1 << 14, 0, 1 << 13)),
        (Lookup(Mixed(2**64 - 1, 64, 40), 997, 3), Lookup(Mixed(5, 37, 23), 77, 9, 1000)),
        (Lookup(Mixed(3), 1 << 12, 0, 1 << 52), Lookup(Mixed(8, 64, 64, 5), 1 << 30, 0)),
        (Lookup(Mixed(2), 101, 0, 101, leading=True), Lookup(Mixed(4), 1 << 40, 0, leading=True)),
        (Lookup(Stored("five", 3000, 5), 32, 0), Lookup(Stored("all", 70, 40, Mixed(1)), 9, 1)),
        (Lookup(held, held.codes, 0), Lookup(Stored("of map", 90_000, 7, held), 128, 0)),
        (Lookup(Salted("salt", 2**64 - 1, 1000), 1000, 0), Lookup(Salted("more", 1, 9), 9, 5)),
    )
    program = Program(1, fields, 1 << 41)
    tables = {
        name: torch.from_numpy(random.integers(0, 256, shape.bytes).astype(np.uint8))
        for name, shape in program.tables.items()
    }
    return program, tables | {"map": torch.from_numpy(build_map(held.map, known))}


def programs() -> Iterator[tuple[str, Program, dict[str, Tensor]]]:
    """Programs, each with its tables."""
    yield "every source", *sources()
    for name, options in PLANNED.items():
        words: dict[str, Any] = {"method": name, "budget": BUDGET, **options}
        try:
            made = bitfold.plan(FIELDS, WIDTH, **words)
        except bitfold.BitfoldError as error:
            print(f"{name}: left out, {error}")
            continue
        yield name, made.program, {}


def some_ids(program: Program, rows: int, random: np.random.Generator) -> Tensor:
    """Ids `[rows, F]` of all bits; those that are read as they are, from 0 on."""
    ids = torch.from_numpy(
        random.integers(-(2**63), 2**63 - 1, (rows, len(program.fields)), endpoint=True)
    )
    ids[: len(EDGES)] = torch.tensor(EDGES)[:rows].unsqueeze(1)
    raw = [any(isinstance(each.source, Raw) for each in part) for part in program.fields]
    ids[:, raw] &= 2**63 - 1
    return ids


def cells(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Wrong rows of programs, by runtime."""
    return [counted(args, *each) for each in programs()]


def counted(
    args: argparse.Namespace, name: str, program: Program, tables: dict[str, Tensor]
) -> dict[str, Any]:
    """Wrong rows of one program."""
    random = np.random.default_rng(1)
    graph = Graph(
        module=Cells(program, tables),
        names=("ids",),
        output="cells",
        examples=(some_ids(program, 9, random),),
        shapes=({0: torch.export.Dim("batch", min=0)},),
        draw=lambda rows, _: (some_ids(program, rows, random),),
    )
    opened = dict(runtimes(graph))
    wrong, took = dict.fromkeys(opened, 0), dict.fromkeys(["eager", *opened], 0.0)
    total = -(-args.ids // len(program.fields))
    for begin in range(0, total, args.chunk):
        inputs = graph.draw(min(args.chunk, total - begin), torch.Generator())
        wanted, took["eager"] = timed(partial(graph.eager, inputs), took["eager"])
        for runtime, scorer in opened.items():
            work = partial(scorer, [each.numpy() for each in inputs])
            found, took[runtime] = timed(work, took[runtime])
            other = (found != wanted.numpy()).reshape(len(found), -1).any(1)
            wrong[runtime] += int(other.sum())
    row = {"program": name, "rows": total, "ids": total * len(program.fields), "wrong_rows": wrong}
    row["ns_a_row"] = {runtime: round(1e9 * each / total) for runtime, each in took.items()}
    print(json.dumps(row), flush=True)
    return row


def models(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Bytes, differences and times of click models, by runtime."""
    return [scored(args, name, options) for name, options in MODELS.items()]


def scored(args: argparse.Namespace, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Bytes, differences and times of one click model."""
    collection = bitfold.EmbeddingCollection(FIELDS, WIDTH, budget=BUDGET, seed=0, **options)
    network = build_network("deepfm", len(FIELDS), WIDTH, NUMBERS, seed=0)
    graph = graph_of(ClickModel(collection, network).eval(), numbers=NUMBERS)
    batches = [graph.draw(rows, torch.Generator().manual_seed(rows)) for rows in (1, 1000)]
    row: dict[str, Any] = {"model": name, "weights": graph.weights, "bytes": {}, "apart": {}}
    row["us"] = {"eager": [median(partial(graph.eager, each), args.turns) for each in batches]}
    for runtime, scorer in runtimes(graph, row["bytes"]):
        check(graph, scorer, runtime)
        given = [[each.numpy() for each in inputs] for inputs in batches]
        row["us"][runtime] = [median(partial(scorer, each), args.turns) for each in given]
        row["apart"][runtime] = max(
            float(np.abs(scorer(each) - graph.eager(inputs).numpy()).max())
            for each, inputs in zip(given, batches, strict=True)
        )
    print(json.dumps(row), flush=True)
    return row


def runtimes(graph: Graph, sizes: dict[str, int] | None = None) -> Iterator[tuple[str, Scorer]]:
    """The graph as a file of each format that is installed, opened; bytes go into `sizes`."""
    for name, form in FORMATS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"model{form.ending}")
            try:
                form.check()
                form.write(graph, path)
            except bitfold.BitfoldError as error:
                print(f"{name}: left out, {error}")
                continue
            if sizes is not None:
                sizes[name] = path.stat().st_size
            yield name, form.opened(path)


def timed(work: Callable[[], Any], before: float) -> tuple[Any, float]:
    """What it gives, and the seconds with those of before."""
    start = time.perf_counter()
    found = work()
    return found, before + time.perf_counter() - start


def median(work: Callable[[], Any], turns: int) -> float:
    """Microseconds of a call."""
    work()
    times = [timed(work, 0.0)[1] for _ in range(turns)]
    return round(1e6 * statistics.median(times), 1)


def main() -> None:
    """Run one part, print a line of JSON for each subject, and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("cells", "models"))
    parser.add_argument("--ids", type=int, default=10_000_000, help="ids of each program")
    parser.add_argument("--chunk", type=int, default=100_000, help="rows at a time")
    parser.add_argument("--turns", type=int, default=200, help="calls that are timed")
    parser.add_argument("--out", type=Path, default=None, help="a folder for the figures")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = cells(args) if args.part == "cells" else models(args)
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        path = args.out / f"exported-{args.part}.json"
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
