"""A log larger than all the memory a process may have is prepared; a killed run leaves nothing."""

import gzip
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bitfold.data.config import DataConfig
from bitfold.data.prepare import prepare
from bitfold.data.prepared import is_prepared
from bitfold.errors import BitfoldError

MIB = 1 << 20

# Allocators reserve address space that they do not use: heaps and stacks of threads, Arrow's arena
# of 1 GiB. Under a limit on the address space (not on resident memory) that is turned off.
FRUGAL = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 20),
    "POLARS_MAX_THREADS": "2",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}

LIMITED = """
import resource, sys
limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from bitfold.data.config import DataConfig
from bitfold.data.prepare import prepare
fields = tuple(f"f{i}" for i in range(8))
config = DataConfig(label="y", fields=fields, numeric=("n",), cross=("f0*f1",))
log = prepare(sys.argv[1], sys.argv[2], config)
assert "torch" not in sys.modules
print(sum(log.rows.values()))
"""


def block(rows: int, width: int = 200) -> tuple[str, bytes]:
    """Rows of text with long cells, such as addresses of pages."""
    rng = np.random.default_rng(0)
    words = {"y": rng.integers(0, 2, rows), "n": rng.integers(0, 1000, rows)}
    for index in range(8):
        ids = (rows * rng.random(rows) ** 2).astype(int)
        words[f"f{index}"] = [f"https://example.org/{index}/{i}".ljust(width, "/") for i in ids]
    text = pl.DataFrame(words).write_csv()
    header, rest = text.split("\n", 1)
    return header + "\n", rest.encode()


def prepare_within(log: Path, out: Path, limit: int) -> int:
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, str(log), str(out), str(limit)],
        env=os.environ | FRUGAL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return int(run.stdout)


def test_a_log_larger_than_the_address_space(tmp_path):
    limit = 1100 * MIB
    rows = 8_000
    header, text = block(rows)
    copies = 11 * limit // (10 * len(text))
    log = tmp_path / "log.csv.gz"
    member = gzip.compress(text, 1)
    with log.open("wb") as file:
        file.write(gzip.compress(header.encode()))
        for _ in range(copies):
            file.write(member)
    assert copies * len(text) > limit
    assert prepare_within(log, tmp_path / "out", limit) == rows * copies


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_log_on_the_disk_larger_than_the_address_space(tmp_path, kind):
    # Counting a million ids in each of ten fields takes memory of its own.
    limit = (1280 if kind == "csv" else 1600) * MIB
    rows = 50_000
    log = tmp_path / f"log.{kind}"
    if kind == "csv":
        header, text = block(rows)
        copies = 2 * limit // len(text)
        with log.open("wb") as file:
            file.write(header.encode())
            for _ in range(copies):
                file.write(text)
    else:
        import pyarrow.parquet as pq

        rng = np.random.default_rng(0)
        copies = 440
        writer = None
        for _ in range(copies):
            columns = {f"f{i}": rng.integers(0, 2**20, rows) for i in range(8)}
            frame = pl.DataFrame({"y": rng.integers(0, 2, rows), "n": rng.random(rows), **columns})
            table = frame.to_arrow()
            writer = writer or pq.ParquetWriter(
                log, table.schema, compression="none", use_dictionary=False
            )
            writer.write_table(table)
        assert writer is not None
        writer.close()
    assert log.stat().st_size > limit
    assert prepare_within(log, tmp_path / "out", limit) == rows * copies


STOPPED = """
import sys, time
from bitfold.data.config import DataConfig
from bitfold.data.prepare import prepare
def told(stage, rows, done, total):
    if stage == sys.argv[3]:
        print(stage, flush=True)
        time.sleep(60)
config = DataConfig(label="y", fields=("f",), split="random:0.8,0.1,0.1")
prepare(sys.argv[1], sys.argv[2], config, force=True, progress=told)
"""


@pytest.mark.parametrize("stage", ["reading", "fitting", "writing"])
@pytest.mark.parametrize("over", [False, True])
def test_a_killed_run_leaves_nothing_that_looks_whole(tmp_path, stage, over):
    log, out = tmp_path / "log.csv", tmp_path / "out"
    pl.DataFrame({"y": [0, 1] * 500, "f": range(1000)}).write_csv(log)
    config = DataConfig(label="y", fields=("f",), split="random:0.8,0.1,0.1")
    if over:
        prepare(log, out, config)
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(log), str(out), stage],
        stdout=subprocess.PIPE,
        env=os.environ | FRUGAL,
    )
    assert process.stdout is not None
    assert process.stdout.readline().decode().strip() == stage
    # What another run is writing now is no leftover: it stays.
    (working,) = tmp_path.glob(".out.bitfold")
    prepare(log, tmp_path / "elsewhere", config)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert is_prepared(out) == over
    assert working.exists()
    assert not is_prepared(working)
    assert prepare(log, out, config, force=over).rows["train"] > 700
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "log.csv", "out"]


def test_two_runs_at_once_do_not_disturb_each_other(tmp_path):
    log, out = tmp_path / "log.csv", tmp_path / "out"
    pl.DataFrame({"y": [0, 1] * 500, "f": range(1000)}).write_csv(log)
    config = DataConfig(label="y", fields=("f",), split="random:1,0,0")
    refused: list[str] = []

    def second(stage: str, rows: int, done: int, total: int) -> None:
        if stage == "fitting":
            with pytest.raises(BitfoldError) as caught:
                prepare(log, out, config, force=True)
            refused.append(str(caught.value))

    assert prepare(log, out, config, force=True, progress=second).rows["train"] == 1000
    assert "another process is writing" in refused[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv", "out"]
