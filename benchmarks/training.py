"""Training a whole DeepFM: bitfold, plain PyTorch and three libraries; rows a second.

    python benchmarks/training.py --out bench-out

Hidden layers of 200 and 200, width 16, batches of 4,096 rows, Adam with a rate of 1e-3; no dropout,
no penalties on weights. Ids and labels are random, made once and ready in memory; a step is
forward, loss, backward and optimizer. Each contestant runs in a process of its own (a rival in its
own environment), and beside it, in the same rounds, the yardsticks: plain PyTorch's DeepFM (one
`nn.Embedding(sparse=True)` with SparseAdam, Adam for the network), and the ceilings, which are the
network alone on ready vectors, without and with their gradient. So ratios to a yardstick compare
across processes. Peak memory is the process's with the contestant alone in it.
"""

import argparse
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from deepfm import CEILING, CEILING_GRAD, PLAIN
from process import ask
from report import Row, machine, mebibytes, spread, table, write
from rich.console import Console
from turns import quartiles, ratio

CASES = {
    "26 fields of 200,000 ids": [200_000] * 26,
    "the size of ml-1m, 13,296 ids in 7 fields": [6040, 3706, 3439, 81, 21, 7, 2],
}
BATCH, DIM, HIDDEN = 4096, 16, [200, 200]


@dataclass(frozen=True)
class Entry:
    """A contestant: the script that runs it, whose environment it needs, what it is told."""

    name: str
    script: str
    rival: str | None = None
    words: dict[str, Any] = field(default_factory=dict)


def _plain(name: str, form: str) -> Entry:
    return Entry(name, "training_plain.py", words={"form": form})


def _ours(name: str, method: str, budget: str | None, optimizer: str) -> Entry:
    words = {"method": method, "budget": budget, "optimizer": optimizer}
    return Entry(f"bitfold {name}", "training_bitfold.py", words=words)


NETWORK = _plain("ceiling: the network alone, no embedding", CEILING)
SPARSE = _plain("plain PyTorch, sparse, SparseAdam", "sparse")
OURS = (
    _ours("100x, Adam of all rows", "binary-code", "100x", "adam"),
    _ours("100x, sparse, LazyAdam", "binary-code", "100x", "lazy-adam"),
    _ours(
        "100x, LazyAdam in the backward, as `bitfold train`",
        "binary-code",
        "100x",
        "lazy-adam-inside",
    ),
)
AUTO = (
    _ours(
        "auto, 100x, LazyAdam in the backward, as `bitfold train`",
        "auto",
        "100x",
        "lazy-adam-inside",
    ),
    _ours(
        "auto, 10x, LazyAdam in the backward, as `bitfold train`",
        "auto",
        "10x",
        "lazy-adam-inside",
    ),
)
RIVALS = (
    Entry("DeepCTR-Torch", "training_deepctr_torch.py", "deepctr-torch"),
    Entry("torch-rechub (with batch norm)", "training_torch_rechub.py", "torch-rechub"),
    Entry("FuxiCTR (with clipped gradients)", "training_fuxictr.py", "fuxictr"),
)
ENTRIES = (
    NETWORK,
    _plain("ceiling, and the gradient of its vectors", CEILING_GRAD),
    *OURS,
    *AUTO,
    _ours("full, Adam of all rows", "full", None, "adam"),
    _ours("full, LazyAdam in the backward, as `bitfold train`", "full", None, "lazy-adam-inside"),
    SPARSE,
    _plain("plain PyTorch, dense, Adam(fused)", "dense fused"),
    _plain("plain PyTorch, dense, Adam", "dense"),
    *RIVALS,
)


def run_case(case: str, entries: tuple[Entry, ...], rounds: int, threads: int) -> list[Row]:
    """The figures of each contestant, or why it has none."""
    rows = []
    for entry in entries:
        settings = {
            "sizes": CASES[case], "dim": DIM, "hidden": HIDDEN, "batch": BATCH,
            "rounds": rounds, "threads": threads, **entry.words,
        }  # fmt: skip
        found = ask(entry.script, settings, entry.rival)
        row: Row = {"case": case, "name": entry.name}
        if "missing" in found:
            rows.append({**row, "missing": found["missing"]})
            continue
        low, middle, high = quartiles(found["milliseconds"])
        row |= {
            "rows_per_second": round(BATCH / middle * 1e3), "milliseconds": round(middle, 3),
            "quartiles": [round(low, 3), round(high, 3)], "rounds": rounds,
            "times_plain": round(ratio(found[PLAIN], found["milliseconds"]), 4),
            "of_ceiling": round(ratio(found[CEILING], found["milliseconds"]), 4),
            "of_ceiling_grad": round(ratio(found[CEILING_GRAD], found["milliseconds"]), 4),
            "plain_milliseconds": round(quartiles(found[PLAIN])[1], 3),
            "peak_resident": found["peak_resident"], "peak_before": found["before"],
        }  # fmt: skip
        rows.append(row)
    return rows


def show(case: str, rows: list[Row], console: Console) -> None:
    """Print the table of a case."""
    heads = [
        "", "rows/s", "ms a step", "quartiles", "times plain PyTorch", "of the ceiling",
        "with gradient", "peak, MiB",
    ]  # fmt: skip
    made = table(f"DeepFM, {case}", heads)
    for row in rows:
        if "missing" in row:
            made.add_row(row["name"], row["missing"])
            continue
        made.add_row(
            row["name"], f"{row['rows_per_second']:,}", f"{row['milliseconds']:.1f}",
            spread(*row["quartiles"]), f"{row['times_plain']:.2f}x", f"{row['of_ceiling']:.0%}",
            f"{row['of_ceiling_grad']:.0%}", mebibytes(row["peak_resident"]),
        )  # fmt: skip
    console.print(made)


def targets(rows: list[Row]) -> list[Row]:
    """What we want to reach, and how far we are, by ratios to the common yardsticks."""
    measured = {(row["case"], row["name"]): row for row in rows if "missing" not in row}
    large, small = CASES
    found = []

    def best(case: str, entries: tuple[Entry, ...], yardstick: str) -> tuple[float, str]:
        reached = [
            (measured[case, entry.name][yardstick], entry.name)
            for entry in entries
            if (case, entry.name) in measured
        ]
        return max(reached, default=(float("nan"), "none ran"))

    for case, others, least in (
        (large, RIVALS, 6.0),
        (large, (SPARSE,), 2.0),
        (small, RIVALS, 1.2),
    ):
        (ours, form), (theirs, against) = (
            best(case, entries, "times_plain") for entries in (OURS, others)
        )
        found.append(_target(case, form, against, least, ours / theirs))
    for case in CASES:
        ours, form = best(case, OURS, "of_ceiling")
        found.append(_target(case, form, NETWORK.name, 0.85, ours))
    return found


def _target(case: str, ours: str, against: str, least: float, reached: float) -> Row:
    return {
        "case": case, "ours": ours, "against": against, "target": least,
        "reached": round(reached, 3) if reached == reached else None,
    }  # fmt: skip


def main() -> None:
    """Measure, print and write `training.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="where to write")
    parser.add_argument("--rounds", type=int, default=9, help="turns of every contestant")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of torch")
    parser.add_argument("--only", default="", help="contestants whose name holds this")
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    console = Console(width=130)
    entries = tuple(entry for entry in ENTRIES if words.only in entry.name)
    rows = []
    for case in CASES:
        found = run_case(case, entries, words.rounds, words.threads)
        show(case, found, console)
        rows += found
    wanted = targets(rows)
    made = table("targets: the best form of bitfold at 100x", ["", "against", "target", "reached"])
    for row in wanted:
        shown = "not measured" if row["reached"] is None else f"{row['reached']:.2f}x"
        made.add_row(row["case"], row["against"], f"{row['target']}x", shown)
    console.print(made)
    results = {"machine": machine(batch=BATCH), "results": rows, "targets": wanted}
    write(words.out, "training", results, console)


if __name__ == "__main__":
    main()
