"""torch.compile by inductor, which writes and compiles C++: every fusion, forward and backward."""

import contextlib
import shutil

import pytest
import torch
from contract_cases import Case, bags_by_field, random_bags

import bitfold
from bitfold.optim import LazyAdam

pytestmark = [
    pytest.mark.skipif(
        not (shutil.which("g++") or shutil.which("clang++")),
        reason="NO C++ COMPILER: inductor did not run",
    ),
    # What inductor imports uses parts of torch that torch calls old.
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
]
QUICK = Case("binary-code")
FUSIONS = [
    QUICK,
    Case("binary-code", {"fusion": "sum", "sharing": "fields"}),
    Case("binary-code", {"fusion": "mean", "strategy": "skip"}),
    Case("binary-code", {"fusion": "concat", "blocks": 3}),
    Case("binary-code", {"fusion": "weighted", "allocation": 0.0}),
]
FORMS = [
    pytest.param(case, id=str(case), marks=[] if case is QUICK else [pytest.mark.slow])
    for case in FUSIONS
]
PATHS = {"plain": bitfold.plain_torch, "kernels": contextlib.nullcontext}


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def with_gradients(module, call, inputs):
    module.zero_grad()
    out = call(*inputs)
    out.pow(2).sum().backward()
    return [out.detach(), *[p.grad.to_dense().clone() for p in module.parameters()]]


def check_equal(module, batches):
    fast = torch.compile(module, fullgraph=True)
    for batch in batches:
        pairs = zip(
            with_gradients(module, fast, batch), with_gradients(module, module, batch), strict=True
        )
        for got, expected in pairs:
            torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("form", FORMS)
def test_plain_torch_by_inductor_equals_eager(form):
    with bitfold.plain_torch():
        check_equal(form.collection(), [(form.ids(rows),) for rows in (4, 7)])


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_bags_in_plain_torch_by_inductor_equal_eager(form):
    bags = [bags_by_field(random_bags(form, rows)) for rows in (3, 5)]
    with bitfold.plain_torch():
        check_equal(form.collection(mode="mean"), bags)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_kernels_by_inductor_equal_eager(form):
    check_equal(form.collection(), [(form.ids(rows),) for rows in (4, 7)])
    bags = [bags_by_field(random_bags(form, rows)) for rows in (3, 5)]
    check_equal(form.collection(mode="mean"), bags)


@pytest.mark.parametrize("path", ["kernels", pytest.param("plain", marks=pytest.mark.slow)])
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_sparse_gradients_of_a_compiled_collection(path, backend):
    """Sparse all the way: the optimizer moves the same rows as without a compiler."""
    with PATHS[path]():
        compiled, eager = (QUICK.collection(sparse=True) for _ in range(2))
        fast = torch.compile(compiled, fullgraph=True, backend=backend)
        steps = [LazyAdam(module.parameters(), lr=0.1) for module in (compiled, eager)]
        for rows in (5, 6, 7):
            ids = QUICK.ids(rows, seed=rows)
            for module, call, optimizer in zip(
                (compiled, eager), (fast, eager), steps, strict=True
            ):
                optimizer.zero_grad()
                for _ in range(2):  # gradients add up
                    call(ids).pow(2).sum().backward()
                assert all(weight.grad.is_sparse for weight in module.parameters())
                optimizer.step()
        for got, expected in zip(compiled.parameters(), eager.parameters(), strict=True):
            torch.testing.assert_close(got, expected)
