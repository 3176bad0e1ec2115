"""The same rows through every runtime: which scores differ, and what a row costs."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.runtimes.programs import PROGRAMS, Program
from torch import Tensor

from bitfold.exporting.formats import FORMATS, Scorer
from bitfold.exporting.graphs import Graph, Inputs
from bitfold.exporting.quiet import quiet

BATCH = 4096
SLICES = 64  # of a batch each: a chunk
TOLERANCE = 1e-6
WILD = 64  # one row in so many has ids of any bits, where dense ones have none such
RUNTIMES = {"onnx": "ONNX Runtime", "executorch": "ExecuTorch", "pt2": "AOTInductor"}


class Opened:
    """A program with its model, and its files as their runtimes run them.

    Args:
        name: of the program.
        folder: of its files: those that are there are of the same model, and are read.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.program: Program = PROGRAMS[name]
        self.graph: Graph = self.program.graph()
        digest = self.graph.notes["bitfold.digest"][:12]
        self.scorers: dict[str, Scorer] = {}
        self.bytes: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for runtime in RUNTIMES:
            form = FORMATS[runtime]
            path = folder / f"{name.replace(' ', '-')}-{digest}{form.ending}"
            if not path.is_file():
                began = time.perf_counter()
                making = path.with_suffix(".making")
                with quiet():
                    form.write(self.graph, making)
                making.replace(path)
                self.seconds[runtime] = time.perf_counter() - began
            self.bytes[runtime] = path.stat().st_size
            self.scorers[runtime] = form.opened(path)

    def rows(self, generator: torch.Generator) -> tuple[Inputs, np.ndarray]:
        """A batch and its scores: hashed ids of all bits; dense ones in range, and now and then
        any int64, whose rows have no score."""
        inputs = self.graph.draw(BATCH, generator)
        wanted = self.graph.eager(inputs).numpy()
        if self.graph.spoil is None:
            return inputs, wanted
        ids, numbers = inputs
        wild = torch.randint(-(2**63), 2**63 - 1, ids.shape, generator=generator)
        ids = torch.where(torch.arange(BATCH).unsqueeze(1) % WILD == 0, wild, ids)
        sizes = torch.tensor([each.num_embeddings for each in self.program.fields])
        outside = ((ids < 0) | (ids >= sizes)).any(1).numpy()
        return (ids, numbers), np.where(outside, np.float32(np.nan), wanted)

    def chunk(self, number: int) -> dict[str, Any]:
        """Ids, wrong rows and the largest difference of a chunk, the same each time."""
        generator = torch.Generator().manual_seed(1000 + number)
        found: dict[str, Any] = {"ids": 0, "rows": 0, "wrong": {}, "largest": {}}
        for _ in range(SLICES):
            inputs, wanted = self.rows(generator)
            given = [each.numpy() for each in inputs]
            found["ids"] += inputs[0].numel()
            found["rows"] += BATCH
            for runtime, scorer in self.scorers.items():
                wrong, largest = apart(wanted, scorer(given))
                found["wrong"][runtime] = found["wrong"].get(runtime, 0) + wrong
                found["largest"][runtime] = max(found["largest"].get(runtime, 0.0), largest)
        return found

    def speed(self) -> dict[str, dict[str, float]]:
        """Microseconds of one row alone, nanoseconds of a row among `BATCH`: the quickest turn."""
        eager: Callable[[Sequence[np.ndarray]], Any] = self._eager
        calls = {"eager": eager, **self.scorers}
        generator = torch.Generator().manual_seed(2)
        one, many = (
            [each.numpy() for each in self.graph.draw(rows, generator)] for rows in (1, BATCH)
        )
        taken: dict[str, dict[str, list[float]]] = {name: {"one": [], "many": []} for name in calls}
        for _ in range(9):
            for name, call in calls.items():
                taken[name]["one"].append(_seconds(lambda call=call: call(one), 50) * 1e6)
                taken[name]["many"].append(_seconds(lambda call=call: call(many), 2) * 1e9 / BATCH)
        return {
            name: {
                "us_one": min(each["one"]),
                "ns_many": min(each["many"]),
            }
            for name, each in taken.items()
        }

    def _eager(self, inputs: Sequence[np.ndarray]) -> Tensor:
        return self.graph.eager(tuple(torch.from_numpy(each) for each in inputs))


def apart(wanted: np.ndarray, found: np.ndarray) -> tuple[int, float]:
    """How many scores differ by more than rounding, or are numbers on one side alone; by how much.

    Example:
        >>> apart(np.array([0.5, np.nan, 0.1]), np.array([0.5, 0.2, 0.1]))
        (1, 0.0)
    """
    difference = np.abs(wanted.astype(np.float64) - found)
    neither = np.isnan(wanted) & np.isnan(found)
    wrong = ~neither & ~(difference <= TOLERANCE)
    both = difference[~np.isnan(difference)]
    return int(wrong.sum()), float(both.max(initial=0.0))


def _seconds(call: Callable[[], Any], times: int) -> float:
    call()
    began = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - began) / times


def added(record: dict[str, Any], chunk: dict[str, Any]) -> dict[str, Any]:
    """A program's figures with those of one more chunk."""
    made = dict(record)
    for name in ("ids", "rows"):
        made[name] = record.get(name, 0) + chunk[name]
    made["chunks"] = record.get("chunks", 0) + 1
    wrong, largest = record.get("wrong", {}), record.get("largest", {})
    made["wrong"] = {key: wrong.get(key, 0) + value for key, value in chunk["wrong"].items()}
    made["largest"] = {
        key: max(largest.get(key, 0.0), value) for key, value in chunk["largest"].items()
    }
    return made
