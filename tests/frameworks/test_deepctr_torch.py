"""DeepCTR-Torch: penalties that hold tables, an optimizer of `compile`, its own loop."""

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folded_models import moved, saved_and_loaded, weights

import bitfold

pytestmark = pytest.mark.filterwarnings("ignore")
NAME = "deepctr_torch_deepfm"


@pytest.fixture(autouse=True)
def _installed(needs: Any) -> None:
    needs("deepctr_torch")


def test_the_example(told: Any) -> None:
    assert told(NAME, "10x")["bytes"] * 10 <= told(NAME, "none")["bytes"]


def test_its_own_loop_trains_what_is_saved_and_loaded(
    example: Any, log: Any, tmp_path: Path
) -> None:
    make = lambda: example(NAME).make(log.sizes)  # noqa: E731
    model = make()
    bitfold.fold(model, "10x")
    model.compile("adam", "binary_crossentropy", metrics=["auc"])
    before = weights(model)
    history = model.fit(log.train.columns(), log.train.labels.numpy(), 256, 2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert moved(before, model) == set(before)
    again = saved_and_loaded(model, make, tmp_path)
    scored = [each.predict(log.test.columns(), 1024) for each in (model, again)]
    assert np.array_equal(*scored)


def test_penalties_let_go_of_folded_tables(example: Any, log: Any) -> None:
    model = example(NAME).make(log.sizes)
    gone = weakref.ref(model.embedding_dict["user_id"].weight)
    whole = float(model.get_regularization_loss())
    report = bitfold.fold(model, "10x")
    gc.collect()
    assert gone() is None
    assert any("regularization_weight" in note for note in report.notes)
    assert float(model.get_regularization_loss()) < whole
