"""Two towers at three sizes, with and without a memory of batches, on real logs.

    python benchmarks/retrieval.py --data DATA --out OUT [--logs gowalla,ml-1m] [--minutes 60]

Every cell is a training of `bitfold retrieve`: a log, a ratio to the full table (`full` at 1,
`auto` above), a memory, a seed. Its figures are a file in `--records` (docs/results/retrieval), so
a stopped board goes on where it was; `--page FILE` writes the tables between the page's marks, and
trains nothing with `--minutes 0`. The logs are not part of the project: `--data` has
`gowalla/interactions.csv.gz` (user, item, split) and the others.

The options of all cells were chosen on a validation part; where they are used the towers train on
training and validation together (gowalla: the split of the LightGCN paper), for a fixed number of
epochs, and the test part is looked at once.
"""

import argparse
import gzip
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from marks import write_between

from bitfold.comparison.differences import interval
from bitfold.data.config import DataConfig
from bitfold.data.prepare import prepare_or_open
from bitfold.data.prepared import PreparedLog
from bitfold.files import read_json, write_json
from bitfold.retrieval.job import retrieve
from bitfold.retrieval.options import RetrieveConfig

RECORDS = Path(__file__).resolve().parents[1] / "docs" / "results" / "retrieval"
RATIOS, SEEDS = (1, 10, 50), (0, 1, 2)
MEMORIES = ("none", "plain", "adaptive")
KEPT = (
    *("recall@20", "ndcg@20", "index_recall@20", "index_ndcg@20", "popularity", "users", "items"),
    *("bytes", "map_bytes", "index_bytes", "epochs", "best_epoch", "rows_per_second", "seconds"),
)
MARK = "<!-- retrieval: {} -->"


@dataclass(frozen=True)
class Log:
    """A log: its file under `--data`, how it is read, how everybody on it is trained.

    Args:
        joined: ends of lines that are read as others: which rows of a file train.
    """

    title: str
    file: str
    data: dict[str, Any]
    train: dict[str, Any]
    joined: tuple[str, str] | None = None


# Users are told by what they took alone: a user's own row learns its training items by heart.
PAIRS = {
    "fields": ("item",), "group": "user", "item": "item", "negatives": 1, "split": "column:split",
}  # fmt: skip
FIXED = {"epochs": 12, "history": 100, "lr_end": 0.05, "patience": 0}
GOWALLA = Log(
    "Gowalla, the split of the LightGCN paper",
    "gowalla/interactions.csv.gz",
    PAIRS,
    FIXED | {"epochs": 24, "batch_size": 4096, "lr": 0.02},
    (",valid\n", ",train\n"),
)
LOGS = {
    "gowalla": GOWALLA,
    "gowalla-small-batches": replace(GOWALLA, train=FIXED),
    "amazon-book": Log(
        "A part of Amazon-Book",
        "amazon-book-ngcf-partial/interactions.csv.gz",
        PAIRS,
        FIXED,
        # Its training file is missing: what is called test trains, what is called valid is tested.
        (",test\n", ",train\n"),
    ),
    "ml-1m": Log(
        "MovieLens-1M, each user's last item liked",
        "ml-1m/ml1m_labels.csv.gz",
        {
            "label": "label_ge4",
            "fields": ("movie_id",),
            "group": "user_id",
            "item": "movie_id",
            "time": "seq",
            "split": "last:1,1",
        },
        # The first epoch is about as good as any, so a memory has to be read from its beginning.
        {"epochs": 12, "history": 100, "lr": 0.001, "memory_size": 4096, "memory_after": 0},
    ),
    "ml-small": Log(
        "MovieLens small, each user's last item liked",
        "ml-latest-small/ratings.csv.gz",
        {
            "columns": ("user", "item", "rating", "timestamp"),
            "label": "rating>=4",
            "fields": ("item",),
            "group": "user",
            "item": "item",
            "time": "timestamp",
            "split": "last:1,1",
        },
        {"epochs": 6, "batch_size": 256, "history": 50, "memory_size": 2048, "lr_end": 0.05},
    ),
}  # fmt: skip
EVERYBODY: dict[str, Any] = {
    "width": 64, "batch_size": 1024, "lr": 0.01, "temperature": 0.1, "popularity": 0.5,
    "rank_at": (20,), "index_bits": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A training."""

    log: str
    ratio: int
    memory: str
    seed: int

    @property
    def name(self) -> str:
        """Of its file."""
        return "-".join(str(part) for part in asdict(self).values())


def cells(logs: Sequence[str], ratios: Sequence[int], memories: Sequence[str]) -> Iterator[Cell]:
    """All cells, seed after seed: a board that is stopped has whole rows."""
    for seed in SEEDS:
        for log in logs:
            for memory in memories:
                for ratio in ratios:
                    yield Cell(log, ratio, memory, seed)


def opened(name: str, data: Path, out: Path) -> PreparedLog:
    """The prepared log of a name."""
    log = LOGS[name]
    file = data / log.file
    if log.joined is not None:
        plain = out / f"{name}.csv"
        if not plain.exists():
            with gzip.open(file, "rt", encoding="utf-8") as stream:
                text = stream.read().replace(*log.joined)
            # What is left under the name of another part is the test part.
            plain.write_text(text.replace(",valid\n", ",test\n"), encoding="utf-8")
        file = plain
    config = DataConfig(**log.data)
    return prepare_or_open([file], out / "logs" / name, config)


def trained(cell: Cell, log: PreparedLog, out: Path) -> dict[str, Any]:
    """A cell's figures; its run is removed."""
    size = {"method": "full"} if cell.ratio == 1 else {"budget": f"{cell.ratio}x"}
    words = RetrieveConfig(
        memory=cell.memory, seed=cell.seed, **size, **(EVERYBODY | LOGS[cell.log].train)
    )
    run = out / "runs" / cell.name
    run.parent.mkdir(parents=True, exist_ok=True)

    def tell(stage: str, done: int, total: int | None = None, **facts: object) -> None:
        if done == total and stage.startswith("epoch"):
            print(cell.name, stage, facts, flush=True)

    figures = retrieve(log.path, None, words, run, resume=run.exists(), progress=tell).metrics
    shutil.rmtree(run)
    return asdict(cell) | {name: figures[name] for name in KEPT}


def means(rows: Sequence[dict[str, Any]]) -> str:
    """Figures of one log, a line a ratio and memory."""
    heads = ("memory", "size", "bytes", "recall@20", "NDCG@20", "8-bit index", "its bytes", "seeds")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for memory in MEMORIES:
        for ratio in RATIOS:
            group = [row for row in rows if (row["memory"], row["ratio"]) == (memory, ratio)]
            if not group:
                continue
            figures = [statistics.fmean(row[name] for row in group) for name in KEPT[:3]]
            cell = (
                memory,
                "full" if ratio == 1 else f"{ratio}x",
                f"{group[0]['bytes']:,}",
                *(f"{value:.4f}" for value in figures),
                f"{group[0]['index_bytes']:,}",
                str(len(group)),
            )
            lines.append("| " + " | ".join(cell) + " |")
    popular = rows[0]["popularity"]
    lines.append(
        f"| *popularity* | | | {popular['recall@20']:.4f} | {popular['ndcg@20']:.4f} | | | |"
    )
    return "\n".join(lines)


PAIRED = (("plain", "none"), ("adaptive", "none"), ("adaptive", "plain"))


def differences(rows: Sequence[dict[str, Any]]) -> str:
    """Memories against each other, seed by seed, with Student's interval."""
    heads = ("size", "memory", "against", "recall@20", "NDCG@20", "seeds")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    found = {(row["ratio"], row["memory"], row["seed"]): row for row in rows}
    for ratio in RATIOS:
        for one, other in PAIRED:
            seeds = [
                seed
                for seed in SEEDS
                if (ratio, one, seed) in found and (ratio, other, seed) in found
            ]
            if len(seeds) < 2:
                continue
            texts = []
            for name in ("recall@20", "ndcg@20"):
                mean, low, high = interval(
                    [found[ratio, one, s][name] - found[ratio, other, s][name] for s in seeds]
                )
                texts.append(f"{mean:+.4f} ({low:+.4f} to {high:+.4f})")
            size = "full" if ratio == 1 else f"{ratio}x"
            lines.append("| " + " | ".join((size, one, other, *texts, str(len(seeds)))) + " |")
    return "\n".join(lines) if len(lines) > 2 else "No pair of memories has two seeds yet."


def page(path: Path, records: Path) -> None:
    """Write the tables between the page's marks."""
    text = path.read_text(encoding="utf-8")
    for name in LOGS:
        mark = MARK.format(name)
        if mark in text:
            rows = [read_json(file) for file in sorted(records.glob(f"{name}-[0-9]*.json"))]
            made = f"{means(rows)}\n\n{differences(rows)}" if rows else "Not measured yet."
            write_between(path, mark, made)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("bench-out/retrieval"))
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--logs", default="gowalla,amazon-book,ml-1m")
    parser.add_argument("--ratios", default="1,10,50")
    parser.add_argument("--memories", default=",".join(MEMORIES))
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--page", type=Path)
    said = parser.parse_args()
    said.records.mkdir(parents=True, exist_ok=True)
    ratios = [int(ratio) for ratio in said.ratios.split(",")]
    until = time.monotonic() + 60 * said.minutes
    for cell in cells(said.logs.split(","), ratios, said.memories.split(",")):
        file = said.records / f"{cell.name}.json"
        if file.exists() or time.monotonic() >= until:
            continue
        if said.data is None:
            sys.exit("say --data: the folder of the logs")
        said.out.mkdir(parents=True, exist_ok=True)
        figures = trained(cell, opened(cell.log, said.data, said.out), said.out)
        write_json(file, figures)
        print(figures, flush=True)
    if said.page is not None:
        page(said.page, said.records)


if __name__ == "__main__":
    main()
