"""DeepCTR-Torch's DeepFM on MovieLens-1M, within a byte budget.

    python examples/frameworks/deepctr_torch_deepfm.py --data ../shared/data --budget 10x

Fold before `compile`, which makes the optimizer.
"""

from deepctr_torch.callbacks import EarlyStopping
from deepctr_torch.inputs import SparseFeat
from deepctr_torch.models import DeepFM
from ml1m import BATCH, FIELDS, HIDDEN, WIDTH, Told, arguments, read, table_bytes

import bitfold


def make(sizes: dict[str, int], seed: int = 0) -> DeepFM:
    """DeepFM with DeepCTR's own penalties: L2 of 1e-5 on tables."""
    columns = [SparseFeat(name, sizes[name], embedding_dim=WIDTH) for name in FIELDS]
    return DeepFM(columns, columns, dnn_hidden_units=HIDDEN, seed=seed, device="cpu")


def main() -> None:
    args = arguments(epochs=10)
    log = read(args.data, args.rows)
    model = make(log.sizes, args.seed)
    size = table_bytes(model)
    if args.budget:
        report = bitfold.fold(model, args.budget)
        print(report)
        size = report.bytes
    model.compile("adam", "binary_crossentropy", metrics=["auc"])
    stop = EarlyStopping("val_auc", mode="max", restore_best_weights=True)
    told = Told(size)
    model.fit(
        log.train.columns(), log.train.labels.numpy(), BATCH, args.epochs, verbose=0,
        validation_data=(log.valid.columns(), log.valid.labels.numpy()), callbacks=[stop],
    )  # fmt: skip
    told.tell(model.predict(log.test.columns(), batch_size=8192), log)


if __name__ == "__main__":
    main()
