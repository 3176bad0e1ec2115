"""What the benchmarks of serving share: a log, runs, request bodies, server processes."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import bitfold

HERE = Path(__file__).resolve().parent
SIZES = {"user": 50_000, "item": 10_000, "shop": 500, "hour": 24}
NUMBERS = ("price",)
TRAINING = {
    "width": 16, "network": "deepfm", "hidden": (64, 32), "epochs": 1, "batch_size": 2048,
    "budget": "10x",
}  # fmt: skip
BODIES = 512


def columns(rows: int, seed: int) -> dict[str, Any]:
    """Columns of a log by name; ids as frequent as in a real one."""
    rng = np.random.default_rng(seed)
    found: dict[str, Any] = {}
    taste = np.zeros(rows)
    for place, (name, size) in enumerate(SIZES.items()):
        ids = np.minimum(rng.zipf(1.2, rows) - 1, size - 1)
        found[name] = [f"{name[0]}{value}" for value in ids]
        taste += np.sin(ids * (place + 1.7))
    price = rng.lognormal(size=rows).round(4)
    found["price"] = price.tolist()
    found["clicked"] = (taste + rng.normal(size=rows) > 0).astype(int).tolist()
    return found


def rows_of(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows as clients send them."""
    found = columns(count, seed)
    names = [*SIZES, *NUMBERS]
    return [
        dict(zip(names, row, strict=True)) for row in zip(*(found[n] for n in names), strict=True)
    ]


def runs_of(out: Path, names: Sequence[str] = ("a", "b", "c")) -> Path:
    """A folder of runs of one log, trained when they are not there."""
    folder = out / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    log = None
    for seed, name in enumerate(names):
        if not (folder / name / "manifest.json").is_file():
            log = log or columns(200_000, 0)
            bitfold.train(
                log, label="clicked", fields=list(SIZES), numeric=list(NUMBERS), seed=seed,
                out=folder / name, force=True, **TRAINING,
            )  # fmt: skip
    return folder


def bodies_of(out: Path, rows: int) -> Path:
    """A file of request bodies, one a line."""
    path = out / f"bodies-{rows}.jsonl"
    if not path.is_file():
        found = rows_of(BODIES * rows, 1)
        parts = [found[place : place + rows] for place in range(0, len(found), rows)]
        path.write_text("\n".join(json.dumps({"rows": part}) for part in parts) + "\n")
    return path


def values_of(out: Path) -> Path:
    """What a rival needs to turn values into ids."""
    path = out / "values.json"
    if not path.is_file():
        found = columns(200_000, 0)
        fields = {name: sorted(set(found[name])) for name in SIZES}
        path.write_text(json.dumps({"fields": fields, "numbers": list(NUMBERS)}))
    return path


@dataclass
class Process:
    """A server that runs."""

    process: subprocess.Popen[str]
    port: int

    @property
    def resident(self) -> int:
        """Bytes in memory, children included."""
        return sum(map(_resident, [self.process.pid, *_children(self.process.pid)]))


@contextlib.contextmanager
def server(
    command: Sequence[object], port: int, log: Path, seconds: float = 120
) -> Iterator[Process]:
    """A server process that answers at a port; it is ended with the block."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    with log.open("w") as file:
        process = subprocess.Popen(
            [str(word) for word in command], stdout=file, stderr=file, text=True, env=environment
        )
        try:
            end = time.monotonic() + seconds
            while not listens(port):
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"{command[0]} does not serve: {log.read_text()[-500:]}")
                time.sleep(0.1)
            time.sleep(1)
            yield Process(process, port)
        finally:
            ended = [process.pid, *_children(process.pid)]
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            for pid in ended:  # those that a server left behind are ours
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
            process.wait(30)


def bitfold_server(run: Path, port: int, *more: object) -> list[object]:
    """The command of our server."""
    return [sys.executable, "-m", "bitfold", "serve", run, "--port", port, *more]


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def listens(port: int) -> bool:
    """Whether a server takes connections at a port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def _resident(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    return int(found[1]) * 1024 if found else 0


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *_children(child)]
    return found


def fresh(folder: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
