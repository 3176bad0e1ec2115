"""Every method: gradients against finite differences and the table's own, sparse and dense."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitfold import optim
from bitfold.testing.cases import DIM, Case, bags_by_field, random_bags
from bitfold.testing.checks import (
    coded,
    dense,
    disturb,
    embedders,
    gradients,
    need_derivatives,
    on,
    same,
)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_gradients_of_bags_equal_those_through_the_table(case: Case, mode: str) -> None:
    """The table `[V, D]` in float64, read by torch's own operations."""
    ours = case.bag(50, mode=mode, padding_idx=9).double()
    flat, offsets = torch.tensor([3, 4, 49, 12, 9, 0, 9, 21]), torch.tensor([0, 3, 3, 5])
    weights = torch.linspace(0.5, 2, 8, dtype=torch.float64) if mode == "sum" else None
    table = ours.weight
    theirs = F.embedding_bag(
        flat, table, offsets, mode=mode, per_sample_weights=weights, padding_idx=9
    )
    got = ours(flat, offsets, weights)
    torch.testing.assert_close(got, theirs)
    toward = torch.randn(got.shape, dtype=torch.float64)
    same(gradients((got * toward).sum(), ours), gradients((theirs * toward).sum(), ours))


@pytest.mark.parametrize("path", ["kernels", "plain"])
def test_gradients_equal_finite_differences(case: Case, path: str) -> None:
    collection = case.collection(mode="sum").double()
    need_derivatives(collection)
    ids = case.ids(2)
    bag_ids, offsets = bags_by_field(random_bags(case, 2, 2))
    weights = torch.rand(len(bag_ids), dtype=torch.float64, requires_grad=True)
    names, values = zip(*collection.named_parameters(), strict=True)
    drawn = [value.detach()[:].clone().requires_grad_() for value in values]

    def vectors(*parameters: Tensor) -> Any:
        named = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(collection, named, (ids,))

    def bags(weights: Tensor, *parameters: Tensor) -> Any:
        named = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(collection, named, (bag_ids, offsets, weights))

    # Central differences: a vector is a polynomial of low degree, so only rounding is between them.
    close: dict[str, Any] = {"eps": 1e-5, "rtol": 1e-6, "atol": 1e-9}
    with on(path):
        assert torch.autograd.gradcheck(vectors, drawn, **close, fast_mode=True)
        assert torch.autograd.gradcheck(bags, (weights, *drawn), **close, fast_mode=True)


def test_sparse_gradients_equal_dense_ones(case: Case) -> None:
    one, other = case.collection(), case.collection(sparse=True)
    other.load_state_dict(one.state_dict())
    for inputs in ((case.ids(3),), bags_by_field(random_bags(case, 3))):
        for module in (one, other):
            module.zero_grad()
            module(*inputs).pow(2).sum().backward()
        for got, expected in zip(other.parameters(), one.parameters(), strict=True):
            assert got.grad is not None
            assert expected.grad is not None
            assert not expected.grad.is_sparse
            torch.testing.assert_close(dense(got.grad), expected.grad)
        if embedders(other)[0].sparse:
            assert any(p.grad is not None and p.grad.is_sparse for p in other.parameters())


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_a_hundred_steps_at_a_high_rate_leave_no_nan(case: Case, optimizer: Any) -> None:
    torch.manual_seed(0)
    collection = case.collection()
    if coded(collection):
        optimizer = {torch.optim.SGD: optim.SGD, torch.optim.Adam: optim.LazyAdam}[optimizer]
    top = nn.Linear(len(case.fields) * DIM, 1)
    steps = optimizer([*collection.parameters(), *top.parameters()], lr=1.0)
    before = {name: value.clone() for name, value in collection.state_dict().items()}
    ids = case.ids(64)
    labels = (torch.arange(64) % 2).float()
    for _ in range(100):
        steps.zero_grad()
        logits = top(collection(ids).flatten(1)).squeeze(1)
        F.binary_cross_entropy_with_logits(logits, labels).backward()
        steps.step()
    for name, new in collection.state_dict().items():
        assert torch.isfinite(new).all()
        assert not name.endswith("weight") or not torch.equal(before[name], new)
    assert torch.isfinite(collection(ids)).all()


@pytest.mark.first_form
def test_frozen_is_frozen(case: Case) -> None:
    collection = case.collection().requires_grad_(False)
    assert not collection(case.ids(2)).requires_grad
    disturb(collection)
    table = case.embedding(50, _freeze=True)
    assert not any(p.requires_grad for p in table.parameters())
    assert not table(torch.tensor([3])).requires_grad
    assert not table.weight.requires_grad
