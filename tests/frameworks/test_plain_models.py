"""A DLRM and two towers of plain PyTorch: sparse bags, shared fields, no framework."""

from pathlib import Path
from typing import Any

import pytest
import torch
from folded_models import moved, saved_and_loaded, weights
from torch import nn

import bitfold

pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks")


@pytest.mark.parametrize("name", ["plain_dlrm", "two_tower"])
def test_the_example(told: Any, name: str) -> None:
    assert told(name, "10x")["bytes"] * 10 <= told(name, "none")["bytes"]


def test_a_dlrm_of_sparse_bags(example: Any, log: Any, tmp_path: Path) -> None:
    make = lambda: example("plain_dlrm").DLRM(log.sizes)  # noqa: E731
    model = make()
    bitfold.fold(model, "10x")
    before, optimizer = weights(model), torch.optim.Adagrad(model.parameters(), lr=0.02)
    dense = torch.ones(256, 1)
    for batch in log.train.batches(256):
        optimizer.zero_grad()
        logits = model(dense, batch.ids)
        nn.functional.binary_cross_entropy_with_logits(logits, batch.labels).backward()
        optimizer.step()
    assert moved(before, model) == set(before)
    again = saved_and_loaded(model, make, tmp_path)
    with torch.no_grad():
        dense = torch.ones(len(log.test.labels), 1)
        scored = [each.eval()(dense, log.test.ids) for each in (model, again)]
    assert torch.equal(*scored)


def test_two_towers(example: Any, log: Any, tmp_path: Path) -> None:
    make = lambda: example("two_tower").TwoTower(log.sizes)  # noqa: E731
    model = make()
    bitfold.fold(model, "10x")
    before, optimizer = weights(model), torch.optim.Adam(model.parameters())
    for batch in log.train.batches(256):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model(batch.ids), batch.labels).backward()
        optimizer.step()
    assert moved(before, model) == set(before)
    again = saved_and_loaded(model, make, tmp_path)
    with torch.no_grad():
        assert torch.equal(model.eval().item(log.test.ids), again.item(log.test.ids))
        assert torch.equal(model.user(log.test.ids), again.user(log.test.ids))
