"""A board of streams: methods at equal bytes on a log whose ids are born and die.

    python benchmarks/streams.py --out OUT --rows 20e6 [--methods cafe,binary-code] [--ratios 64]

A synthetic log of so many rows over `--days` days is written once, and each method goes through it
day by day at each budget: `bitfold stream`. A ratio is one to the full float32 table of all ids
that the log comes to hold, so it means the same bytes to everybody on every day. Finished streams
are kept in `--records` (docs/results/stream-NAME.json), and one that was stopped goes on where it
was; with `--minutes 0` nothing is trained. `--page FILE` writes the table between the page's marks,
and OUT/stream.html has all streams as lines on one page.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from marks import write_between

from bitfold.bars import drawing
from bitfold.data.config import DataConfig
from bitfold.data.synth.log import SynthConfig, synthesize
from bitfold.errors import BitfoldError
from bitfold.files import read_json, write_json
from bitfold.report import missing
from bitfold.report.stream_page import write_streams_page
from bitfold.runs.options import TrainConfig
from bitfold.streaming import StreamConfig, stream

RECORDS = Path(__file__).resolve().parents[1] / "docs" / "results"
METHODS = ("auto", "fiited", "scall", "cafe", "managed-collision", "binary-code", "hash", "growing")
GROWING = "growing"
"""The full table that grows: a row for each id from its first step on, none is ever evicted."""
WIDTH = 16
TRAINING: dict[str, Any] = {
    "width": WIDTH, "hidden": (64, 32), "batch_size": 2048, "lr": 2e-3, "checkpoint_steps": 500,
}  # fmt: skip
MARK = "<!-- streams: {} -->"


@dataclass(frozen=True)
class Cell:
    """A method at a budget, one to `ratio` of the full table of all ids."""

    method: str
    ratio: float
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.method.replace(':', '-').replace('=', '-')}-{self.ratio:g}x-{self.seed}"

    @property
    def options(self) -> tuple[str, dict[str, str]]:
        """The method's name, and its options: `cafe:hot=0.5,every=50`."""
        name, _, said = self.method.partition(":")
        if name == GROWING:
            return "managed-collision", {"evict": "none", "admit": "1"}
        return name, dict(each.split("=", 1) for each in said.split(",") if each)


@dataclass(frozen=True)
class Log:
    """The synthetic log.

    Args:
        path: of its file, or of a folder of shards.
        report: what is known of it: distinct ids, and a line a day.
    """

    path: Path
    report: dict[str, Any]

    @property
    def data(self) -> dict[str, Any]:
        """How it is read."""
        return {
            "label": "label",
            "fields": tuple(self.report["distinct"]),
            "numeric": tuple(f"numeric_{n}" for n in range(self.report["config"]["numeric"])),
            "time": "time",
            "group": "field_0",
        }

    @property
    def full_bytes(self) -> int:
        """Of the float32 table of all ids that it comes to hold."""
        return sum(self.report["distinct"].values()) * WIDTH * 4

    @property
    def inputs(self) -> list[str | Path]:
        """Its files."""
        return [self.path]


def the_log(out: Path, words: SynthConfig) -> Log:
    """The log in `out`: written now, or before."""
    path = out / f"log-{words.rows}-{words.days}-{words.ids}-{words.seed}.parquet"
    report = path.with_name(path.name + ".json")
    if not report.is_file():
        out.mkdir(parents=True, exist_ok=True)
        synthesize(words, path, force=True)
    return Log(path, read_json(report))


def cells(methods: Sequence[str], ratios: Sequence[float], seeds: int) -> Iterator[Cell]:
    """All cells, every method once before a second seed."""
    for seed, ratio, method in product(range(seeds), ratios, methods):
        yield Cell(method, ratio, seed)


def streamed(cell: Cell, log: Log, out: Path) -> dict[str, Any]:
    """A cell's figures, from a stream that is begun or gone on with."""
    method, options = cell.options
    budget: int | None = int(log.full_bytes / cell.ratio)
    if cell.method == GROWING:
        budget, options = None, options | {"capacity": str(sum(log.report["distinct"].values()))}
    said = None if budget is None else str(budget)
    train = TrainConfig(method=method, set=options, budget=said, seed=cell.seed, **TRAINING)
    began = time.perf_counter()
    with drawing(keep=("windows",)) as progress:
        found = stream(
            log.inputs, DataConfig(**log.data), train, StreamConfig(window="1d@first"),
            out / "runs" / cell.name, resume=True, progress=progress,
        )  # fmt: skip
    course = found.course
    return {
        "method": cell.method,
        "ratio": cell.ratio,
        "seed": cell.seed,
        "budget_bytes": budget,
        "auc": course.auc,
        "logloss": course.logloss,
        "most_bytes": max(line.used_bytes or line.bytes or 0 for line in course.lines),
        "training_bytes": max(line.training_bytes or 0 for line in course.lines),
        "days": [
            {
                name: getattr(line, name)
                for name in (
                    *("rows", "auc", "logloss", "bytes", "used_bytes", "churn", "new_values"),
                )
            }
            for line in course.lines
        ],
        "rows_per_second": statistics.median(
            line.rows_per_second for line in course.lines if line.rows_per_second
        ),
        "seconds": time.perf_counter() - began,  # of this sitting
    }


def table(rows: Sequence[dict[str, Any]], log: Log) -> str:
    """The board, a line a method and budget: means over the seeds."""
    best = statistics.fmean(day["bayes_auc"] for day in log.report["days"][1:])
    lines = [
        "| method | ratio | most bytes to serve | mean AUC | first half | second half | log loss | "
        "churn a day | rows/s | seeds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[float, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["ratio"], row["method"]), []).append(row)
    means = {key: statistics.fmean(row["auc"] for row in found) for key, found in groups.items()}
    for key in sorted(groups, key=lambda each: (each[0], -means[each])):
        found = groups[key]
        days = [[day["auc"] for day in row["days"][1:] if day["auc"]] for row in found]
        halves = [
            statistics.fmean(auc for day in days for auc in part(day)) for part in (_early, _late)
        ]
        moved = [day["churn"] for row in found for day in row["days"] if day["churn"] is not None]
        aucs = [row["auc"] for row in found]
        ratio = 1 if key[1] == GROWING else key[0]
        spread = f" ± {statistics.stdev(aucs):.4f}" if len(aucs) > 1 else ""
        lines.append(
            f"| `{key[1]}` | {ratio:g}x | {max(row['most_bytes'] for row in found):,} "
            f"| {means[key]:.4f}{spread} | {halves[0]:.4f} | {halves[1]:.4f} "
            f"| {statistics.fmean(row['logloss'] for row in found):.4f} "
            f"| {f'{statistics.fmean(moved):.1%}' if moved else '-'} "
            f"| {statistics.median(row['rows_per_second'] for row in found):,.0f} | {len(found)} |"
        )
    lines.append(f"| who knows the truth | | | {best:.4f} | | | | | | |")
    return "\n".join(lines)


def _early(days: Sequence[float]) -> Sequence[float]:
    return days[: max(len(days) // 2, 1)]


def _late(days: Sequence[float]) -> Sequence[float]:
    return days[len(days) // 2 :]


def board_parser(
    doc: str | None, *, name: str, rows: float, days: int, ids: float
) -> argparse.ArgumentParser:
    """The options of a board on a synthetic log; a name and the log's size by default."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the log and the runs")
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--name", default=name, help="of the board, and its file")
    parser.add_argument("--rows", type=float, default=rows)
    parser.add_argument("--days", type=int, default=days)
    parser.add_argument("--ids", type=float, default=ids)
    parser.add_argument("--fields", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--page", type=Path, help="a page with the board's marks")
    return parser


def log_of(words: argparse.Namespace) -> Log:
    """The log that a board's options ask for."""
    size = {"rows": int(words.rows), "days": words.days, "ids": int(words.ids)}
    return the_log(words.out, SynthConfig(**size, fields=words.fields))


def tell(words: argparse.Namespace, text: str, names: Sequence[str]) -> None:
    """Print a board's table, put it into the page that was named, and draw the finished runs."""
    print(text)
    if words.page is not None:
        write_between(words.page, MARK.format(words.name), text)
    runs = [words.out / "runs" / name for name in names]
    runs = [run for run in runs if (run / "manifest.json").is_file()]
    if runs and not missing():
        print(f"page: {write_streams_page(runs, words.out)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Go through what is not in the records yet, for so many minutes; then write the table."""
    parser = board_parser(__doc__, name="synthetic", rows=20e6, days=14, ids=2e6)
    parser.add_argument("--methods", default=",".join(METHODS), help="with ; between them, if one "
                        "has options: 'cafe;cafe:hot=0.5,every=50'")  # fmt: skip
    parser.add_argument("--ratios", default="64")
    parser.add_argument("--seeds", type=int, default=1)
    words = parser.parse_args(arguments)
    log = log_of(words)
    file = words.records / f"stream-{words.name}.json"
    record: dict[str, Any] = {"log": log.report["config"], "streams": []}
    if file.is_file():
        record = read_json(file)
        if record["log"] != log.report["config"]:
            raise BitfoldError(
                f"{file} is of another log", got=record["log"], expected=log.report["config"],
                fix="say another --name",
            )  # fmt: skip
    began, rows = time.monotonic(), record["streams"]
    methods = words.methods.split(";" if ";" in words.methods or ":" in words.methods else ",")
    wanted = list(cells(methods, [float(each) for each in words.ratios.split(",")], words.seeds))
    for cell in wanted:
        known = {(row["method"], row["ratio"], row["seed"]) for row in rows}
        if (cell.method, cell.ratio, cell.seed) in known:
            continue
        if time.monotonic() - began > words.minutes * 60:
            print("out of time: the same command goes on", file=sys.stderr)
            break
        try:
            rows.append(streamed(cell, log, words.out))
        except BitfoldError as error:
            print(f"{cell.name}: {error}", file=sys.stderr)
            continue
        record |= {"report": {"days": log.report["days"], "distinct": log.report["distinct"]}}
        write_json(file, record)
    if not rows:
        return 1
    tell(words, table(rows, log), [cell.name for cell in wanted if cell.seed == 0])
    return 0


if __name__ == "__main__":
    sys.exit(main())
