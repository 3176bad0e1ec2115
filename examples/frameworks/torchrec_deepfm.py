"""TorchRec's DeepFM on MovieLens-1M, within a byte budget: KeyedJaggedTensor in, KeyedTensor out.

    python examples/frameworks/torchrec_deepfm.py --data ../shared/data --budget 10x

`bitfold.fold` finds the `EmbeddingBagCollection`'s tables and swaps them inside of it. A folded
collection is for one process or DDP: TorchRec's sharding needs tables of its own.
"""

import torch
from ml1m import (
    FIELDS,
    HIDDEN,
    WIDTH,
    Told,
    arguments,
    fit,
    read,
    scores,
    table_bytes,
)  # fmt: skip
from torch import nn
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor
from torchrec.models.deepfm import SimpleDeepFMNN

import bitfold


def make(sizes: dict[str, int]) -> SimpleDeepFMNN:
    """DeepFM of one dense feature, which is 1 here, and a table a field."""
    tables = [
        EmbeddingBagConfig(
            name=f"table_{name}", embedding_dim=WIDTH, num_embeddings=sizes[name],
            feature_names=[name],
        ) for name in FIELDS
    ]  # fmt: skip
    collection = EmbeddingBagCollection(tables)
    return SimpleDeepFMNN(1, collection, hidden_layer_size=HIDDEN[0], deep_fm_dimension=HIDDEN[1])


def jagged(ids: torch.Tensor) -> KeyedJaggedTensor:
    """Ids `[B, F]`, one in each bag, field by field."""
    lengths = torch.ones(ids.numel(), dtype=torch.int32)
    return KeyedJaggedTensor(list(FIELDS), ids.t().flatten(), lengths=lengths)


class Logits(nn.Module):
    """The model without its last sigmoid, as the loss wants it."""

    def __init__(self, model: SimpleDeepFMNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits `[B]` of ids `[B, F]`."""
        chance = self.model(torch.ones(len(ids), 1), jagged(ids)).squeeze(-1)
        return torch.logit(chance, eps=1e-6)


def main() -> None:
    args = arguments(epochs=10)
    log = read(args.data, args.rows)
    model = make(log.sizes)
    size = table_bytes(model)
    if args.budget:
        report = bitfold.fold(model, args.budget)
        print(report)
        size = report.bytes
    logits = Logits(model)
    optimizer = torch.optim.Adam(logits.parameters(), lr=1e-3)
    told = Told(size)
    fit(logits, logits, optimizer, log, args)
    told.tell(scores(logits, logits, log.test), log)


if __name__ == "__main__":
    main()
