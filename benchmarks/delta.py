"""A day of a stream as a delta: its bytes beside the run's, and how long it takes.

    python benchmarks/delta.py [--rows 400000] [--ids 200000] [--days 4] [--out bench-out/delta]

A synthetic log whose ids are born and die is cut into days. Each form is trained on all days but
the last, then goes on with the last one (`train --from`); the delta is that between the two runs.
Both are made once and kept in `--out`. Seconds are medians of several turns.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import polars as pl

from bitfold.data.config import DataConfig
from bitfold.data.synth.log import SynthConfig, synthesize
from bitfold.files import write_json
from bitfold.runs.delta import apply, delta
from bitfold.runs.options import TrainConfig
from bitfold.training import train

FORMS: dict[str, dict[str, Any]] = {
    "full": {"method": "full"},
    "binary-code, 10x": {"method": "binary-code", "budget": "10x"},
    "binary-code, 10x, 8 bits": {"method": "binary-code", "budget": "10x", "set": {"bits": "8"}},
    "binary-code, 10x, 4 bits": {"method": "binary-code", "budget": "10x", "set": {"bits": "4"}},
    "cafe, 10x": {"method": "cafe", "budget": "10x"},
    "auto, 10x": {"method": "auto", "budget": "10x"},
}
FIELDS = 10


def days_of(said: argparse.Namespace) -> list[Path]:
    """The log's days, a file each."""
    log = said.out / "log.parquet"
    files = [said.out / f"day-{day}.parquet" for day in range(said.days)]
    if not files[-1].exists():
        synthesize(SynthConfig(rows=said.rows, ids=said.ids, days=said.days), log, force=True)
        rows = pl.read_parquet(log)
        day = (rows["time"] - rows["time"][0]) // 86400
        for number, file in enumerate(files):
            rows.filter(day == number).write_parquet(file)
    return files


def pair(name: str, days: list[Path], out: Path) -> tuple[Path, Path]:
    """The runs of a form before and after the last day."""
    place = out / name.replace(", ", "-").replace(" ", "-")
    before, after = place / "before", place / "after"
    data = DataConfig(
        label="label",
        fields=tuple(f"field_{number}" for number in range(FIELDS)),
        numeric=("numeric_0", "numeric_1"),
        split="random:0.9,0.05,0.05",
        ids="vocabulary" if name == "full" else "hashed",
    )
    words = TrainConfig(width=16, network="deepfm", epochs=1, **FORMS[name])
    place.mkdir(parents=True, exist_ok=True)
    if not (before / "manifest.json").exists():
        train(days[:-1], data, words, before, force=True)
    if not (after / "manifest.json").exists():
        train(days[-1:], data, words, after, from_run=before, force=True)
    return before, after


def measured(name: str, days: list[Path], said: argparse.Namespace) -> dict[str, Any]:
    """The figures of one form."""
    before, after = pair(name, days, said.out)
    seconds: dict[str, list[float]] = {"delta": [], "apply": []}
    file, run = said.out / "day.delta", said.out / "applied"
    for _ in range(said.turns):
        begun = time.perf_counter()
        made = delta(before, after, file, force=True)
        between = time.perf_counter()
        apply(before, file, run, force=True)
        seconds["delta"].append(between - begun)
        seconds["apply"].append(time.perf_counter() - between)
    for each in run.iterdir():
        assert each.read_bytes() == (after / each.name).read_bytes()
    return {
        "form": name,
        "run_bytes": made.run_bytes,
        "delta_bytes": made.bytes,
        "files": made.files,
        "same": made.same,
    } | {f"{key}_seconds": statistics.median(each) for key, each in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=lambda text: int(float(text)), default=400_000)
    parser.add_argument("--ids", type=lambda text: int(float(text)), default=200_000)
    parser.add_argument("--days", type=int, default=4)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("bench-out/delta"))
    said = parser.parse_args()
    said.out.mkdir(parents=True, exist_ok=True)
    days, found = days_of(said), []
    print("| form | run, bytes | delta, bytes | share | delta, s | apply, s |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in FORMS:
        row = measured(name, days, said)
        found.append(row)
        share = row["delta_bytes"] / row["run_bytes"]
        print(
            f"| {name} | {row['run_bytes']:,} | {row['delta_bytes']:,} | {share:.0%} "
            f"| {row['delta_seconds']:.2f} | {row['apply_seconds']:.2f} |",
            flush=True,
        )
    write_json(said.out / "delta.json", {"rows": said.rows, "days": said.days, "forms": found})


if __name__ == "__main__":
    main()
