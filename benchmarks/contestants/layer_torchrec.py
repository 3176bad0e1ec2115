"""TorchRec's `EmbeddingBagCollection`, unsharded: `nn.EmbeddingBag` inside, bags of one id.

Its gradients are dense, so a step of SGD walks the whole table.
"""

from collections.abc import Sequence
from typing import Any

import torch
from layer import Runs, race, stepper
from process import answer
from torch import Tensor, nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from turns import RING


def measured(settings: dict[str, Any]) -> dict[str, Any]:
    """The race of the layer that the settings describe."""
    torch.set_num_threads(settings["threads"])
    config = EmbeddingBagConfig(
        name="table",
        num_embeddings=settings["ids"],
        embedding_dim=settings["dim"],
        feature_names=["ids"],
        init_fn=lambda weight: nn.init.constant_(weight, 0.01),
    )
    collection = EmbeddingBagCollection(tables=[config], device=torch.device("cpu"))
    sgd = torch.optim.SGD(collection.parameters(), lr=0.01)
    lengths = torch.ones(settings["rows"], dtype=torch.int64)

    def layer(batches: Sequence[Tensor], grads: Tensor) -> Runs:
        inputs = [KeyedJaggedTensor.from_lengths_sync(["ids"], ids, lengths) for ids in batches]

        def forward(turn: int) -> Any:
            return collection(inputs[turn % RING]).values()

        return Runs(forward, stepper(forward, grads, sgd))

    return race(settings, layer)


answer(measured)
