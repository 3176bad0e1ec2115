"""What scoring costs beside the model: one row, and a frame of a million rows.

    python benchmarks/scoring.py [--rows 1000000] [--fields 10] [--threads 1]

The model alone is `predict_batch` on a batch of tensors that is ready; a frame is held against the
same rows as ready batches of the same size. Medians of several turns.
"""

import argparse
import statistics
import time

import numpy as np


def beside(one, other, turns):
    """Seconds of two jobs in turn, medians, and the median of their ratios: other / one.

    The turns alternate, so that whatever else the machine does slows both down.
    """
    one(), other()
    pairs = [(seconds(one), seconds(other)) for _ in range(turns)]
    ratios = [second / first for first, second in pairs]
    medians = (statistics.median(each) for each in zip(*pairs, strict=True))
    return *medians, statistics.median(ratios)


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def columns(rows, fields, numbers, seed=0):
    rng = np.random.default_rng(seed)
    made = {}
    for index in range(fields):
        ids = rng.zipf(1.3, rows) % (10 ** (2 + index % 5))
        made[f"f{index}"] = ids if index % 2 else np.char.add("v", ids.astype(str)).astype(object)
    for index in range(numbers):
        made[f"n{index}"] = rng.lognormal(size=rows)
    made["clicked"] = rng.integers(0, 2, rows)
    return made


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--fields", type=int, default=10)
    parser.add_argument("--numbers", type=int, default=3)
    parser.add_argument("--network", default="deepfm")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=8192)
    asked = parser.parse_args()

    import pandas as pd
    import polars as pl
    import torch

    import bitfold
    from bitfold.runs.scoring import predict_batch

    if asked.threads:
        torch.set_num_threads(asked.threads)
    some = columns(20_000, asked.fields, asked.numbers)
    run = bitfold.train(
        some,
        label="clicked",
        fields=[f"f{index}" for index in range(asked.fields)],
        numeric=[f"n{index}" for index in range(asked.numbers)],
        budget="10x",
        epochs=1,
        network=asked.network,
        device="cpu",
        progress=False,
    )
    row = {
        name: column[0].item() if index % 2 else column[0]
        for index, (name, column) in enumerate(some.items())
    }
    row.pop("clicked")
    print(
        f"{asked.fields} fields, {asked.numbers} numbers, {asked.network}, "
        f"{torch.get_num_threads()} threads"
    )
    [ready] = run.batches([row], fields_only=True)
    shapes = {
        "dictionary": row,
        "list of one": [row],
        "columns": {name: [value] for name, value in row.items()},
        "pandas": pd.DataFrame([row]),
        "polars": pl.DataFrame([row]),
        "arrow": pl.DataFrame([row]).to_arrow(),
    }
    print("one row: the model alone, run.predict, their ratio")
    for name, data in shapes.items():
        alone, taken, ratio = beside(
            lambda: predict_batch(run.model, ready, run.negative_rate),
            lambda data=data: run.predict(data),
            300,
        )
        print(f"  {name:12} {alone * 1e6:8,.0f} us {taken * 1e6:8,.0f} us   {ratio:.2f} x")

    table = columns(asked.rows, asked.fields, asked.numbers, seed=1)
    pandas = pd.DataFrame(table)
    ready = list(run.batches(pandas, asked.batch_size, fields_only=True))

    def model():
        for batch in ready:
            predict_batch(run.model, batch, run.negative_rate)

    print(f"{asked.rows:,} rows: the model alone, run.predict, the share of the model's speed")
    polars = pl.from_pandas(pandas)
    frames = {"pandas": pandas, "polars": polars, "arrow": polars.to_arrow()}
    for name, data in frames.items():
        alone, taken, ratio = beside(
            model, lambda data=data: run.predict(data, asked.batch_size), asked.turns
        )
        speeds = (f"{asked.rows / each:10,.0f} rows/s" for each in (alone, taken))
        print(f"  {name:12}", *speeds, f"  {1 / ratio:.1%}")


if __name__ == "__main__":
    main()
