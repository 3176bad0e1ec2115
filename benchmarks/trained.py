"""From trained tables: a DeepFM on MovieLens-1M, folded after it was trained.

`python -m benchmarks.trained --data ../shared/data` trains the full tables to their best epoch of
validation, folds a copy at each budget with `fit=True`, and prints the test AUC of the full model,
of the fit alone, of the fit and one epoch of training, and of a model folded before its training
(to its best epoch too), at the same bytes. The one epoch has a rate that rises for a tenth of it
and falls to zero; its peak is the one of `PEAKS` whose validation AUC is best. As such a rate helps
a model that is trained from scratch as well, that is shown too: its best epoch, and one more.
"""

import argparse
import copy
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

import bitfold

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "frameworks"))
import ml1m

LR, PEAKS = 1e-3, (2e-3, 4e-3, 8e-3)
"""Rates of Adam: from scratch, and the highest of the one epoch."""
WARM = 0.1
"""The part of that epoch in which the rate rises."""


class DeepFM(nn.Module):
    """Linear terms, pairs and a network, over tables in lists."""

    def __init__(self, sizes: list[int], width: int = ml1m.WIDTH) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size in sizes)
        self.linear = nn.ModuleList(nn.Embedding(size, 1) for size in sizes)
        for table in (*self.tables, *self.linear):
            nn.init.normal_(table.weight, std=0.01)
        layers: list[nn.Module] = []
        for before, after in zip([width * len(sizes), *ml1m.HIDDEN], ml1m.HIDDEN, strict=False):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.deep = nn.Sequential(*layers, nn.Linear(ml1m.HIDDEN[-1], 1))

    def forward(self, ids: Tensor) -> Tensor:
        """Logits `[B]`."""
        columns = ids.unbind(1)
        found = torch.stack([t(c) for t, c in zip(self.tables, columns, strict=True)], 1)
        first = sum(t(c) for t, c in zip(self.linear, columns, strict=True))
        pairs = 0.5 * (found.sum(1).square() - found.square().sum(1)).sum(1)
        return first.squeeze(1) + pairs + self.deep(found.flatten(1)).squeeze(1)


def auc(model: nn.Module, part: ml1m.Part) -> float:
    """The AUC of a part's rows."""
    return float(roc_auc_score(part.labels.numpy(), ml1m.scores(model, model, part)))


def trained(model: nn.Module, log: ml1m.Log, epochs: int, seed: int, lr: float) -> nn.Module:
    """The model at its best epoch of validation."""
    said = argparse.Namespace(epochs=epochs, seed=seed)
    ml1m.fit(model, model, torch.optim.Adam(model.parameters(), lr), log, said)
    return model


def one_epoch(model: nn.Module, log: ml1m.Log, seed: int) -> nn.Module:
    """The model after one more epoch, at the peak rate that validates best."""
    best, kept = 0.0, model
    for peak in PEAKS:
        trial = copy.deepcopy(model).train()
        optimizer = torch.optim.Adam(trial.parameters(), peak)
        steps = -(-len(log.train.labels) // ml1m.BATCH)
        rate = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda n, steps=steps: min(n / steps / WARM, 1 - n / steps)
        )
        draw, loss = torch.Generator().manual_seed(seed), nn.BCEWithLogitsLoss()
        for batch in log.train.batches(ml1m.BATCH, draw):
            optimizer.zero_grad()
            loss(trial(batch.ids), batch.labels).backward()
            optimizer.step()
            rate.step()
        valid = auc(trial, log.valid)
        if valid > best:
            best, kept = valid, trial
    return kept


def counted(log: ml1m.Log) -> dict[str, Tensor]:
    """How often each id occurs in training, by table."""
    found = {}
    for place, size in enumerate(log.sizes.values()):
        often = torch.bincount(log.train.ids[:, place], minlength=size)
        found |= {f"tables.{place}": often, f"linear.{place}": often}
    return found


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default="../shared/data")
    parser.add_argument("--budgets", nargs="+", default=["10x", "50x"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=12)
    said = parser.parse_args()
    log = ml1m.read(said.data)
    counts, rows = counted(log), []
    for seed in said.seeds:
        torch.manual_seed(seed)
        start = DeepFM(list(log.sizes.values()))
        full = trained(copy.deepcopy(start), log, said.epochs, seed, LR)
        whole = auc(full, log.test)
        for budget in said.budgets:
            fold = bitfold.fold(full, budget, fit=True, counts=counts, seed=seed, inplace=False)
            alone = auc(fold.model, log.test)
            tuned = auc(one_epoch(fold.model, log, seed), log.test)
            fresh = bitfold.fold(copy.deepcopy(start), budget, seed=seed)
            trained(fresh.model, log, said.epochs, seed, LR)
            scratch = auc(fresh.model, log.test)
            more = auc(one_epoch(fresh.model, log, seed), log.test)
            rows.append((budget, fold.bytes, whole, alone, tuned, scratch, more))
            print(seed, *rows[-1], flush=True)
    print("budget     bytes    full  fit alone  lift kept  fit + epoch  from scratch  + epoch")
    for budget in said.budgets:
        found = np.array([row[1:] for row in rows if row[0] == budget])
        size, whole, alone, tuned, scratch, more = found.mean(0)
        kept = (alone - 0.5) / (whole - 0.5)
        print(
            f"{budget:8} {size:8,.0f}  {whole:.4f}  {alone:9.4f}  {kept:9.1%}  "
            f"{tuned:11.4f}  {scratch:12.4f}  {more:7.4f}"
        )
    print(f"seeds: {len(said.seeds)}")


if __name__ == "__main__":
    main()
