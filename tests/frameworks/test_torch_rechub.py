"""torch-rechub: features that keep their tables, tables that are read twice, its trainer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from folded_models import moved, saved_and_loaded, weights

import bitfold

pytestmark = pytest.mark.filterwarnings("ignore")
NAME = "torch_rechub_deepfm"


@pytest.fixture(autouse=True)
def _installed(needs: Any) -> None:
    needs("torch_rechub")


def columns(part: Any) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(ids) for name, ids in part.columns().items()}


def test_the_example(told: Any) -> None:
    assert told(NAME, "10x")["bytes"] * 10 <= told(NAME, "none")["bytes"]


def test_its_trainer_trains_what_is_saved_and_loaded(
    example: Any, log: Any, tmp_path: Path
) -> None:
    from torch_rechub.trainers import CTRTrainer
    from torch_rechub.utils.data import DataGenerator

    make = lambda: example(NAME).make(log.sizes)  # noqa: E731
    model = make()
    bitfold.fold(model, "10x")
    before = weights(model)
    parts = ((part.columns(), part.labels.numpy()) for part in log.parts)
    first, *others = parts
    loaders = DataGenerator(*first).generate_dataloader(*others[0], *others[1], batch_size=256)
    trainer = CTRTrainer(model, n_epoch=2, earlystop_patience=2, model_path=str(tmp_path))
    trainer.fit(*loaders[:2])
    assert moved(before, model) == set(before)
    again = saved_and_loaded(model, make, tmp_path)
    from_its_file = bitfold.load_model(tmp_path / "model.pth", make)
    with torch.no_grad():
        scored = [each.eval()(columns(log.test)) for each in (model, again, from_its_file)]
    assert torch.equal(scored[0], scored[1])
    assert torch.equal(scored[0], scored[2])


def test_features_keep_the_folded_table_and_hand_it_on(example: Any, log: Any) -> None:
    """A feature gives its table to every model that is made of it: folded, it gives that."""
    from torch_rechub.models.ranking import DeepFM

    model = example(NAME).make(log.sizes)
    bitfold.fold(model, "10x")
    twin = DeepFM(model.deep_features, model.fm_features, {"dims": [8]})
    table = model.embedding.embed_dict["user_id"]
    assert twin.embedding.embed_dict["user_id"] is table
    assert not any(p.numel() >= log.sizes["user_id"] * 16 for p in twin.parameters())


def test_penalties_on_tables_reach_the_folded_ones(example: Any, log: Any) -> None:
    """Its penalties look for `nn.Embedding`: folded tables are found as such."""
    from torch_rechub.basic.loss_func import RegularizationLoss

    model = example(NAME).make(log.sizes)
    bitfold.fold(model, "10x")
    loss = RegularizationLoss(embedding_l2=1.0)(model)
    loss.backward()
    held = {name for name, value in model.named_parameters() if value.grad is not None}
    assert any("user_id" in name for name in held)
    assert not any(name.startswith("mlp") for name in held)
