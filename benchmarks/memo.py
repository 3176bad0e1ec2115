"""A board of strategies at aligned memory: fine-tuning, replay and expansion at equal bytes.

    python benchmarks/memo.py --out OUT --rows 1e6 --days 10 --ids 200000 --seeds 3

A synthetic log whose ids are born and die is written once; each strategy goes through it day by
day with one budget for tables, network, copies of its layers and stored rows. Finished streams are
kept in `--records` (docs/results/stream-NAME.json), and one that was stopped goes on where it was;
with `--minutes 0` nothing is trained. `--page FILE` writes the table between the page's marks.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from streams import TRAINING, Log, board_parser, log_of, tell

from bitfold.bars import drawing
from bitfold.data.config import DataConfig
from bitfold.errors import BitfoldError
from bitfold.files import read_json, write_json
from bitfold.runs.options import TrainConfig
from bitfold.streaming import StreamConfig, stream

NAMES = ("finetune", "replay", "expand")
KINDS = ("bytes", "network_bytes", "copy_bytes", "row_bytes")


def streamed(
    name: str, seed: int, log: Log, out: Path, words: argparse.Namespace
) -> dict[str, Any]:
    """The figures of a strategy, from a stream that is begun or gone on with."""
    train = TrainConfig(method=words.method, budget=words.budget, seed=seed, **TRAINING)
    config = StreamConfig(
        window="1d@first", strategy=name, memory="aligned", replay_rows=int(words.replay_rows),
        replay_share=words.replay_share, expand_every=words.expand_every,
    )  # fmt: skip
    with drawing(keep=("windows",)) as progress:
        found = stream(
            log.inputs, DataConfig(**log.data), train, config, out / "runs" / f"{name}-{seed}",
            resume=True, progress=progress,
        )  # fmt: skip
    course, last = found.course, found.course.lines[-1]
    return {
        "strategy": name,
        "seed": seed,
        "auc": course.auc,
        "logloss": course.logloss,
        "most_bytes": course.most_bytes,
        **{kind: getattr(last, kind) for kind in KINDS},
        "days": [line.auc for line in course.lines],
        "rows_per_second": statistics.median(
            line.rows_per_second for line in course.lines if line.rows_per_second
        ),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The board, a line a strategy: means over the seeds."""
    lines = [
        "| strategy | bytes in all | tables | network | copies | rows | mean AUC | first day "
        "| last day | log loss | seeds |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in (each for each in NAMES if any(row["strategy"] == each for row in rows)):
        found = [row for row in rows if row["strategy"] == name]
        aucs = [row["auc"] for row in found]
        spread = f" ± {statistics.stdev(aucs):.4f}" if len(aucs) > 1 else ""
        ends = [statistics.fmean(row["days"][day] for row in found) for day in (1, -1)]
        lines.append(
            f"| `{name}` | {max(row['most_bytes'] for row in found):,} | "
            + " | ".join(f"{found[0][kind]:,}" for kind in KINDS)
            + f" | {statistics.fmean(aucs):.4f}{spread} | {ends[0]:.4f} | {ends[1]:.4f} | "
            f"{statistics.fmean(row['logloss'] for row in found):.4f} | {len(found)} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Go through what is not in the records yet, for so many minutes; then write the table."""
    parser = board_parser(__doc__, name="memo", rows=1e6, days=10, ids=200_000)
    parser.add_argument("--method", default="binary-code")
    parser.add_argument("--budget", default="1MiB", help="of all that is kept")
    parser.add_argument("--replay-rows", type=float, default=3000)
    parser.add_argument("--replay-share", type=float, default=0.2)
    parser.add_argument("--expand-every", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    words = parser.parse_args(arguments)
    log = log_of(words)
    asked = {
        name: getattr(words, name)
        for name in ("method", "budget", "replay_rows", "replay_share", "expand_every")
    }
    file = words.records / f"stream-{words.name}.json"
    record: dict[str, Any] = {"log": log.report["config"], "asked": asked, "streams": []}
    if file.is_file():
        before = read_json(file)
        if (before["log"], before["asked"]) != (record["log"], record["asked"]):
            raise BitfoldError(
                f"{file} is of another board", got=before["asked"], expected=asked,
                fix="say another --name",
            )  # fmt: skip
        record = before
    began, rows = time.monotonic(), record["streams"]
    for seed, name in product(range(words.seeds), NAMES):
        if (name, seed) in {(row["strategy"], row["seed"]) for row in rows}:
            continue
        if time.monotonic() - began > words.minutes * 60:
            print("out of time: the same command goes on", file=sys.stderr)
            break
        rows.append(streamed(name, seed, log, words.out, words))
        write_json(file, record)
    if not rows:
        return 1
    tell(words, table(rows), [f"{name}-0" for name in NAMES])
    return 0


if __name__ == "__main__":
    sys.exit(main())
