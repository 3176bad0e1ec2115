"""A billion ids within ten million bytes, scored by `bitfold.lite` in a process without torch.

    python -m benchmarks.lite [--ids 1000000000] [--bytes 10000000] [--rows 100000]

Two fields of hashed ids, 16 numbers an id: 64 GB as a full table. The budget is what the network,
the graph and the schema leave of the bytes. The model is trained for some steps, saved as a run,
exported with its schema, and scored by a fresh process that cannot import torch, Polars, Numba,
Arrow or msgspec. It tells its resident memory at its highest, the seconds until its first score,
and microseconds a row; its scores are held against torch's.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

WIDTH, HIDDEN = 16, (64, 32)
BESIDE = 40_000  # bytes of the graph and of the schema
BLOCKED = ("torch", "polars", "numba", "llvmlite", "pyarrow", "pandas", "msgspec", "safetensors")

CHILD = """
import sys, time
for name in {blocked!r}:
    sys.modules[name] = None
import json
import bitfold.lite
scorer = bitfold.lite.load(sys.argv[1])
with open(sys.argv[2], "rb") as file:
    first = json.loads(file.readline())
    scorer.score(first)
    started = time.time()
    rows = [first, *map(json.loads, (next(file) for _ in range(4095)))]
told = {{"started": started}}
for many in (1, 64, 4096):
    part, times, before = rows[:many], [], time.perf_counter()
    for _ in range(max(5, 2048 // many)):
        scorer.score(part[0]) if many == 1 else scorer.scores(part)
        now = time.perf_counter()
        times.append(now - before)
        before = now
    told[f"us a row, {{many}} at once"] = sorted(times)[len(times) // 2] / many * 1e6
with open(sys.argv[2], "rb") as file, open(sys.argv[3], "w") as out:
    while part := [json.loads(line) for _, line in zip(range(1024), file)]:
        out.writelines(f"{{score!r}}\\n" for score in scorer.scores(part).tolist())
with open("/proc/self/status") as file:
    told |= {{line.split()[0]: int(line.split()[1]) for line in file if line.startswith("Vm")}}
json.dump(told, sys.stdout)
"""


def drawn(rows, ids, seed):
    """Users as text, items as numbers of any 64 bits, prices."""
    rng = np.random.default_rng(seed)
    users = rng.integers(0, ids, rows)
    items = rng.integers(-(2**63), 2**63 - 1, rows, endpoint=True)
    return {
        "user": [f"user-{each}" for each in users.tolist()],
        "item": items.tolist(),
        "price": rng.lognormal(size=rows).tolist(),
        "clicked": rng.integers(0, 2, rows).tolist(),
    }


def made(asked, folder):
    """A run with so many ids: a small log's schema, told that it holds more; some steps."""
    import torch

    import bitfold
    from bitfold.data.single import RowEncoder
    from bitfold.embedding import EmbeddingCollection
    from bitfold.nets.model import click_loss
    from bitfold.optim import RowWiseAdagrad
    from bitfold.runs.config import RunConfig
    from bitfold.runs.folder import build_model, save
    from bitfold.runs.manifest import CONFIG
    from bitfold.runs.options import TrainConfig

    log = bitfold.prepare(
        drawn(5000, asked.ids, 0), label="clicked", fields="user,item", numeric="price"
    )
    shares = (asked.ids - asked.ids // 10, asked.ids // 10)
    fields = zip(log.schema.fields, shares, strict=True)
    schema = replace(log.schema, fields=tuple(replace(info, distinct=ids) for info, ids in fields))
    words = {"method": asked.method, "set": {"bits": str(asked.bits)}}
    options = TrainConfig(budget="1MB", width=WIDTH, hidden=HIDDEN, **words)
    network = build_model(torch.nn.Identity(), schema, options, seed=0)
    taken = sum(each.numel() * each.element_size() for each in network.parameters())
    options = replace(options, budget=str(asked.bytes - taken - BESIDE))
    tables = EmbeddingCollection(
        schema.embedding_fields(),
        WIDTH,
        budget=options.budget,
        method=asked.method,
        bits=asked.bits,
        seed=0,
    )
    model = build_model(tables, schema, options, seed=0)
    optimizer = RowWiseAdagrad(tables.parameters(), lr=0.05)
    adam = torch.optim.Adam(model.network.parameters(), lr=1e-3)
    encoder = RowEncoder(schema.rules())
    for step in range(asked.steps):
        table = drawn(2048, asked.ids, step)
        rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
        loss = click_loss(model(encoder.batch(rows)), torch.tensor(table["clicked"]).float(), None)
        optimizer.zero_grad()
        adam.zero_grad()
        loss.backward()
        optimizer.step()
        adam.step()
    folder.mkdir()
    RunConfig(schema.config, options).save(folder / CONFIG)
    save(folder, model=model, schema=schema, plan=tables.plan, metrics={"epochs": 1})
    return bitfold.load(folder)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ids", type=int, default=1_000_000_000)
    parser.add_argument("--bytes", type=int, default=10_000_000)
    parser.add_argument("--method", default="binary-code")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rows", type=int, default=100_000)
    asked = parser.parse_args()

    import bitfold

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        run = made(asked, place / "run")
        print(run.plan)
        file = bitfold.export(run, place / "model.onnx", text=True)
        beside = Path(f"{file}.json")
        print(f"{asked.ids:,} ids, a full table of {asked.ids * WIDTH * 4:,} bytes")
        onnx, schema = file.stat().st_size, beside.stat().st_size
        print(f"{onnx:,} bytes of ONNX, {schema:,} of JSON: {onnx + schema:,} of {asked.bytes:,}")
        table = drawn(asked.rows, asked.ids, 1_000_003)
        table.pop("clicked")
        rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
        given, out = place / "rows.jsonl", place / "scores.txt"
        given.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        before = time.time()
        done = subprocess.run(
            [sys.executable, "-c", CHILD.format(blocked=BLOCKED), str(file), str(given), str(out)],
            capture_output=True,
            check=True,
            text=True,
        )
        told = json.loads(done.stdout)
        found = np.array(out.read_text().split(), np.float32)
        apart = np.abs(found - run.predict(table))
    started = told.pop("started") - before
    print(f"first score after {started:.2f} s of a fresh process")
    print(f"resident at most {told['VmHWM:'] * 1024 / 1e6:.1f} MB, of 100 MB")
    for what, value in told.items():
        if "row" in what:
            print(f"{value:.1f} {what}")
    print(f"{len(found):,} rows beside torch's: at most {apart.max():.2g} apart")
    if onnx + schema > asked.bytes or told["VmHWM:"] * 1024 >= 100e6 or not apart.max() <= 1e-6:
        sys.exit("not within its limits")


if __name__ == "__main__":
    main()
