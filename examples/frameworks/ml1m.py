"""MovieLens-1M for the examples beside it: the same rows, fields, split and figures for all.

`label_ge4` says whether a rating was 4 or 5. Seven fields; 80, 10 and 10 % of the rows to train,
validate and test, drawn by a hash of the row's number: the log and split of the board "ml-1m-auto"
in docs/results.md.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

import bitfold
from bitfold.data import PreparedLog

USER = ("user_id", "gender", "age", "occupation", "zip")
ITEM = ("movie_id", "year")
FIELDS = ("user_id", "movie_id", "gender", "age", "occupation", "zip", "year")
LABEL = "label_ge4"
WIDTH = 16
HIDDEN = [64, 32]
BATCH = 1024
FILE = "ml-1m/ml1m_labels.csv.gz"


@dataclass(frozen=True)
class Part:
    """Rows of one part: `ids` [R, F] in the order of `FIELDS`, `labels` [R] of 0.0 and 1.0."""

    ids: torch.Tensor
    labels: torch.Tensor

    def columns(self) -> dict[str, np.ndarray]:
        """The ids as an array a field, as most frameworks ask for them."""
        return {name: self.ids[:, place].numpy() for place, name in enumerate(FIELDS)}

    def batches(self, rows: int, draw: torch.Generator | None = None) -> Iterator["Part"]:
        """Batches; in an order that `draw` draws, if there is one."""
        count = len(self.labels)
        order = torch.arange(count) if draw is None else torch.randperm(count, generator=draw)
        for some in order.split(rows):
            yield Part(self.ids[some], self.labels[some])


@dataclass(frozen=True)
class Log:
    """The three parts, and how many ids each field has."""

    sizes: dict[str, int]
    train: Part
    valid: Part
    test: Part

    @property
    def parts(self) -> tuple[Part, Part, Part]:
        """All three, in that order."""
        return self.train, self.valid, self.test


def arguments(epochs: int) -> argparse.Namespace:
    """The options that all examples have."""
    say = argparse.ArgumentParser()
    say.add_argument("--data", type=Path, default="../shared/data", help="public sets, or the log")
    say.add_argument("--budget", default="none", help="10x, 64KiB ...; none leaves the model as is")
    say.add_argument("--epochs", type=int, default=epochs, help="at most")
    say.add_argument("--seed", type=int, default=0)
    say.add_argument("--rows", type=int, help="only the first rows of each part, to try it")
    found = say.parse_args()
    found.budget = None if found.budget == "none" else found.budget
    torch.manual_seed(found.seed)
    return found


def prepared(data: Path, out: Path | None = None) -> PreparedLog:
    """The prepared log in `data`, or the one made of the public set there."""
    if (data / "log.json").is_file():
        return PreparedLog(data)
    return bitfold.prepare(
        data / FILE, out, label=LABEL, fields=FIELDS, group="user_id",
        split="random:0.8,0.1,0.1", ids="vocabulary", progress=False,
    )  # fmt: skip


def read(data: Path, rows: int | None = None) -> Log:
    """The log in memory; with `rows`, the first so many of each part."""
    log = prepared(data)
    parts = []
    for part in ("train", "valid", "test"):
        batches = list(log.batches(part, 1 << 17))
        ids = torch.cat([batch.ids for batch in batches])[:rows]
        parts.append(Part(ids, torch.cat([batch.labels for batch in batches])[:rows]))
    return Log({field.name: field.num_embeddings for field in log.schema.fields}, *parts)


def table_bytes(model: nn.Module) -> int:
    """What a model's tables take that are plain ones."""
    tables = [each for each in model.modules() if isinstance(each, nn.Embedding | nn.EmbeddingBag)]
    return sum(weight.nbytes for weight in {table.weight for table in tables})


def fit(
    model: nn.Module,
    logits: Callable[[torch.Tensor], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    log: Log,
    args: argparse.Namespace,
) -> None:
    """A plain loop that keeps the best epoch of validation.

    Args:
        model: what is trained.
        logits: of a batch's ids `[B, F]`, one a row.
        optimizer: of the model's parameters, made after folding.
        log: the rows.
        args: `epochs` and `seed`.
    """
    draw, loss = torch.Generator().manual_seed(args.seed), nn.BCEWithLogitsLoss()
    best, kept = 0.0, None
    for epoch in range(args.epochs):
        model.train()
        for batch in log.train.batches(BATCH, draw):
            optimizer.zero_grad()
            loss(logits(batch.ids), batch.labels).backward()
            optimizer.step()
        auc = roc_auc_score(log.valid.labels, scores(model, logits, log.valid))
        print(f"epoch {epoch}: validation AUC {auc:.4f}")
        if auc <= best:
            break
        best, kept = auc, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(kept)


@torch.no_grad()
def scores(model: nn.Module, logits: Callable, part: Part) -> np.ndarray:
    """Probabilities of a part's rows."""
    model.eval()
    return torch.cat([logits(batch.ids) for batch in part.batches(8192)]).sigmoid().numpy()


class Told:
    """The figures of a run: made where training begins, told when the test rows are scored.

    Times are the processor's, and a step's is the median from one optimizer's step to the next, so
    that what else the machine does, validation, and the first step, which compiles, stay out.
    """

    def __init__(self, tables: int) -> None:
        self.tables = tables
        self.ends = [time.process_time()]
        register_optimizer_step_post_hook(lambda *_: self.ends.append(time.process_time()))

    def tell(self, scored: np.ndarray, log: Log) -> None:
        """Print a line for people and one of JSON."""
        first, *steps = np.diff(self.ends)
        found = {
            "auc": float(roc_auc_score(log.test.labels.numpy(), np.asarray(scored).ravel())),
            "bytes": self.tables,
            "rows_per_second": round(BATCH / np.median(steps)),
            "first_step": round(first, 1),
            "epochs": round(len(self.ends[1:]) * BATCH / len(log.train.labels)),
            "resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        print(
            f"test AUC {found['auc']:.4f}, tables {found['bytes']:,} B, "
            f"training {found['rows_per_second']:,} rows/s, resident {found['resident'] >> 20} MiB"
        )
        print(json.dumps(found))
