"""FuxiCTR: an optimizer of the constructor, penalties by norm, clipping, its own loop."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folded_models import moved, saved_and_loaded, weights

import bitfold

pytestmark = pytest.mark.filterwarnings("ignore")
NAME = "fuxictr_deepfm"


@pytest.fixture(autouse=True)
def _installed(needs: Any) -> None:
    needs("fuxictr")


def batches(part: Any, label: str, rows: int = 256) -> list[dict[str, torch.Tensor]]:
    names = list(part.columns())
    return [
        {**dict(zip(names, batch.ids.unbind(1), strict=True)), label: batch.labels}
        for batch in part.batches(rows)
    ]


def test_the_example(told: Any) -> None:
    assert told(NAME, "10x")["bytes"] * 10 <= told(NAME, "none")["bytes"]


def test_its_own_loop_trains_what_is_saved_and_loaded(
    example: Any, log: Any, tmp_path: Path
) -> None:
    module, places = example(NAME), iter(range(9))

    def make() -> Any:
        folder = tmp_path / str(next(places))
        folder.mkdir()
        return module.make(log.sizes, str(folder))

    model = make()
    report = bitfold.fold(model, "10x")
    assert any("optimizer" in note for note in report.notes)
    held = {id(each) for group in model.optimizer.param_groups for each in group["params"]}
    assert held == {id(each) for each in model.parameters()}
    before = weights(model)
    train, valid, test = (batches(part, module.LABEL) for part in log.parts)
    model.fit(train, epochs=2, validation_data=valid)  # ends by loading the best epoch
    assert moved(before, model) == set(before)
    again = saved_and_loaded(model, make, tmp_path)
    from_its_file = bitfold.load_model(model.checkpoint, make)
    scored = [each.predict(test) for each in (model, again, from_its_file)]
    assert np.array_equal(scored[0], scored[1])
    assert np.array_equal(scored[0], scored[2])


def test_the_constructor_under_folding_makes_no_table(
    example: Any, log: Any, tmp_path: Path
) -> None:
    module = example(NAME)
    with bitfold.folding(budget="10x"):
        model = module.make(log.sizes, str(tmp_path))
    train = batches(log.train, module.LABEL)
    model._max_gradient_norm = 10.0
    before = weights(model)
    losses = [float(model.train_step(batch)) for batch in train]
    assert np.isfinite(losses).all()
    assert moved(before, model) == set(before)
