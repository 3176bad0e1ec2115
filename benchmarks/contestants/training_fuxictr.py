"""A DeepFM of FuxiCTR's layers on its base model, driven by its `train_step`.

The package brings layers and base model; its DeepFM is in its collection of examples and not in
the package, so its layers are put together here: embedding, factorization machine, MLP. Nothing is
penalised. Clipping of gradients is part of its step, at its default of 10, and no word turns it
off.
"""

from collections import OrderedDict
from tempfile import gettempdir

from deepfm import BATCHES, LR, Log, race
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import FactorizationMachine, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from process import answer
from torch import Tensor
from turns import Contestant

CLIP = 10.0
LABEL = "label"


class DeepFM(BaseModel):
    """Linear terms from a table of their own, pairwise products, and an MLP."""

    def __init__(self, features: FeatureMap, log: Log) -> None:
        super().__init__(
            features, embedding_regularizer=None, net_regularizer=None, verbose=0,
            model_root=gettempdir(), metrics=["AUC"],
        )  # fmt: skip
        self.embedding = FeatureEmbedding(features, log.dim)
        self.machine = FactorizationMachine(features)
        self.perceptron = MLP_Block(
            input_dim=features.sum_emb_out_dim(), output_dim=1, hidden_units=list(log.hidden)
        )
        self.compile("adam", "binary_crossentropy", LR)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Probabilities `[B, 1]` of a batch."""
        columns = self.get_inputs(inputs)
        vectors = self.embedding(columns)
        logits = self.machine(columns, vectors) + self.perceptron(vectors.flatten(start_dim=1))
        return {"y_pred": self.output_activation(logits)}


def contestant(log: Log) -> Contestant:
    """Its training step."""
    features = FeatureMap("random", gettempdir())
    features.default_emb_dim = log.dim
    features.labels = [LABEL]
    features.features = OrderedDict(
        (name, {"type": "categorical", "source": "", "vocab_size": size})
        for name, size in zip(log.names, log.sizes, strict=True)
    )
    features.num_fields = features.get_num_fields()
    features.set_column_index()
    model = DeepFM(features, log)
    model._max_gradient_norm = CLIP
    model.train()
    batches = [
        {**dict(zip(log.names, ids.t().contiguous(), strict=True)), LABEL: labels}
        for ids, labels in zip(log.ids, log.labels, strict=True)
    ]
    return lambda turn: model.train_step(batches[turn % BATCHES]).item()


answer(lambda settings: race(settings, contestant))
