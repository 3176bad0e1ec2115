"""Families that live, through whole trainings: interrupted, saved, scored, gone on from."""

from dataclasses import replace

import pytest
import torch

from bitfold.data.prepare import prepare
from bitfold.files import read_tensors
from bitfold.runs import folder as runs
from bitfold.training import train
from click_log import DATA, TINY, columns, write
from interrupting import stopped_after

BASE = replace(TINY, epochs=3, checkpoint_steps=4)
LIVES = {
    "hot-cold": {},
    "hot-cold, 4 bits": {"bits": 4},
    "cafe": {"every": 5},
    "cafe, 4 bits": {"every": 5, "bits": 4},
    "managed-collision": {"every": 5},
    "managed-collision, by time": {"every": 4, "evict": "lru", "ttl": 6, "admit": 1, "hot": 0.3},
    "managed-collision, 4 bits": {"every": 5, "shared": "digits", "bits": 4},
    "auto, on a stream": {"living": True},
    "scall": {"every": 3},
    "scall, 4 bits": {"every": 2, "bits": 4, "drawn": True},
    "cce": {"chunks": 2},
    "cce, by a map": {"chunks": 2, "map": True},
    "cce, 4 bits": {"chunks": 1, "bits": 4},
    "fiited": {"every": 5},
    "fiited, as in the paper": {"every": 5, "rest": "zeros", "utility": "product", "small": 0.0},
    "fiited, 4 bits": {"every": 5, "chunks": 2, "bits": 4},
    "dpq": {},
    "dpq, 4 bits": {"chunks": 2, "bits": 4},
    "mgqe": {"chunks": 2},
    "mgqe, by a map": {"chunks": 2, "map": True},
    "learned-hash": {},
    "learned-hash, by a map": {"map": True, "own": 0.5},
    "learned-hash, of codes": {"small": "code", "bits": 4},
    "magnitude-pruning": {"every": 2},
    "magnitude-pruning, at once, by a map": {"schedule": "once", "map": True},
    "optembed": {},
    "optembed, as in the paper": {"rest": "zeros", "widths": "search", "candidates": 4},
    "optembed, 4 bits": {"bits": 4, "threshold": "id"},
    "amtl": {},
    "amtl, as in the paper": {"lengths": "every", "rest": "zeros"},
    "scma": {},
    "scma, by a map": {"map": True},
    "scma, as in the paper": {"chunk": 1, "elements": 4, "of": "rows", "most_rows": 300},
    "mpe": {},
    "mpe, by counts": {"order": "counts"},
}


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("living")
    return prepare([write(folder / "clicks.csv", columns())], folder / "log", DATA).path


@pytest.fixture(scope="module", params=LIVES)
def words(request):
    return replace(BASE, method=request.param.split(",")[0], set=LIVES[request.param])


@pytest.fixture(scope="module")
def whole(log, words, tmp_path_factory):
    return train([log], None, words, tmp_path_factory.mktemp("whole") / "run").path


@pytest.mark.parametrize("steps", [5, 14], ids=["in the first epoch", "in the last"])
def test_an_interrupted_training_gives_the_same_bits(log, words, whole, tmp_path, steps):
    with stopped_after(steps):
        train([log], None, words, tmp_path / "run")
    train(None, None, None, tmp_path / "run", resume=True)
    expected, found = (
        read_tensors(each / "weights.safetensors")[0] for each in (whole, tmp_path / "run")
    )
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_run_has_learned_and_weighs_what_its_plan_says(whole):
    run = runs.load(whole)
    assert run.metrics["bytes"] == run.plan.bytes <= run.plan.budget
    assert run.metrics["auc"] > 0.6
    assert run.metrics["training_bytes"] > run.metrics["bytes"]


def test_a_run_is_gone_on_from(log, whole, tmp_path):
    more = train([log], None, None, tmp_path / "more", from_run=whole)
    run = runs.load(more.path)
    assert run.plan == runs.load(whole).plan
    assert run.metrics["auc"] > 0.6
