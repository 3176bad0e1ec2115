"""The first score of a fresh process, stage by stage: with kernels on the disk, and without.

    python benchmarks/cold_start.py [--turns 5] [--run RUN] [--out bench-out/cold-start]

Each turn starts three processes, in an order drawn anew: a warm cache (`bitfold warm`), an empty
one, and an empty one in which the first score waits for the kernels, as training and files of
scores do. Seconds are medians over the turns, of the clock and of the processor: on a busy machine
the clock has the others' work in it.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CHILD = """
import json, sys, time
path, row, wait = json.loads(sys.argv[1])
clock, processor = [time.perf_counter()], [0.0]
def mark():
    clock.append(time.perf_counter()); processor.append(time.process_time())
import bitfold
bitfold.load; mark()
run = bitfold.load(path); mark()
scorer = run.scorer(wait=wait); mark()
first = scorer.score(row); mark()
if scorer._later is not None:
    scorer._later.wait()
assert scorer.score(row) == first; mark()
spent = lambda marks: [after - before for before, after in zip(marks, marks[1:])]
print(json.dumps([spent(clock), spent(processor)]))
"""
STAGES = ("imports, torch's among them", "load the run", "scorer", "first score", "kernels ready")
WAYS = {"warm cache": (True, False), "empty cache": (False, False), "waiting": (False, True)}


def trained(folder: Path) -> tuple[Path, dict[str, Any]]:
    """A run of ten fields, and a row for it."""
    import numpy as np

    import bitfold

    draw = np.random.default_rng(0)
    rows: dict[str, Any] = {f"f{k}": draw.zipf(1.2, 20_000) % 10**5 for k in range(10)}
    rows["price"], rows["clicked"] = draw.lognormal(size=20_000), draw.integers(0, 2, 20_000)
    bitfold.train(
        rows, label="clicked", fields=[f"f{k}" for k in range(10)], numeric="price",
        budget="10x", width=16, epochs=1, out=folder / "run", progress=False, device="cpu",
    )  # fmt: skip
    return folder / "run", {f"f{k}": k for k in range(10)} | {"price": 1.5}


def asked(script: list[str], cache: Path) -> str:
    """What a fresh process prints."""
    done = subprocess.run(
        [sys.executable, *script], env=os.environ | {"NUMBA_CACHE_DIR": str(cache)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--run", type=Path, help="a run of yours, with --row")
    parser.add_argument("--row", type=json.loads, default={}, help="a row of it, as JSON")
    parser.add_argument("--out", type=Path, default=Path("bench-out/cold-start"))
    said = parser.parse_args()
    said.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Any]] = {way: [] for way in WAYS}
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run, row = (said.run, said.row) if said.run else trained(folder)
        print(asked(["-m", "bitfold", "warm", str(run)], folder / "warm").strip())
        for _ in range(said.turns):
            for way in draw.sample(list(WAYS), len(WAYS)):
                warm, wait = WAYS[way]
                cache = folder / ("warm" if warm else "empty")
                shutil.rmtree(folder / "empty", ignore_errors=True)
                told = json.dumps([str(run), row, wait])
                found[way].append(json.loads(asked(["-c", CHILD, told], cache)))
    medians = {
        way: [
            [statistics.median(turn[kind][stage] for turn in turns) for stage in range(len(STAGES))]
            for kind in (0, 1)
        ]
        for way, turns in found.items()
    }
    print(f"\n| seconds: clock (processor) | {' | '.join(WAYS)} |")
    print("|---|" + "---:|" * len(WAYS))
    for stage, title in enumerate(STAGES):
        cells = [f"{clock[stage]:.2f} ({spent[stage]:.2f})" for clock, spent in medians.values()]
        print(f"| {title} | {' | '.join(cells)} |")
        if title == "first score":
            sums = [
                f"{sum(clock[: stage + 1]):.2f} ({sum(spent[: stage + 1]):.2f})"
                for clock, spent in medians.values()
            ]
            print(f"| **in all, to the first score** | {' | '.join(sums)} |")
    (said.out / "cold-start.json").write_text(json.dumps({"stages": STAGES, "ways": found}))


if __name__ == "__main__":
    main()
