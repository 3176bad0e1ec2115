"""What `run.scorer()` costs beside its model: 1 to 65,536 rows, as dictionaries and as a table.

    python -m benchmarks.scorer [--fields 10] [--numbers 3] [--threads 1] [--rounds 40]

The model alone is `predict_batch` on a batch of tensors that is ready. All take their turns in one
run: the model, the scorer, `run.predict`, and `bitfold.lite` with `--export`. Times are medians
over the rounds, ratios medians of each round's ratio.
"""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from scoring import columns
from turns import measure, quartiles, ratio

SIZES = (1, 8, 64, 4096, 65536)
CALLS = 256  # rows of small batches that are scored in one turn


def repeated(work, times, turn):
    for _ in range(times):
        work()


def model_alone(run, batches, predict_batch):
    for batch in batches:
        predict_batch(run.model, batch, run.negative_rate)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--fields", type=int, default=10)
    parser.add_argument("--numbers", type=int, default=3)
    parser.add_argument("--network", default="deepfm")
    parser.add_argument("--method", default="binary-code")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--export", action="store_true", help="beside bitfold.lite")
    asked = parser.parse_args()

    import pyarrow
    import torch

    import bitfold
    from bitfold.runs.scoring import predict_batch

    torch.set_num_threads(asked.threads)
    run = bitfold.train(
        columns(20_000, asked.fields, asked.numbers),
        label="clicked",
        fields=[f"f{index}" for index in range(asked.fields)],
        numeric=[f"n{index}" for index in range(asked.numbers)],
        method=asked.method,
        budget="10x",
        epochs=1,
        network=asked.network,
        device="cpu",
        progress=False,
    )
    table = columns(max(SIZES), asked.fields, asked.numbers, seed=1)
    lists = [table[name].tolist() for name in table if name != "clicked"]
    names = [name for name in table if name != "clicked"]
    arrow = pyarrow.table(dict(zip(names, lists, strict=True)))
    rows = [dict(zip(names, row, strict=True)) for row in zip(*lists, strict=True)]
    scorer, lite = run.scorer(), None
    if asked.export:
        import bitfold.lite

        with tempfile.TemporaryDirectory() as folder:
            bitfold.export(run, Path(folder, "model.onnx"), text=True)
            lite = bitfold.lite.load(Path(folder, "model.onnx"), threads=asked.threads)
    print(
        f"{asked.fields} fields, {asked.numbers} numbers, {asked.method}, {asked.network}, "
        f"{asked.threads} threads, {asked.rounds} rounds"
    )
    print(f"{'rows':>6} {'':14} {'us a call':>10} {'quartiles':>19} {'x the model':>12}")
    for size in SIZES:
        some = rows[:size]
        ready = list(run.batches(some, fields_only=True))
        group = {"model alone": partial(model_alone, run, ready, predict_batch)}
        group["run.scorer()"] = partial(scorer.scores, some)
        if size == 1:
            group["run.scorer()"] = partial(scorer.score, some[0])
        group["a table"] = partial(scorer.scores_of, arrow.slice(0, size))
        group["run.predict"] = partial(run.predict, some)
        if lite is not None:
            group["bitfold.lite"] = partial(lite.scores, some)
        calls = max(1, CALLS // size)
        taken, _ = measure(
            {name: partial(repeated, work, calls) for name, work in group.items()},
            min(asked.rounds, 1 + (1 << 20) // size),
        )
        for name, each in taken.items():
            low, middle, high = (value * 1e3 / calls for value in quartiles(each))
            more = ratio(each, taken["model alone"])
            print(f"{size:6} {name:14} {middle:10,.0f} {low:9,.0f} {high:9,.0f} {more:12.2f}")


if __name__ == "__main__":
    main()
