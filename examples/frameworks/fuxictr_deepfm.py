"""A DeepFM of FuxiCTR's layers on MovieLens-1M, within a byte budget.

    python examples/frameworks/fuxictr_deepfm.py --data ../shared/data --budget 10x

Its models make the optimizer in their constructor: folding gives it the new weights.
"""

import tempfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.layers import FactorizationMachine, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from ml1m import BATCH, FIELDS, HIDDEN, LABEL, WIDTH, Told, arguments, read, table_bytes
from torch import Tensor

import bitfold


class DeepFM(BaseModel):
    """As in its model zoo: linear terms from tables of width 1, pairwise products, an MLP."""

    def __init__(self, features: FeatureMap, folder: str) -> None:
        super().__init__(
            features, embedding_regularizer=1e-6, net_regularizer=None, early_stop_patience=1,
            verbose=0, model_root=folder, metrics=["AUC"],
        )  # fmt: skip
        self.embedding_layer = FeatureEmbedding(features, WIDTH)
        self.fm = FactorizationMachine(features)
        self.mlp = MLP_Block(features.sum_emb_out_dim(), HIDDEN, output_dim=1)
        self.compile("adam", "binary_crossentropy", 1e-3)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Probabilities `[B, 1]` of a batch."""
        columns = self.get_inputs(inputs)
        vectors = self.embedding_layer(columns)
        logits = self.fm(columns, vectors) + self.mlp(vectors.flatten(start_dim=1))
        return {"y_pred": self.output_activation(logits)}


def make(sizes: dict[str, int], folder: str) -> DeepFM:
    """DeepFM over dense ids; its best weights go to `folder`."""
    features = FeatureMap("ml-1m", folder)
    features.labels, features.default_emb_dim = [LABEL], WIDTH
    spec = {"type": "categorical", "source": ""}
    features.features = OrderedDict((n, {**spec, "vocab_size": sizes[n]}) for n in FIELDS)
    features.num_fields = features.get_num_fields()
    features.set_column_index()
    (Path(folder) / features.dataset_id).mkdir()
    return DeepFM(features, folder)


def main() -> None:
    args = arguments(epochs=10)
    log = read(args.data, args.rows)
    with tempfile.TemporaryDirectory() as folder:
        model = make(log.sizes, folder)
        size = table_bytes(model)
        if args.budget:
            report = bitfold.fold(model, args.budget)
            print(report)
            size = report.bytes
        files = [f"{folder}/{name}.npz" for name in ("train", "valid", "test")]
        for file, part in zip(files, log.parts, strict=True):
            np.savez(file, **part.columns(), **{LABEL: part.labels.numpy()})
        train, valid, test = RankDataLoader(
            model.feature_map, "both", *files, batch_size=BATCH, num_workers=0
        )
        told = Told(size)
        model.fit(train, epochs=args.epochs, validation_data=valid)
        told.tell(model.predict(test), log)


if __name__ == "__main__":
    main()
