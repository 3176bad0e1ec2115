"""torch.compile by inductor, which writes and compiles C++: every fusion, forward and backward."""

import contextlib
import shutil

import pytest
import torch

import bitfold
from bitfold.optim import LazyAdam
from bitfold.testing.cases import Case, bags_by_field, random_bags

pytestmark = [
    pytest.mark.skipif(
        not (shutil.which("g++") or shutil.which("clang++")),
        reason="NO C++ COMPILER: inductor did not run",
    ),
    # What inductor imports uses parts of torch that torch calls old.
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
]
FORM = Case("binary-code")
FUSIONS = [
    FORM,
    Case("binary-code", {"fusion": "sum", "sharing": "fields"}),
    Case("binary-code", {"fusion": "mean", "strategy": "skip"}),
    Case("binary-code", {"fusion": "concat", "blocks": 3}),
    Case("binary-code", {"fusion": "weighted", "allocation": 0.0}),
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


def test_one_field_by_inductor_equals_eager():
    """The quick one: a field, a shape, the C++ of one forward and one backward."""
    with bitfold.plain_torch():
        check_equal(FORM.embedding(300), [(torch.tensor([3, 299, 0, 3]),)])


@pytest.mark.slow
@pytest.mark.parametrize("form", FUSIONS, ids=str)
def test_plain_torch_by_inductor_equals_eager(form):
    with bitfold.plain_torch():
        check_equal(form.collection(), [(form.ids(rows),) for rows in (4, 7)])


@pytest.mark.slow
@pytest.mark.parametrize("form", FUSIONS, ids=str)
def test_bags_in_plain_torch_by_inductor_equal_eager(form):
    bags = [bags_by_field(random_bags(form, rows)) for rows in (3, 5)]
    with bitfold.plain_torch():
        check_equal(form.collection(mode="mean"), bags)


@pytest.mark.slow
@pytest.mark.parametrize("form", FUSIONS, ids=str)
def test_kernels_by_inductor_equal_eager(form):
    check_equal(form.collection(), [(form.ids(rows),) for rows in (4, 7)])
    bags = [bags_by_field(random_bags(form, rows)) for rows in (3, 5)]
    check_equal(form.collection(mode="mean"), bags)


@pytest.mark.parametrize("path", ["kernels", pytest.param("plain", marks=pytest.mark.slow)])
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_sparse_gradients_of_a_compiled_collection(path, backend):
    """Sparse all the way: the optimizer moves the same rows as without a compiler."""
    with PATHS[path]():
        compiled, eager = (FORM.collection(sparse=True) for _ in range(2))
        fast = torch.compile(compiled, fullgraph=True, backend=backend)
        steps = [LazyAdam(module.parameters(), lr=0.1) for module in (compiled, eager)]
        for rows in (5, 6, 7):
            ids = FORM.ids(rows, seed=rows)
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


class Pair(torch.nn.Module):
    """Reads one table for two columns: `cut` in one lookup."""

    def __init__(self, table, *, cut):
        super().__init__()
        self.table, self.cut = table, cut

    def forward(self, left, right):
        if self.cut:
            left, right = self.table(torch.cat([left, right])).split(len(left))
            return left + right
        return self.table(left) + self.table(right)


# Where a graph breaks, torch looks at its own intermediate tensors' gradients, and warns of it.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("cut", [True, False])
def test_one_sparse_table_for_two_columns(cut):
    """The cookbook's two roads: one lookup in the graph, or the table outside of it."""
    table = FORM.embedding(50, sparse=True)
    columns = torch.tensor([3, 7, 49]), torch.tensor([7, 0, 1])
    eager, fast = Pair(table, cut=cut), Pair(table, cut=cut)
    if not cut:
        fast.table = torch.compiler.disable(table)
    fast = torch.compile(fast, fullgraph=cut, backend="aot_eager")
    for got, expected in zip(
        with_gradients(table, lambda: fast(*columns), ()),
        with_gradients(table, lambda: eager(*columns), ()),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)
    assert all(weight.grad.is_sparse for weight in table.parameters())
