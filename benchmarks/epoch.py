"""Where an epoch's time goes: the reader alone, the step alone, both together, and the top costs.

    python benchmarks/epoch.py --ml1m DATA/ml-1m/ml1m_labels.csv.gz --out bench-out

A DeepFM at a hundredth of the bytes, as `bitfold train` builds and moves it, on two logs: ml-1m
(seven fields; left out, loudly, without `--ml1m`), and 26 fields of 33.7 M dense ids, drawn by
Zipf's law. Logs are prepared once into `OUT/epoch`.
"""

import argparse
import itertools
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from report import machine, table, write
from rich.console import Console
from torch.profiler import ProfilerActivity, profile

from bitfold.data.batch import Batch
from bitfold.data.config import DataConfig
from bitfold.data.prepare import prepare
from bitfold.data.prepared import PreparedLog, is_prepared
from bitfold.embedding import EmbeddingCollection
from bitfold.nets.model import click_loss
from bitfold.optim import RowOptimizer
from bitfold.runs.folder import build_model
from bitfold.training import TrainConfig
from bitfold.training.optimizers import make_optimizers
from bitfold.training.rows import TrainingRows

FIELDS, IDS, ROWS = 26, 33_700_000, 1_000_000
STEPS, WARM, TOP = 100, 5, 8


def synthetic(folder: Path) -> PreparedLog:
    """A million rows of 26 fields, whose sizes go from 20 to 15 million by one factor."""
    log = folder / "wide"
    if not is_prepared(log):
        shares = np.geomspace(1, 750_000, FIELDS)
        sizes = np.maximum(20, (shares / shares.sum() * IDS).astype(np.int64))
        draw = np.random.default_rng(0)
        columns: dict[str, Any] = {}
        for field, size in enumerate(sizes):
            ids = np.minimum(draw.zipf(1.05, ROWS) - 1, size - 1)
            ids[0] = size - 1  # so that the field has all its ids
            columns[f"f{field}"] = ids
        columns["click"] = draw.integers(0, 2, ROWS)
        folder.mkdir(parents=True, exist_ok=True)
        raw = folder / "wide.parquet"
        pl.DataFrame(columns).write_parquet(raw)
        fields = tuple(name for name in columns if name != "click")
        config = DataConfig(
            label="click", fields=fields, ids="dense", split="random:0.98,0.01,0.01"
        )
        prepare([raw], log, config)
    return PreparedLog(log)


def ml1m(folder: Path, raw: Path) -> PreparedLog:
    """The ratings with seven fields."""
    log = folder / "ml1m"
    if not is_prepared(log):
        fields = ("user_id", "movie_id", "gender", "age", "occupation", "zip", "year")
        config = DataConfig(
            label="label_ge4", fields=fields, ids="vocabulary", split="random:0.8,0.1,0.1"
        )
        prepare([raw], log, config)
    return PreparedLog(log)


class Step:
    """The training step of `bitfold train`, without its loop."""

    def __init__(self, log: PreparedLog, words: TrainConfig) -> None:
        collection = EmbeddingCollection(
            log.schema.embedding_fields(), words.width, method=words.method, budget=words.budget
        )
        self.model = build_model(collection, log.schema, words, seed=0)
        self.optimizers = make_optimizers(self.model, words)
        for optimizer in self.optimizers:
            if isinstance(optimizer, RowOptimizer):
                optimizer.into_backward(self.model.embeddings)

    def __call__(self, batch: Batch) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        logits = self.model.logits(batch.ids, batch.offsets, batch.numeric)
        assert batch.labels is not None
        click_loss(logits, batch.labels, batch.weights).backward()
        for optimizer in self.optimizers:
            optimizer.step()


def rate(batches: Any, use: Any) -> float:
    """Rows a second."""
    begin, rows = time.perf_counter(), 0
    for batch in batches:
        use(batch)
        rows += batch.rows
    return rows / (time.perf_counter() - begin)


def look(log: PreparedLog, words: TrainConfig) -> dict[str, Any]:
    """The figures of one log."""
    rows = TrainingRows(log)

    def batches() -> Any:
        return rows.batches("train", words.batch_size, shuffle_seed=0)

    step = Step(log, words)
    ready = list(itertools.islice(batches(), STEPS))
    for batch in ready[:WARM]:
        step(batch)
    found: dict[str, Any] = {
        "rows": rows.count("train"),
        "bytes": sum(step.model.embeddings.bytes().values()),  # type: ignore[operator]
        "reader_alone": rate(batches(), lambda batch: None),
        "step_alone": rate(ready, step),
        "together": rate(batches(), step),
    }
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for batch in ready:
            step(batch)
    events = profiler.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    events.sort(key=lambda event: -event.self_cpu_time_total)
    found["top"] = {event.key: event.self_cpu_time_total / total for event in events[:TOP]}
    return found


def main() -> None:
    """Measure, print, write `epoch.json`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="where to write")
    parser.add_argument("--ml1m", type=Path, help="ml-1m's ratings with all fields and a label")
    parser.add_argument("--batch", type=int, default=4096, help="rows a batch")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of torch")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    console = Console(width=110)
    words = TrainConfig(budget="100x", hidden=(200, 200), batch_size=given.batch)
    folder, logs = given.out / "epoch", {}
    if given.ml1m is None:
        console.print("ml-1m is left out: say --ml1m FILE", style="yellow")
    else:
        logs["ml-1m, 7 fields"] = ml1m(folder, given.ml1m)
    logs["26 fields, 33.7 M ids"] = synthetic(folder)
    results = {}
    shown = table(
        "rows a second", ["log", "reader alone", "step alone", "together", "reader / step"]
    )
    for name, log in logs.items():
        found = results[name] = look(log, words)
        kilo = [f"{found[key] / 1e3:,.0f} k" for key in ("reader_alone", "step_alone", "together")]
        shown.add_row(name, *kilo, f"{found['reader_alone'] / found['step_alone']:.1f}")
        costs = table(f"{name}: what the step's time goes to", ["", "share"])
        for key, share in found["top"].items():
            costs.add_row(key, f"{share:.1%}")
        console.print(costs)
    console.print(shown)
    write(given.out, "epoch", {"machine": machine(batch=given.batch), "results": results}, console)


if __name__ == "__main__":
    main()
