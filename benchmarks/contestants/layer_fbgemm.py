"""FBGEMM's table-batched embedding on the CPU: one table, bags of one id.

Row-wise Adagrad is part of its backward pass.
"""

from collections.abc import Sequence
from typing import Any

import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice,
    SplitTableBatchedEmbeddingBagsCodegen,
)
from layer import Runs, race, stepper
from process import answer
from torch import Tensor
from turns import RING


def measured(settings: dict[str, Any]) -> dict[str, Any]:
    """The race of the layer that the settings describe."""
    table = SplitTableBatchedEmbeddingBagsCodegen(
        [(settings["ids"], settings["dim"], EmbeddingLocation.HOST, ComputeDevice.CPU)],
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=0.01,
    )
    table.init_embedding_weights_uniform(-0.01, 0.01)
    offsets = torch.arange(settings["rows"] + 1)

    def layer(batches: Sequence[Tensor], grads: Tensor) -> Runs:
        def forward(turn: int) -> Any:
            return table(batches[turn % RING], offsets)

        return Runs(forward, stepper(forward, grads, None))

    return race(settings, layer)


answer(measured)
