"""Items with 1, 2, 4 and 8 clicks: two towers plain, with the mean item, and with ReMarNet.

    python benchmarks/cold.py --data DATA --out OUT [--logs ml-1m,gowalla] [--minutes 60]

Of the items with 20 training clicks or more, drawn ones keep 1, 2, 4 or 8 of them; validation and
test parts stay as they are, so that cold items have test pairs enough. Each seed draws users, parts
and cold items anew, and trains twice, plain and with `--cold remarnet`. Four ways are measured:

- `plain`: the towers as they are;
- `mean`: the same towers, where an item that was made cold has the mean item's vector;
- `prototypes`: the same towers, leaning on prototypes by weights learned on the validation part;
- `remarnet`: trained with both heads.

Each seed and log is a file in `--records` (docs/results), so a stopped board goes on where it was;
`--page FILE` writes the tables between the page's marks, and trains nothing with `--minutes 0`.
The logs are not part of the project: `--data` has `gowalla/interactions.csv.gz` and the others.
"""

import argparse
import csv
import gzip
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from marks import write_between

from bitfold.comparison.differences import interval
from bitfold.data.config import DataConfig
from bitfold.data.prepare import prepare_or_open
from bitfold.data.prepared import PreparedLog
from bitfold.files import read_json, write_json
from bitfold.nets.cold import NAMES
from bitfold.ranking.scoring import Ranking
from bitfold.retrieval.by_clicks import PairFigures, pair_figures
from bitfold.retrieval.job import retrieve
from bitfold.retrieval.measuring import asked_vectors
from bitfold.retrieval.options import RetrieveConfig
from bitfold.retrieval.positives import Positives
from bitfold.retrieval.prototypes import clicks
from bitfold.retrieval.remarnet import leaned, ranges

RECORDS = Path(__file__).resolve().parents[1] / "docs" / "results"
SEEDS = (0, 1, 2)
KEPT = (1, 2, 4, 8)
COLD_SHARE = 0.4  # of the items with ENOUGH clicks, a quarter of it to each of KEPT
ENOUGH = 20
WAYS = ("plain", "mean", "prototypes", "remarnet")
FIGURES = ("recall@20", "ndcg@20", "auc", "auc_alike")
DRAWS = 1000  # of users, for the bootstrap
MARK = "<!-- cold: {} -->"


@dataclass(frozen=True)
class Log:
    """A log: its file under `--data`, its columns, how many users are drawn."""

    title: str
    file: str
    user: str
    item: str
    label: str | None
    users: int


LOGS = {
    "ml-1m": Log(
        "MovieLens-1M, 600 users",
        "ml-1m/ml1m_labels.csv.gz",
        *("user_id", "movie_id", "label_ge4", 600),
    ),
    "gowalla": Log(
        "Gowalla, 2,000 users",
        "gowalla/interactions.csv.gz",
        *("user", "item", None, 2000),
    ),
}  # fmt: skip
READING = DataConfig(
    fields=("user", "item"), group="user", item="item", negatives=1, split="column:split"
)
EVERYBODY: dict[str, Any] = {
    "method": "full", "width": 32, "lr": 0.01, "temperature": 0.1, "rank_at": (20,),
    "batch_size": 1024, "history": 10, "epochs": 8, "patience": 2, "valid_users": 2000,
}  # fmt: skip


def thinned(log: Log, data: Path, seed: int) -> list[tuple[str, str, str]]:
    """Users, items and parts of a log whose drawn items are cold in training."""
    with gzip.open(data / log.file, "rt", encoding="utf-8", newline="") as stream:
        rows = [
            (row[log.user], row[log.item])
            for row in csv.DictReader(stream)
            if log.label is None or float(row[log.label]) > 0.5
        ]
    draw = np.random.default_rng(seed)
    users = sorted({user for user, _ in rows})
    some = {users[at] for at in draw.permutation(len(users))[: log.users]}
    pairs = sorted({row for row in rows if row[0] in some})
    parts = draw.choice(["train", "valid", "test"], len(pairs), p=[0.8, 0.1, 0.1])
    at: dict[str, list[int]] = {}
    for place, (_, item) in enumerate(pairs):
        if parts[place] == "train":
            at.setdefault(item, []).append(place)
    many = sorted(item for item, places in at.items() if len(places) >= ENOUGH)
    cold = draw.permutation(many)[: int(COLD_SHARE * len(many))].tolist()
    out = set()
    for number, item in enumerate(cold):
        out |= {at[item][one] for one in draw.permutation(len(at[item]))[KEPT[number % 4] :]}
    return [
        (*pair, str(part))
        for place, (pair, part) in enumerate(zip(pairs, parts, strict=True))
        if place not in out
    ]


def opened(name: str, seed: int, data: Path, out: Path) -> PreparedLog:
    """The prepared log of a name and a seed."""
    file = out / f"{name}-{seed}.csv"
    if not file.exists():
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("user", "item", "split"))
            writer.writerows(thinned(LOGS[name], data, seed))
    return prepare_or_open([file], out / "logs" / f"{name}-{seed}", READING)


def measured(name: str, seed: int, said: argparse.Namespace) -> dict[str, Any]:
    """The figures of a log and a seed, all ways on the same pairs; the runs are removed."""
    log = opened(name, seed, said.data, said.out)
    found: dict[str, PairFigures] = {}
    facts: dict[str, Any] = {}
    for cold in ("none", "remarnet"):
        words = RetrieveConfig(cold=cold, seed=seed, **(EVERYBODY | said.options))
        place = said.out / "runs" / f"{name}-{seed}-{cold}"
        place.parent.mkdir(parents=True, exist_ok=True)
        run = retrieve(log.path, None, words, place, resume=place.exists())
        positives = Positives.of(log, run.layout)
        test = Ranking.of(log, "test", words.ranking("item"))
        users, vectors = asked_vectors(run.model, positives, test), run.rows.read()
        counts = clicks(positives)
        if cold == "none":
            valid = Ranking.of(log, "valid", words.ranking("item", valid=True))
            found["plain"] = pair_figures(test, users, vectors, counts)
            few = torch.from_numpy(ranges(counts) < len(NAMES) - 1)[:, None]
            mean = torch.where(few, vectors.mean(0), vectors)
            found["mean"] = pair_figures(test, users, mean, counts)
            leant, weights = leaned(run.model, positives, valid, words)
            found["prototypes"] = pair_figures(test, users, leant, counts)
            facts["prototypes"] = weights.figures
        else:
            found["remarnet"] = pair_figures(test, users, vectors, counts)
            facts["remarnet"] = run.metrics["cold"]
        facts[f"run {cold}"] = {
            key: run.metrics[key]
            for key in ("recall@20", "ndcg@20", "bytes", "index_bytes", "best_epoch", "seconds")
        }
    shutil.rmtree(said.out / "runs", ignore_errors=True)
    return {
        "log": name,
        "seed": seed,
        "means": {way: pairs.means() for way, pairs in found.items()},
        "users": boots(found, seed),
        **facts,
    }


def boots(found: dict[str, PairFigures], seed: int) -> dict[str, dict[str, Any]]:
    """ReMarNet less each other way, by clicks: 95 % intervals from users drawn with replacement."""
    ours = found["remarnet"]
    _, user = np.unique(ours.users, return_inverse=True)
    weights = np.random.default_rng(seed).multinomial(
        user.max() + 1, np.full(user.max() + 1, 1 / (user.max() + 1)), DRAWS
    )
    out: dict[str, dict[str, Any]] = {}
    for way in WAYS[:-1]:
        for place, name in enumerate(NAMES):
            rows = ours.range == place
            if not rows.any():
                continue
            counted = np.bincount(user[rows], minlength=weights.shape[1])
            shares = (weights @ counted).clip(1)
            for figure in FIGURES:
                less = (ours.values[figure] - found[way].values[figure])[rows]
                sums = weights @ np.bincount(user[rows], less, minlength=weights.shape[1])
                low, high = np.quantile(sums / shares, (0.025, 0.975))
                each = out.setdefault(way, {}).setdefault(name, {})
                each[figure] = [float(less.mean()), float(low), float(high)]
    return out


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """Figures by clicks, and what ReMarNet has more than each other way, seed by seed."""
    heads = ("clicks", "test pairs a seed", "way", "recall@20", "NDCG@20", "AUC", "AUC, alike")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name in NAMES:
        for way in WAYS:
            cells = [row["means"][way][name] for row in rows]
            pairs = f"{np.mean([cell['pairs'] for cell in cells]):,.0f}"
            values = (f"{np.mean([cell[figure] for cell in cells]):.4f}" for figure in FIGURES)
            lines.append("| " + " | ".join((name, pairs, way, *values)) + " |")
    heads = (
        "clicks",
        "ReMarNet less",
        "recall@20",
        "NDCG@20",
        "AUC",
        "AUC, alike",
        "alike, seed 0's users",
    )
    lines += ["", "| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name in NAMES:
        for way in WAYS[:-1]:
            texts = [
                told(interval([_less(row, way, name, figure) for row in rows]))
                for figure in FIGURES
            ]
            texts.append(told(rows[0]["users"][way][name]["auc_alike"]))
            lines.append("| " + " | ".join((name, way, *texts)) + " |")
    return "\n".join(lines)


def _less(row: dict[str, Any], way: str, name: str, figure: str) -> float:
    means = row["means"]
    return float(means["remarnet"][name][figure] - means[way][name][figure])


def told(found: Sequence[float | None]) -> str:
    """A mean and its interval."""
    mean, low, high = found
    if low is None or high is None:
        return f"{mean:+.4f}"
    return f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"


def page(path: Path, records: Path) -> None:
    """Write the tables between the page's marks."""
    text = path.read_text(encoding="utf-8")
    for name in LOGS:
        mark = MARK.format(name)
        if mark in text:
            files = sorted(records.glob(f"cold-{name}-[0-9]*.json"))
            made = "Not measured yet."
            if files:
                title = f"{LOGS[name].title}; {len(files)} seeds."
                made = f"{title}\n\n{tables([*map(read_json, files)])}"
            write_between(path, mark, made)


def option(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    return name, type(getattr(RetrieveConfig(), name))(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("bench-out/cold"))
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--logs", default=",".join(LOGS))
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE", type=option)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--page", type=Path)
    said = parser.parse_args()
    said.options = dict(said.set)
    said.records.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * said.minutes
    for seed in map(int, said.seeds.split(",")):
        for name in said.logs.split(","):
            file = said.records / f"cold-{name}-{seed}.json"
            if file.exists() or time.monotonic() >= until:
                continue
            if said.data is None:
                sys.exit("say --data: the folder of the logs")
            said.out.mkdir(parents=True, exist_ok=True)
            found = measured(name, seed, said)
            write_json(file, found)
            print(name, seed, flush=True)
            for clicks_of in NAMES:
                for way in WAYS:
                    print(clicks_of, way, found["means"][way].get(clicks_of), flush=True)
    if said.page is not None:
        page(said.page, said.records)


if __name__ == "__main__":
    main()
