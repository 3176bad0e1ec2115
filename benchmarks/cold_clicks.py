"""Click models on items with 1, 2, 4 and 8 clicks: plain, with the mean item, and with ReMarNet.

    python benchmarks/cold_clicks.py --data DATA --out OUT [--minutes 60]

MovieLens-1M, 1,000 users: their rows are dealt to training, validation and test. Of the items with
20 clicked training rows or more, drawn ones keep 1, 2, 4 or 8 of those, and of their other training
rows the same share; validation and test parts stay as they are. Each seed draws users, parts and
cold items anew, and trains twice, plain and with `--cold remarnet`. Four ways are measured on the
same test rows: those of drawn items by their clicks in training, those of items of more than 8
clicks, and all (with them, items that have few clicks by nature):

- `plain`: the model as it is;
- `mean`: the same model, where items of up to 8 clicks have the mean item's vector;
- `prototypes`: the same model, leaning on prototypes by weights learned on the validation part;
- `remarnet`: trained with both heads.

Each seed is a file in `--records` (docs/results), so a stopped board goes on where it was;
`--page FILE` writes the tables between the page's marks, and trains nothing with `--minutes 0`.
"""

import argparse
import csv
import gzip
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from cold import COLD_SHARE, DRAWS, ENOUGH, KEPT, MARK, RECORDS, SEEDS, told
from marks import write_between

from bitfold.comparison.differences import interval
from bitfold.data.config import DataConfig
from bitfold.data.prepare import prepare_or_open
from bitfold.data.prepared import PreparedLog
from bitfold.files import read_json, write_json
from bitfold.nets.cold import ColdIds, ids_of, places_of
from bitfold.nets.model import ClickModel
from bitfold.progress import silent
from bitfold.runs.cold import ColdConfig
from bitfold.runs.folder import load
from bitfold.runs.metrics import auc, logloss
from bitfold.runs.options import TrainConfig
from bitfold.runs.run import Run
from bitfold.training import train
from bitfold.training.cold import ColdTraining
from bitfold.training.rows import TrainingRows

FILE = "ml-1m/ml1m_labels.csv.gz"
USERS = 1000
FIELDS = ("user_id", "movie_id", "gender", "age", "occupation")
LABEL = "label_ge4"
READING = DataConfig(
    label=LABEL, fields=FIELDS, group="user_id", ids="vocabulary", split="column:split"
)
EVERYBODY: dict[str, Any] = {
    "method": "full", "width": 16, "epochs": 10, "batch_size": 1024, "embedding_decay": 1e-4,
    "device": "cpu",
}  # fmt: skip
REMARNET = ColdConfig("remarnet", "movie_id")
WAYS = ("plain", "mean", "prototypes", "remarnet")
GROUPS = (*map(str, KEPT), "more", "all")
FIGURES = ("auc", "logloss")
NAME = "cold-clicks-ml-1m"
CPU = torch.device("cpu")

Floats = npt.NDArray[np.float64]


def thinned(
    data: Path, seed: int, users: int = USERS
) -> tuple[list[tuple[str, ...]], dict[str, int]]:
    """Rows of a log whose drawn items are cold in training: fields, label, part; and the clicks
    that each drawn item keeps.
    """
    with gzip.open(data / FILE, "rt", encoding="utf-8", newline="") as stream:
        rows = [(*(row[name] for name in FIELDS), row[LABEL]) for row in csv.DictReader(stream)]
    draw = np.random.default_rng(seed)
    known = sorted({row[0] for row in rows})
    some = {known[at] for at in draw.permutation(len(known))[:users]}
    rows = sorted(row for row in rows if row[0] in some)
    parts = draw.choice(["train", "valid", "test"], len(rows), p=[0.8, 0.1, 0.1])
    at: dict[str, tuple[list[int], list[int]]] = {}
    for place, row in enumerate(rows):
        if parts[place] == "train":
            at.setdefault(row[1], ([], []))[int(row[-1])].append(place)
    many = sorted(item for item, (_, clicked) in at.items() if len(clicked) >= ENOUGH)
    cold = draw.permutation(many)[: int(COLD_SHARE * len(many))].tolist()
    out: set[int] = set()
    drawn = {item: KEPT[number % len(KEPT)] for number, item in enumerate(cold)}
    for item, kept in drawn.items():
        other, clicked = at[item]
        beside = round(len(other) * kept / len(clicked))
        for places, count in ((clicked, kept), (other, beside)):
            out |= {places[one] for one in draw.permutation(len(places))[count:]}
    left = [
        (*row, str(part))
        for place, (row, part) in enumerate(zip(rows, parts, strict=True))
        if place not in out
    ]
    return left, drawn


def opened(
    seed: int, data: Path, out: Path, users: int = USERS
) -> tuple[PreparedLog, dict[str, int]]:
    """The prepared log of a seed, and the clicks that its drawn items keep."""
    file = out / f"{NAME}-{seed}.csv"
    rows, drawn = thinned(data, seed, users)
    if not file.exists():
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow((*FIELDS, LABEL, "split"))
            writer.writerows(rows)
    return prepare_or_open([file], out / "logs" / f"{NAME}-{seed}", READING), drawn


def trained(
    log: PreparedLog, cold: ColdConfig, seed: int, place: Path, words: Mapping[str, Any]
) -> Run:
    """A run of the log."""
    config = TrainConfig(seed=seed, **(EVERYBODY | dict(words)))
    place.parent.mkdir(parents=True, exist_ok=True)
    train([log.path], None, config, place, cold=cold, floors=False, resume=place.exists())
    return load(place)


@torch.no_grad()
def logits_of(model: ClickModel, rows: TrainingRows, part: str) -> Floats:
    """The logits of a part's rows."""
    return np.concatenate([model(b).double().numpy() for b in rows.batches(part, 8192)])


def facts_of(
    run: Run, rows: TrainingRows, cold: ColdTraining, drawn: Mapping[str, int], part: str
) -> tuple[Floats, npt.NDArray[Any], npt.NDArray[Any]]:
    """Labels, places among `GROUPS` (-1: in none but all), and users of a part's rows."""
    raw = [dict.fromkeys(FIELDS, "1") | {"movie_id": item} for item in drawn]
    made = torch.cat([batch.ids[:, cold.field] for batch in run.batches(raw)])
    place = torch.tensor([KEPT.index(kept) for kept in drawn.values()])
    made, order = made.sort()
    labels, where, users = [], [], []
    for batch in rows.batches(part, 8192):
        ids = ids_of(batch.ids, batch.offsets, cold.field, batch.rows)
        at = places_of(made, ids)
        many = torch.where(places_of(cold.others, ids) >= 0, len(KEPT), -1)
        where.append(torch.where(at >= 0, place[order][at.clamp_min(0)], many).numpy())
        labels.append(np.asarray(batch.labels, np.float64))
        users.append(batch.ids[:, 0].numpy())
    return tuple(map(np.concatenate, (labels, where, users)))  # type: ignore[return-value]


def told_weights(cold: ColdIds, own: float) -> ColdIds:
    """The same cold ids, as the mean item (0) or as they are (1)."""
    with torch.no_grad():
        cold.weights.zero_()[:, 0] = own
    return cold


def scored(
    plain: Run, remarnet: Run, rows: TrainingRows, cold: ColdTraining, part: str
) -> tuple[dict[str, Floats], dict[str, Any]]:
    """Each way's logits of a part, and the weights that prototypes are leaned on by."""
    model = plain.model
    found = {"plain": logits_of(model, rows, part)}
    model.cold = cold.learned(model, rows, CPU, silent)
    facts = {"prototypes": dict(model.cold.figures)}
    found["prototypes"] = logits_of(model, rows, part)
    model.cold = told_weights(model.cold, 0.0)
    found["mean"] = logits_of(model, rows, part)
    model.cold = None
    found["remarnet"] = logits_of(remarnet.model, rows, part)
    assert remarnet.model.cold is not None
    return found, facts | {"remarnet": dict(remarnet.model.cold.figures)}


def figures_of(labels: Floats, logits: Floats, kept: npt.NDArray[np.bool_]) -> dict[str, float]:
    """AUC and log loss of some rows."""
    chances = 1 / (1 + np.exp(-logits[kept]))
    return {"auc": auc(labels[kept], logits[kept]), "logloss": logloss(labels[kept], chances)}


def kept_of(where: npt.NDArray[Any], name: str) -> npt.NDArray[np.bool_]:
    """The rows of a group of `GROUPS`."""
    return np.ones(len(where), bool) if name == "all" else where == GROUPS.index(name)


def measured(seed: int, said: argparse.Namespace) -> dict[str, Any]:
    """The figures of a seed, all ways on the same test rows; the runs are removed."""
    log, drawn = opened(seed, said.data, said.out)
    rows = TrainingRows(log)
    runs = {
        cold.cold: trained(log, cold, seed, said.out / "runs" / f"{seed}-{cold.cold}", said.options)
        for cold in (ColdConfig(), REMARNET)
    }
    cold = ColdTraining.of(rows, REMARNET)
    assert cold is not None
    found, facts = scored(runs["none"], runs["remarnet"], rows, cold, "test")
    labels, where, users = facts_of(runs["none"], rows, cold, drawn, "test")
    shutil.rmtree(said.out / "runs", ignore_errors=True)
    return {
        "log": "ml-1m",
        "seed": seed,
        "rows": {name: int(kept_of(where, name).sum()) for name in GROUPS},
        "means": {
            way: {name: figures_of(labels, each, kept_of(where, name)) for name in GROUPS}
            for way, each in found.items()
        },
        "users": boots(labels, where, users, found, seed),
        "weights": facts,
        "runs": {
            name: {key: run.metrics[key] for key in ("auc", "bytes", "best_epoch", "seconds")}
            for name, run in runs.items()
        },
    }


def boots(
    labels: Floats,
    where: npt.NDArray[Any],
    users: npt.NDArray[Any],
    found: Mapping[str, Floats],
    seed: int,
) -> dict[str, dict[str, list[float]]]:
    """ReMarNet's AUC less each other way's: 95 % intervals from users drawn with replacement."""
    _, user = np.unique(users, return_inverse=True)
    draw = np.random.default_rng(seed)
    out: dict[str, dict[str, list[float]]] = {way: {} for way in WAYS[:-1]}
    for name in GROUPS:
        kept = kept_of(where, name)
        mine, truth = user[kept], labels[kept]
        draws = []
        for _ in range(DRAWS // 5):
            counts = draw.multinomial(user.max() + 1, np.full(user.max() + 1, 1 / (user.max() + 1)))
            draws.append(counts[mine].astype(np.float64))
        ours = np.array([auc(truth, found["remarnet"][kept], each) for each in draws])
        for way in WAYS[:-1]:
            less = ours - [auc(truth, found[way][kept], each) for each in draws]
            whole = auc(truth, found["remarnet"][kept]) - auc(truth, found[way][kept])
            out[way][name] = [float(whole), *map(float, np.nanquantile(less, (0.025, 0.975)))]
    return out


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """Figures by clicks, and what ReMarNet has more than each other way, seed by seed."""
    heads = ("clicks", "test rows a seed", "way", "AUC", "log loss")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name in GROUPS:
        count = f"{np.mean([row['rows'][name] for row in rows]):,.0f}"
        for way in WAYS:
            cells = [row["means"][way][name] for row in rows]
            values = (f"{np.mean([cell[figure] for cell in cells]):.4f}" for figure in FIGURES)
            lines.append("| " + " | ".join((name, count, way, *values)) + " |")
    heads = ("clicks", "ReMarNet less", "AUC", "log loss", "AUC, seed 0's users")
    lines += ["", "| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name in GROUPS:
        for way in WAYS[:-1]:
            texts = [
                told(
                    interval(
                        [
                            row["means"]["remarnet"][name][figure] - row["means"][way][name][figure]
                            for row in rows
                        ]
                    )
                )
                for figure in FIGURES
            ]
            texts.append(told(rows[0]["users"][way][name]))
            lines.append("| " + " | ".join((name, way, *texts)) + " |")
    return "\n".join(lines)


def page(path: Path, records: Path) -> None:
    """Write the tables between the page's marks."""
    files = sorted(records.glob(f"{NAME}-[0-9]*.json"))
    made = "Not measured yet."
    if files:
        title = f"MovieLens-1M, {USERS:,} users; {len(files)} seeds."
        made = f"{title}\n\n{tables([*map(read_json, files)])}"
    write_between(path, MARK.format("clicks"), made)


def option(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    return name, type(getattr(TrainConfig(), name))(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("bench-out/cold"))
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE", type=option)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--page", type=Path)
    said = parser.parse_args()
    said.options = dict(said.set)
    said.records.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * said.minutes
    for seed in map(int, said.seeds.split(",")):
        file = said.records / f"{NAME}-{seed}.json"
        if file.exists() or time.monotonic() >= until:
            continue
        if said.data is None:
            sys.exit("say --data: the folder of the logs")
        said.out.mkdir(parents=True, exist_ok=True)
        found = measured(seed, said)
        write_json(file, found)
        print(seed, flush=True)
        for name in GROUPS:
            for way in WAYS:
                print(name, found["rows"][name], way, found["means"][way][name], flush=True)
    if said.page is not None:
        page(said.page, said.records)


if __name__ == "__main__":
    main()
