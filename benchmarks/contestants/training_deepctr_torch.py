"""DeepCTR-Torch's DeepFM: what its `fit` does with a batch, on tensors that are ready.

Its penalties on weights are turned off. The loss is a sum, and both losses are read in every step,
as in its `fit`; metrics are not computed (`verbose=0`).
"""

import sys
from types import ModuleType

from deepfm import BATCHES, Log, race
from process import answer
from turns import Contestant

# As it loads, it asks the package index for its newest version; no benchmark goes to the network.
sys.modules["requests"] = ModuleType("requests")
from deepctr_torch.inputs import SparseFeat  # noqa: E402
from deepctr_torch.models import DeepFM  # noqa: E402


def contestant(log: Log) -> Contestant:
    """Its training step."""
    columns = [
        SparseFeat(name, vocabulary_size=size, embedding_dim=log.dim)
        for name, size in zip(log.names, log.sizes, strict=True)
    ]
    model = DeepFM(
        columns, columns, dnn_hidden_units=tuple(log.hidden), l2_reg_linear=0,
        l2_reg_embedding=0, l2_reg_dnn=0, dnn_dropout=0, dnn_use_bn=False, seed=0,
    )  # fmt: skip
    model.compile("adam", "binary_crossentropy")
    model.train()
    inputs = [ids.float() for ids in log.ids]  # as its loader hands them on

    def step(turn: int) -> None:
        predicted = model(inputs[turn % BATCHES]).squeeze(-1)
        model.optim.zero_grad()
        loss = model.loss_func(predicted, log.labels[turn % BATCHES], reduction="sum")
        total = loss + model.get_regularization_loss() + model.aux_loss
        loss.item()
        total.item()
        total.backward()
        model.optim.step()

    return step


answer(lambda settings: race(settings, contestant))
