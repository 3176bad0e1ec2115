"""RecBole: one table of all fields, checkpoints with its configuration, its own loop."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folded_models import moved, saved_and_loaded, weights

import bitfold

pytestmark = pytest.mark.filterwarnings("ignore")
NAME = "recbole_deepfm"


@pytest.fixture(autouse=True)
def _installed(needs: Any) -> None:
    needs("recbole")


@pytest.fixture(autouse=True)
def _files_in_the_test_s_folder(tmp_path: Path) -> Any:
    with contextlib.chdir(tmp_path):
        yield


def test_the_example(told: Any) -> None:
    assert told(NAME, "10x")["bytes"] * 10 <= told(NAME, "none")["bytes"]


def test_its_own_loop_trains_what_is_saved_loaded_and_resumed(
    example: Any, log: Any, tmp_path: Path
) -> None:
    module = example(NAME)
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_trainer

    module.write(log, tmp_path)
    config = module.settings(tmp_path, epochs=2, seed=0)
    train, valid, test = data_preparation(config, create_dataset(config))
    make = lambda: module.DeepFM(config, train.dataset)  # noqa: E731
    trainer_of = get_trainer(config["MODEL_TYPE"], config["model"])

    model = make()
    report = bitfold.fold(model, "10x")
    trainer = trainer_of(config, model)
    before = weights(model)
    trainer.fit(train, valid, show_progress=False)
    assert moved(before, model) == set(before)
    told = trainer.evaluate(test)["auc"]  # loads the best epoch
    rows = [batch[0] for batch in test]

    def scores(each: Any) -> np.ndarray:
        with torch.no_grad():
            return torch.cat([each.eval().predict(some) for some in rows]).numpy()

    from sklearn.metrics import roc_auc_score

    scored = scores(model)
    assert roc_auc_score(log.test.labels, scored) == pytest.approx(told, abs=1e-4)
    assert np.array_equal(scored, scores(saved_and_loaded(model, make, tmp_path)))
    twin = make()
    bitfold.fold(twin, report.budget)
    other = trainer_of(config, twin)
    other.resume_checkpoint(trainer.saved_model_file)
    assert np.array_equal(scored, scores(twin))
