"""A DeepFM as a `LightningModule` on MovieLens-1M, within a byte budget.

    python examples/frameworks/lightning_deepfm.py --data ../shared/data --budget 10x

Folding belongs into the constructor: `load_from_checkpoint` then builds the same tables, and
`configure_optimizers` finds them.
"""

import tempfile
import warnings
from itertools import pairwise

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from ml1m import BATCH, FIELDS, HIDDEN, WIDTH, Part, Told, arguments, read, table_bytes
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
)

import bitfold

warnings.filterwarnings("ignore", ".*does not have many workers.*")


class DeepFM(lightning.LightningModule):
    """Tables of width `WIDTH` and of width 1, pairwise products, an MLP."""

    def __init__(self, sizes: dict[str, int], budget: str | None = None) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.vectors = nn.ModuleDict({name: nn.Embedding(sizes[name], WIDTH) for name in FIELDS})
        self.weights = nn.ModuleDict({name: nn.Embedding(sizes[name], 1) for name in FIELDS})
        for table in (*self.vectors.values(), *self.weights.values()):
            nn.init.normal_(table.weight, std=0.01)
        widths = [len(FIELDS) * WIDTH, *HIDDEN]
        layers = [(nn.Linear(*pair), nn.ReLU()) for pair in pairwise(widths)]
        self.mlp = nn.Sequential(
            *(each for pair in layers for each in pair), nn.Linear(HIDDEN[-1], 1)
        )
        self.report = bitfold.fold(self, budget) if budget else None
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits `[B]` of ids `[B, F]`."""
        columns = dict(zip(FIELDS, ids.unbind(1), strict=True))
        vectors = torch.stack([self.vectors[name](ids) for name, ids in columns.items()], 1)
        linear = sum(self.weights[name](ids) for name, ids in columns.items())
        pairs = (vectors.sum(1).square() - vectors.square().sum(1)).sum(1, keepdim=True) / 2
        return (linear + pairs + self.mlp(vectors.flatten(1))).squeeze(1)

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        """The loss of a batch."""
        ids, labels = batch
        return nn.functional.binary_cross_entropy_with_logits(self(ids), labels)

    def validation_step(self, batch: list[torch.Tensor]) -> None:
        """Keep scores and labels."""
        self.seen.append((self(batch[0]), batch[1]))

    def on_validation_epoch_end(self) -> None:
        """Log the AUC."""
        scored, labels = (torch.cat(each) for each in zip(*self.seen, strict=True))
        self.seen.clear()
        self.log("auc", roc_auc_score(labels, scored), prog_bar=True)

    def predict_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        """Scores of a batch."""
        return self(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam on whatever the tables are now."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def loader(part: Part, rows: int, shuffle: bool = False) -> DataLoader:
    """Whole batches at a time."""
    data = TensorDataset(part.ids, part.labels)
    order = RandomSampler(data) if shuffle else SequentialSampler(data)
    return DataLoader(data, sampler=BatchSampler(order, rows, False), batch_size=None)


def main() -> None:
    args = arguments(epochs=10)
    log = read(args.data, args.rows)
    whole = table_bytes(DeepFM(log.sizes))
    model = DeepFM(log.sizes, args.budget)
    print(model.report)
    with tempfile.TemporaryDirectory() as folder:
        best = ModelCheckpoint(folder, monitor="auc", mode="max")
        trainer = lightning.Trainer(
            accelerator="cpu", max_epochs=args.epochs, logger=False, enable_progress_bar=False,
            callbacks=[EarlyStopping("auc", mode="max", patience=1), best],
            num_sanity_val_steps=0,
        )  # fmt: skip
        told = Told(model.report.bytes if model.report else whole)
        trainer.fit(model, loader(log.train, BATCH, shuffle=True), loader(log.valid, 8192))
        scored = trainer.predict(model, loader(log.test, 8192), ckpt_path=best.best_model_path)
    told.tell(torch.cat(scored), log)


if __name__ == "__main__":
    main()
