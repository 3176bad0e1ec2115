"""Every method under optimizers: torch's, and bitfold's own within the backward pass."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bitfold.errors import BitfoldError
from bitfold.kernels import gradients
from bitfold.optim import SGD
from bitfold.testing.cases import Case
from bitfold.testing.checks import coded, need_kernels, optimizer_named, same

STEPS = 4


def train(
    module: nn.Module, optimizer: torch.optim.Optimizer, inputs: Sequence[Sequence[Tensor]]
) -> None:
    """Some steps on the same loss."""
    for step in range(STEPS):
        optimizer.zero_grad()
        out = module(*inputs[step % len(inputs)])
        goal = torch.randn(out.shape, generator=torch.Generator().manual_seed(step))
        (out - goal).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize(("kind", "sums"), [("lazy-adam", "private"), ("adagrad", "listed")])
def test_rows_moved_within_backward_end_where_step_moves_them(
    case: Case, kind: str, sums: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sums == "listed":  # small and large pools take different ways to the sums of their rows
        monkeypatch.setattr(gradients, "PRIVATE_BYTES", -1)
    module = case.collection()
    other = copy.deepcopy(module)
    inputs = [(case.ids(300, seed=seed),) for seed in range(2)]
    optimizer = optimizer_named(kind, module, lr=0.05)
    try:
        optimizer.into_backward(module)
    except BitfoldError as error:
        pytest.skip(f"no rows to move: {error}")
    train(other, optimizer_named(kind, other, lr=0.05), inputs)
    train(module, optimizer, inputs)
    same(list(module.parameters()), list(other.parameters()), rtol=1e-4, atol=1e-5)


@pytest.mark.first_form
def test_weights_of_bags_still_have_their_gradient(case: Case) -> None:
    bag = case.bag(50, mode="sum", padding_idx=3)
    need_kernels(bag)
    other = copy.deepcopy(bag)
    SGD(bag.parameters(), lr=0.1).into_backward(bag)
    found = []
    for module in (bag, other):
        weights = torch.ones(20, 3, requires_grad=True)
        module(torch.arange(60).reshape(20, 3) % 50, per_sample_weights=weights).sum().backward()
        assert weights.grad is not None
        found.append(weights.grad)
    torch.testing.assert_close(*found)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # torch's Adagrad, of its own
@pytest.mark.parametrize(
    "optimizer", [torch.optim.SGD, torch.optim.Adagrad, torch.optim.SparseAdam]
)
def test_torchs_optimizers_take_sparse_gradients(
    case: Case, optimizer: Callable[..., torch.optim.Optimizer]
) -> None:
    table, ids = case.embedding(50, sparse=True), torch.tensor([[1, 2, 49], [3, 3, 0]])
    table(ids).sum().backward()
    grads = [p.grad for p in table.parameters() if p.grad is not None]
    if optimizer is torch.optim.SparseAdam and not all(grad.is_sparse for grad in grads):
        pytest.skip("what is learned beside the tables has dense gradients")
    words: dict[str, Any] = {"lr": 0.1}
    step = optimizer(list(table.parameters()), **words)
    before = table(ids).detach().clone()
    if coded(table):
        with pytest.raises(BitfoldError, match="kept as codes"):
            step.step()
        return
    step.step()
    assert (table(ids) < before).any()
