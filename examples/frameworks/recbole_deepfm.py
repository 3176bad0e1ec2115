"""RecBole's DeepFM on MovieLens-1M, within a byte budget.

    python examples/frameworks/recbole_deepfm.py --data ../shared/data --budget 10x

Fold before the trainer, which makes the optimizer. RecBole keeps all fields in one table.
"""

import contextlib
import os
import tempfile
from pathlib import Path

import numpy as np
from ml1m import BATCH, FIELDS, HIDDEN, WIDTH, Log, Told, arguments, read, table_bytes
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.context_aware_recommender.deepfm import DeepFM
from recbole.utils import get_trainer, init_seed

import bitfold

# Its checkpoints hold the configuration as an object, which torch.load takes only from a file
# that is trusted.
os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"


def write(log: Log, folder: Path) -> None:
    """The parts as RecBole's atomic files."""
    (folder / "ml-1m").mkdir()
    heads = "\t".join([*(f"{name}:token" for name in FIELDS), "label:float"])
    for name, part in zip(("train", "valid", "test"), log.parts, strict=True):
        rows = np.column_stack([part.ids.numpy(), part.labels.numpy().astype(np.int64)])
        file = folder / "ml-1m" / f"ml-1m.{name}.inter"
        np.savetxt(file, rows, "%d", "\t", header=heads, comments="")


def settings(folder: Path, epochs: int, seed: int) -> Config:
    """RecBole's configuration of a click model on files that are split already."""
    said = {
        "data_path": str(folder), "checkpoint_dir": str(folder), "seed": seed, "device": "cpu",
        "benchmark_filename": ["train", "valid", "test"], "load_col": {"inter": [*FIELDS, "label"]},
        "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "movie_id", "LABEL_FIELD": "label",
        "eval_args": {"mode": "labeled", "order": "RO", "group_by": None},
        "train_neg_sample_args": None, "metrics": ["AUC"], "valid_metric": "AUC",
        "embedding_size": WIDTH, "mlp_hidden_size": HIDDEN, "dropout_prob": 0.0,
        "train_batch_size": BATCH, "eval_batch_size": 8192, "epochs": epochs, "stopping_step": 0,
        "show_progress": False, "worker": 0, "gpu_id": "",
    }  # fmt: skip
    return Config("DeepFM", "ml-1m", config_dict=said)


def main() -> None:
    args = arguments(epochs=10)
    log = read(args.data, args.rows)
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
    ):  # it logs to where it is
        write(log, Path(folder))
        config = settings(Path(folder), args.epochs, args.seed)
        dataset = create_dataset(config)
        train, valid, test = data_preparation(config, dataset)
        init_seed(args.seed, True)
        model = DeepFM(config, train.dataset)
        size = table_bytes(model)
        if args.budget:
            report = bitfold.fold(model, args.budget)
            print(report)
            size = report.bytes
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
        told = Told(size)
        trainer.fit(train, valid, show_progress=False)
        trainer.evaluate(test)  # loads the best epoch
        told.tell(np.concatenate([model.predict(batch[0]).detach() for batch in test]), log)


if __name__ == "__main__":
    main()
