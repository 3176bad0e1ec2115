"""Scores over HTTP: load beside rivals, hot swaps under load, and attacks.

    python benchmarks/serving.py load   --out bench-out --minutes 1
    python benchmarks/serving.py swaps  --out bench-out --requests 1e6 --swaps 100
    python benchmarks/serving.py attack --out bench-out

`load` runs a piece for each server and size of request: 64 clients on this machine, first as fast
as answers come, then at half of that rate; each phase takes `--minutes`. Pieces that were measured
are in OUT/serving.json and are left out; `--again` measures all. `--page FILE` writes the tables
between the page's marks. Rivals are in an environment of their own (`make rivals`).
"""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import serving_attack
import serving_swaps
from process import ENVIRONMENTS, ask
from rich.console import Console
from serving_parts import bitfold_server, bodies_of, free_port, runs_of, server, values_of
from tables import PLACE, markdown

from bitfold.comparison.machine import machine

HERE = Path(__file__).resolve().parent
CLIENTS, WARM = 64, 2.0
SERVERS = {
    "run": "bitfold serve RUN",
    "onnx-file": "bitfold serve model.onnx",
    "fastapi": "FastAPI, torch eager, full model",
    "litserve": "LitServe, torch eager, full model",
    "onnx": "FastAPI, ONNX Runtime, full model",
}
ROWS = (1, 32)


def command_of(kind: str, port: int, out: Path, python: Path) -> list[object]:
    """What starts a server."""
    runs = runs_of(out)
    if kind == "run":
        return bitfold_server(runs / "a", port)
    if kind == "onnx-file":
        file = out / "a.onnx"
        if not file.is_file():
            from bitfold.exporting import export

            export(runs / "a", file, "onnx", text=True)
        return bitfold_server(file, port)
    script = "serving_litserve.py" if kind == "litserve" else "serving_rivals.py"
    return [python, HERE / "contestants" / script, kind, port, values_of(out)]


def piece(kind: str, rows: int, words: argparse.Namespace) -> dict[str, Any]:
    """One server under one size of request: greatest load, then half of it."""
    port = free_port()
    settings = {
        "port": port, "path": "/score", "clients": CLIENTS, "warm": WARM,
        "bodies": str(bodies_of(words.work, rows)), "seconds": words.minutes * 60,
    }  # fmt: skip
    limit = 120 + settings["seconds"] * 2
    command = command_of(kind, port, words.work, words.python)
    with server(command, port, words.work / f"{kind}.log") as running:
        most = ask("serving_clients.py", settings, seconds=limit)
        if "missing" in most:
            return most
        half = ask("serving_clients.py", settings | {"rate": most["rate"] / 2}, seconds=limit)
        return {"most": most, "half": half, "resident": running.resident}


def measure_load(words: argparse.Namespace, record: dict[str, Any], save: Any) -> None:
    """All pieces that are not measured yet."""
    console = Console(stderr=True)
    found = record.setdefault("load", {})
    for rows in map(int, words.rows.split(",")):
        for kind in words.servers.split(","):
            name = f"{kind}-{rows}"
            if name in found and not words.again:
                continue
            if kind not in ("run", "onnx-file") and not words.python.is_file():
                found[name] = {"missing": "run `make rivals`"}
                continue
            try:
                got = piece(kind, rows, words)
            except RuntimeError as error:
                got = {"missing": str(error)[-300:]}
            found[name] = got | {"seconds": words.minutes * 60}
            save()
            console.print(name, json.dumps(got))


def load_table(found: dict[str, Any]) -> str:
    """A line a server and size of request."""
    heads = [
        "server", "rows a request", "rows/s", "p50, ms", "p99, ms", "rows/s at half",
        "p50, ms", "p99, ms", "beside FastAPI eager", "MiB", "requests", "not 200",
        "minutes a phase",
    ]  # fmt: skip
    lines = []
    for rows in sorted({int(name.rpartition("-")[2]) for name in found}):
        base = found.get(f"fastapi-{rows}", {}).get("most")
        for kind, title in SERVERS.items():
            got = found.get(f"{kind}-{rows}")
            if got is None:
                continue
            if "missing" in got:
                lines.append([title, str(rows), got["missing"], *[""] * (len(heads) - 3)])
                continue
            most, half = got["most"], got["half"]
            answers = Counter(most["statuses"]) + Counter(half["statuses"])
            requests = sum(answers.values())
            times = f"{most['rate'] / base['rate']:.1f}x" if base else ""
            lines.append(
                [title, str(rows), f"{most['rate'] * rows:,.0f}", f"{most['p50']:.2f}",
                 f"{most['p99']:.2f}", f"{half['rate'] * rows:,.0f}", f"{half['p50']:.2f}",
                 f"{half['p99']:.2f}", times, f"{got['resident'] / 2**20:,.0f}", f"{requests:,}",
                 f"{requests - answers['200']:,}", f"{got['seconds'] / 60:g}"]
            )  # fmt: skip
    return markdown(heads, lines)


def tables_of(record: dict[str, Any]) -> dict[str, str]:
    """The tables of what was measured, by the names of their marks."""
    makers = {
        "serving-load": ("load", load_table),
        "serving-swaps": ("swaps", serving_swaps.table),
        "serving-attack": ("attack", serving_attack.table),
    }
    return {name: make(record[key]) for name, (key, make) in makers.items() if record.get(key)}


def write_page(page: Path, tables: dict[str, str]) -> None:
    """Put tables between the marks of a page."""
    text = page.read_text(encoding="utf-8")

    def put(match: re.Match[str]) -> str:
        made = tables.get(match[2])
        return match[0] if made is None else f"{match[1]}{made.strip()}\n{match[3]}"

    page.write_text(PLACE.sub(put, text), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subject", choices=["load", "swaps", "attack", "tables"])
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    parser.add_argument("--page", type=Path, help="whose tables are filled")
    parser.add_argument("--minutes", type=float, default=1.0, help="of each phase of `load`")
    parser.add_argument("--servers", default=",".join(SERVERS), help="of `load`")
    parser.add_argument("--rows", default=",".join(map(str, ROWS)), help="a request, of `load`")
    parser.add_argument("--again", action="store_true", help="measure what was measured before")
    parser.add_argument("--requests", type=float, default=100_000, help="of `swaps`")
    parser.add_argument("--swaps", type=int, default=20, help="of `swaps`")
    parser.add_argument("--connections", type=int, default=10_000, help="of `attack`")
    parser.add_argument(
        "--python", type=Path, default=ENVIRONMENTS / "serving" / "bin" / "python",
        help="of the rivals",
    )  # fmt: skip
    words = parser.parse_args(arguments)
    words.work = words.out / "serving"
    words.work.mkdir(parents=True, exist_ok=True)
    file = words.out / "serving.json"
    record: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}

    def save() -> None:
        record["machine"] = machine()
        file.write_text(json.dumps(record, indent=1) + "\n")

    if words.subject == "load":
        measure_load(words, record, save)
    elif words.subject == "swaps":
        serving_swaps.measure(words, record, save)
    elif words.subject == "attack":
        serving_attack.measure(words, record, save)
    save()
    tables = tables_of(record)
    for name, made in tables.items():
        print(f"{name}\n{made}\n")
    if words.page is not None:
        write_page(words.page, tables)
    return 0


if __name__ == "__main__":
    sys.exit(main())
