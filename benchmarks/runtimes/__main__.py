"""All runtimes of exported files on the same ids: which rows are wrong, and what a row costs.

    python -m benchmarks.runtimes [ops] [agree] [--ids 1e8] [--minutes 30] [--page docs/serving.md]

`ops` exports single operations and counts wrong results. `agree` sends random int64 ids, chunk by
chunk, through small models (`programs.py`) in every runtime. What is known stays in `--record`
(docs/results/runtimes.json), and a run that was stopped goes on where it was; with `--minutes 0`
nothing is run. `--page FILE` writes the tables between the page's marks. `make runtimes` makes the
environment, .runtimes.
"""

import argparse
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from benchmarks.marks import write_between
from benchmarks.runtimes import ops, page
from benchmarks.runtimes.agree import Opened, added
from benchmarks.runtimes.programs import PROGRAMS

from bitfold.comparison.machine import machine
from bitfold.errors import BitfoldError
from bitfold.files import read_json, write_json

RECORD = Path(__file__).resolve().parents[2] / "docs" / "results" / "runtimes.json"
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "executorch")


def agree(record: dict[str, Any], words: argparse.Namespace) -> None:
    """Chunk by chunk, the program with the fewest ids first, until all ids or minutes are gone."""
    began = time.monotonic()
    programs = record.setdefault("programs", {})
    opened: dict[str, Opened] = {}
    names = list(PROGRAMS)
    while names and time.monotonic() - began < words.minutes * 60:
        name = min(names, key=lambda each: programs.get(each, {}).get("ids", 0))
        known = programs.get(name, {})
        if sum(each.get("ids", 0) for each in programs.values()) >= words.ids and known:
            break
        if name not in opened:
            print(f"{name}: exporting", file=sys.stderr)
            try:
                each = opened[name] = Opened(name, words.files)
            except BitfoldError as error:
                print(f"{name}: {error}", file=sys.stderr)
                names.remove(name)
                continue
            if known.get("digest") != each.graph.notes["bitfold.digest"]:
                known = {}
            known = {
                **known, "what": each.program.what, "digest": each.graph.notes["bitfold.digest"],
                "weights": each.graph.weights, "bytes": each.bytes, "speed": each.speed(),
                "seconds": {**known.get("seconds", {}), **each.seconds},
            }  # fmt: skip
        programs[name] = added(known, opened[name].chunk(known.get("chunks", 0)))
        write_json(words.record, record)
    for name in PROGRAMS:
        if name in programs:
            print(name, programs[name]["ids"], programs[name]["wrong"], file=sys.stderr)


def main() -> int:
    """Measure what is asked for, and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", help="ops, agree; both by default")
    parser.add_argument("--ids", type=float, default=1e8, help="of all programs together")
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--files", type=Path, default=Path("bench-out/runtimes"))
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--page", type=Path, help="a page with the tables' marks")
    words = parser.parse_args()
    parts = words.parts or ["ops", "agree"]
    torch.set_num_threads(1)
    record: dict[str, Any] = read_json(words.record) if words.record.is_file() else {}
    if words.minutes > 0:
        record["machine"] = machine()
        record["packages"] = {name: version(name) for name in PACKAGES}
    if "ops" in parts and words.minutes > 0:
        record["ops"] = ops.measure()
        write_json(words.record, record)
    if "agree" in parts:
        agree(record, words)
    tables = {
        "ops": page.operations(record["ops"]) if "ops" in record else None,
        "agreement": page.agreement(record["programs"]) if record.get("programs") else None,
        "costs": page.costs(record["programs"]) if record.get("programs") else None,
    }
    for name, text in tables.items():
        if text is not None:
            print(text, end="\n\n")
            if words.page is not None:
                write_between(words.page, page.MARK.format(name), text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
