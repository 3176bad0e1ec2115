"""torch-rechub's DeepFM on MovieLens-1M, within a byte budget.

    python examples/frameworks/torch_rechub_deepfm.py --data ../shared/data --budget 10x

Fold before `CTRTrainer`, which makes the optimizer. `make` makes features of its own each time: a
feature keeps the table that was made for it, and hands it to the next model.
"""

import tempfile

from ml1m import BATCH, FIELDS, HIDDEN, WIDTH, Told, arguments, read, table_bytes
from torch_rechub.basic.features import SparseFeature
from torch_rechub.models.ranking import DeepFM
from torch_rechub.trainers import CTRTrainer
from torch_rechub.utils.data import DataGenerator

import bitfold


def make(sizes: dict[str, int]) -> DeepFM:
    """DeepFM whose two parts read the same tables."""
    features = [SparseFeature(name, sizes[name], embed_dim=WIDTH) for name in FIELDS]
    return DeepFM(features, features, mlp_params={"dims": HIDDEN, "dropout": 0.0})


def main() -> None:
    args = arguments(epochs=10)
    log = read(args.data, args.rows)
    model = make(log.sizes)
    size = table_bytes(model)
    if args.budget:
        report = bitfold.fold(model, args.budget)
        print(report)
        size = report.bytes
    train, valid, test = ((part.columns(), part.labels.numpy()) for part in log.parts)
    loaders = DataGenerator(*train).generate_dataloader(*valid, *test, batch_size=BATCH)
    with tempfile.TemporaryDirectory() as folder:
        trainer = CTRTrainer(model, n_epoch=args.epochs, earlystop_patience=1, model_path=folder)
        told = Told(size)
        trainer.fit(*loaders[:2])
    told.tell(trainer.predict(model, loaders[2]), log)


if __name__ == "__main__":
    main()
