"""Every method through a training: a run that was trained, saved, loaded, and scores rows."""

from dataclasses import replace
from pathlib import Path

import pytest

import bitfold
from bitfold.data.prepare import prepare
from bitfold.errors import BudgetTooSmall
from bitfold.training import train
from click_log import DATA, TINY, columns, write

METHODS = (*bitfold.methods(), "unified:sum", "robe:signs", "low-rank:bits")
OPTIONS: dict[str, dict[str, str]] = {
    "sum": {"fusion": "sum"},
    "signs": {"signs": "true"},
    "bits": {"bits": "4"},
}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = write(tmp_path_factory.mktemp("raw") / "clicks.csv", columns())
    return prepare([raw], tmp_path_factory.mktemp("prepared") / "log", DATA).path


@pytest.mark.parametrize("said", METHODS)
def test_every_method_learns_and_scores(said: str, log: Path, tmp_path: Path) -> None:
    method, _, more = said.partition(":")
    words = replace(TINY, method=method, set=OPTIONS.get(more, {}), budget="2x", epochs=3, lr=0.03)
    if method == "full":
        words = replace(words, budget=None)
    try:
        metrics = train([log], None, words, tmp_path / "run").metrics
    except BudgetTooSmall as error:
        words = replace(words, budget=error.minimum)
        metrics = train([log], None, words, tmp_path / "run").metrics
    assert metrics["auc"] > 0.58
    run = bitfold.load(tmp_path / "run")
    assert run.plan.method == method
    assert run.evaluate(log)["auc"] == pytest.approx(metrics["auc"], abs=1e-6)
