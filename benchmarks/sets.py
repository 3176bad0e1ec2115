"""Embedding sets at equal bytes: one set of width D against several, on real logs.

    python benchmarks/sets.py --data DATA --out OUT [--logs ml-1m,criteo-80k] [--widths 16,64]

Every cell is a training by `auto` within the bytes of one full table of width D, or a tenth of
them: one set of width D, M sets of width D / M, M sets of width D. Finished cells are kept, a file
a log, in `--records` (docs/results), so a stopped board goes on where it was; `--page FILE` writes
the tables between the page's marks, and trains nothing with `--minutes 0`.
"""

import argparse
import math
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.results.boards import LOGS as RESULT_LOGS
from benchmarks.results.boards import TRAINING

from bitfold.comparison.diagnosis import diagnose
from bitfold.comparison.survey import Survey, survey
from bitfold.data.config import DataConfig
from bitfold.data.prepare import prepare_or_open
from bitfold.data.prepared import PreparedLog
from bitfold.files import read_json, write_json
from bitfold.planning.budget import full_bytes
from bitfold.runs.options import TrainConfig
from bitfold.training import train

RECORDS = Path(__file__).resolve().parents[1] / "docs" / "results"
SETS, RATIOS, SEEDS = (1, 2, 4), (1, 10), (0, 1, 2)
LARGE = 64  # ids of a field whose abundance the table's mean takes
MARK = "<!-- embedding sets: {} -->"


@dataclass(frozen=True)
class Log:
    """A log: its file under `--data`, how it is read, how everybody on it is trained."""

    title: str
    file: str
    data: dict[str, Any]
    train: dict[str, Any]


_ML = next(log for log in RESULT_LOGS if log.name == "ml-1m")
LOGS = {
    "ml-1m": Log(_ML.title, str(_ML.file), _ML.data | {"ids": "vocabulary"}, TRAINING["ml-1m"]),
    "criteo-80k": Log(
        "80,000 rows of Criteo",
        "criteo-dac-80k/criteo_dac_80k.csv.gz",
        {
            "label": "label",
            "fields": tuple(f"C{number}" for number in range(1, 27)),
            "numeric": tuple(f"I{number}" for number in range(1, 14)),
            "split": "random:0.6,0.1,0.3",
            "ids": "vocabulary",
        },
        {"epochs": 6, "batch_size": 1024, "lr": 2e-3, "embedding_decay": 1e-4},
    ),
}
EVERYBODY: dict[str, Any] = {
    "hidden": (64, 32), "weight_decay": 1e-5, "patience": 1, "checkpoint_steps": 0, "log": "none",
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A training: M sets of width `set_width`, in the bytes of a table of `width` over `ratio`."""

    log: str
    network: str
    width: int
    ratio: int
    sets: int
    set_width: int
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return "-".join(str(part) for part in asdict(self).values())


def cells(
    log: str, networks: Sequence[str], widths: Sequence[int], several: Sequence[int]
) -> Iterator[Cell]:
    """All cells: sets that share a width before sets of that width each, seed after seed."""
    for whole, seed, width, network, ratio, sets in product(
        (False, True), SEEDS, widths, networks, RATIOS, several
    ):
        if sets > 1 or not whole:
            each = width if whole else width // sets
            yield Cell(log, network, width, ratio, sets, each, seed)


def trained(cell: Cell, log: PreparedLog, known: Survey, out: Path) -> dict[str, Any]:
    """A cell's figures; its run is removed."""
    budget = full_bytes(log.schema.embedding_fields(), cell.width) // cell.ratio
    words = TrainConfig(
        method="auto", budget=str(budget), width=cell.set_width, embedding_sets=cell.sets,
        network=cell.network, seed=cell.seed, **EVERYBODY, **LOGS[cell.log].train,
    )  # fmt: skip
    run = out / "runs" / cell.name
    run.parent.mkdir(parents=True, exist_ok=True)
    figures = train([log.path], log.schema.config, words, run, force=True, floors=False).metrics
    fields = diagnose(run, log, known)["by_field"]
    shutil.rmtree(run)
    names = ("auc", "logloss", "bytes", "network_bytes", "best_epoch", "seconds", "valid")
    return asdict(cell) | {name: figures[name] for name in names} | {
        "rows_per_second": round(figures["rows_per_second"]),
        "fields": [
            {key: value for key, value in field.items() if key != "bytes"} for field in fields
        ],
    }  # fmt: skip


def abundance(row: dict[str, Any], *, together: bool) -> float:
    """Mean over the larger fields: of the sets' vectors side by side, or of each set alone."""
    found = []
    for field in row["fields"]:
        if field["ids"] < LARGE:
            continue
        by_set = field.get("abundance_by_set", [field["abundance"]])
        found.append(field["abundance"] if together else statistics.fmean(by_set))
    return statistics.fmean(found)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Figures of one log and network, a line a form."""
    heads = (
        "width of the bytes", "bytes", "sets x width", "test AUC", "against one set", "seeds",
        "abundance of a set", "of all side by side", "network's bytes",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    forms: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    for row in rows:
        key = (row["width"], row["ratio"], row["set_width"] < row["width"], row["sets"])
        forms.setdefault(key, []).append(row)
    order = sorted(forms, key=lambda key: (key[0], key[1], key[3] > 1, not key[2], key[3]))
    for key in order:
        found = sorted(forms[key], key=lambda row: row["seed"])
        width, ratio = key[:2]
        one = {row["seed"]: row["auc"] for row in forms.get((width, ratio, False, 1), ())}
        pairs = [row["auc"] - one[row["seed"]] for row in found if row["seed"] in one]
        against = "-" if key[3] == 1 or not pairs else _spread(pairs, "+.4f")
        lines.append(
            f"| {width}{'' if ratio == 1 else f', a {_part(ratio)}'} | {found[0]['bytes']:,} "
            f"| {key[3]} x {found[0]['set_width']} "
            f"| {_spread([row['auc'] for row in found], '.4f')} | {against} | {len(found)} "
            f"| {statistics.fmean(abundance(row, together=False) for row in found):.2f} "
            f"| {statistics.fmean(abundance(row, together=True) for row in found):.2f} "
            f"| {found[0]['network_bytes']:,} |"
        )
    return "\n".join(lines) + "\n"


def _part(ratio: int) -> str:
    return {10: "tenth"}.get(ratio, f"1/{ratio}")


def _spread(values: Sequence[float], form: str) -> str:
    mean = format(statistics.fmean(values), form)
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.4f}"


def write_page(page: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Put each table between its two marks."""
    text = page.read_text(encoding="utf-8")
    for log, network in dict.fromkeys((row["log"], row["network"]) for row in rows):
        mark = MARK.format(f"{log}, {network}")
        before, inside, after = text.partition(mark)
        if not inside:
            print(f"{page} has no {mark}", file=sys.stderr)
            continue
        _, inside, after = after.partition(mark)
        found = [row for row in rows if (row["log"], row["network"]) == (log, network)]
        text = f"{before}{mark}\n\n{table(found)}\n{mark}{after}"
    page.write_text(text, encoding="utf-8")


def main() -> None:
    """Train what is missing; write the record, and the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True, help="the folder of public data sets")
    parser.add_argument("--out", type=Path, default=Path("bench-out/sets"))
    parser.add_argument("--logs", default=",".join(LOGS))
    parser.add_argument("--networks", default="deepfm")
    parser.add_argument("--widths", default="16,64,8,32")
    parser.add_argument("--minutes", type=float, default=None, help="stop after so many")
    parser.add_argument("--sets", default=",".join(map(str, SETS)))
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--page", type=Path, default=None)
    said = parser.parse_args()
    end = math.inf if said.minutes is None else time.monotonic() + 60 * said.minutes
    widths, several = ([int(one) for one in text.split(",")] for text in (said.widths, said.sets))
    for name in said.logs.split(","):
        record = said.records / f"embedding-sets-{name}.json"
        rows: list[dict[str, Any]] = read_json(record)["cells"] if record.is_file() else []
        wanted = cells(name, said.networks.split(","), widths, several)
        done = {Cell(**{key: row[key] for key in Cell.__dataclass_fields__}) for row in rows}
        run(name, [cell for cell in wanted if cell not in done], rows, record, said, end)
        if said.page is not None:
            write_page(said.page, rows)


def run(
    name: str,
    wanted: Sequence[Cell],
    rows: list[dict[str, Any]],
    record: Path,
    said: argparse.Namespace,
    end: float,
) -> None:
    """Train the cells of one log, until the time is up; each is kept as it ends."""
    if not wanted or time.monotonic() >= end:
        return
    said.out.mkdir(parents=True, exist_ok=True)
    config = DataConfig(**LOGS[name].data)
    log = prepare_or_open([said.data / LOGS[name].file], said.out / f"log-{name}", config)
    known = survey(log)
    for cell in wanted:
        if time.monotonic() >= end:
            return
        row = trained(cell, log, known, said.out)
        rows.append(row)
        write_json(record, {"everybody": EVERYBODY, "log": asdict(LOGS[name]), "cells": rows})
        print(f"{cell.name}: AUC {row['auc']:.4f}, {row['bytes']:,} bytes", flush=True)


if __name__ == "__main__":
    main()
