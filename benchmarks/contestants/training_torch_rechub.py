"""torch-rechub's DeepFM, driven by its trainer, one ready batch at a time.

Its weight decay is turned off. Its MLP has batch norm in every layer, which no word turns off.
"""

from deepfm import BATCHES, LR, Log, race
from process import answer
from torch_rechub.basic.features import SparseFeature
from torch_rechub.models.ranking import DeepFM
from torch_rechub.trainers import CTRTrainer
from turns import Contestant


def contestant(log: Log) -> Contestant:
    """Its training step."""
    features = [
        SparseFeature(name, vocab_size=size, embed_dim=log.dim)
        for name, size in zip(log.names, log.sizes, strict=True)
    ]
    perceptron = {"dims": list(log.hidden), "dropout": 0, "activation": "relu"}
    model = DeepFM(deep_features=features, fm_features=features, mlp_params=perceptron)
    driver = CTRTrainer(model, optimizer_params={"lr": LR}, device="cpu")
    batches = [
        (dict(zip(log.names, ids.t().contiguous(), strict=True)), labels)
        for ids, labels in zip(log.ids, log.labels, strict=True)
    ]
    return lambda turn: driver.train_one_epoch([batches[turn % BATCHES]])


answer(lambda settings: race(settings, contestant))
