"""Every method where something looks on: compilers, exporters, transforms of `torch.func`.

What is recorded with one input must be right for others; nothing may be left out without a word.
"""

import copy
import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn
from torch.export import Dim
from torch.func import functional_call, grad, jvp, vmap

from bitfold.errors import BitfoldError
from bitfold.kernels.choice import plain_torch
from bitfold.testing.cases import Case, bags_by_field, random_bags
from bitfold.testing.checks import by_kernels, embedders, need_derivatives, on, same, with_gradients

OPERATOR = "bitfold.lookup.default"
OUTSIDE = r"outside|out of range"


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """No graphs of other tests, and none for them."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.first_form
@pytest.mark.usefixtures("fresh_compiler")
def test_vectors_and_gradients_compiled_equal_eager(case: Case) -> None:
    collection = case.collection()
    fast = torch.compile(collection, fullgraph=True, backend="aot_eager")
    for rows in (4, 7):  # the second number of rows compiles with symbolic shapes
        ids = (case.ids(rows),)
        same(with_gradients(collection, fast, ids), with_gradients(collection, collection, ids))
    bad = case.ids(7)
    for outside in (case.fields[0].num_embeddings, -1):
        assert outside is not None
        bad[3, 0] = outside
        with pytest.raises((IndexError, RuntimeError), match=OUTSIDE):
            fast(bad)


@pytest.mark.first_form
@pytest.mark.usefixtures("fresh_compiler")
def test_bags_compiled_equal_eager(case: Case) -> None:
    collection = case.collection(mode="mean")
    fast = torch.compile(collection, fullgraph=True, backend="aot_eager")
    for rows in (3, 5):
        bags = bags_by_field(random_bags(case, rows))
        same(with_gradients(collection, fast, bags), with_gradients(collection, collection, bags))
    ids, offsets = bags_by_field([[[0]] * len(case.fields)] * 5)
    bad = ids.clone()
    bad[0] = 10**9
    with pytest.raises((IndexError, RuntimeError), match=OUTSIDE):
        fast(bad, offsets)
    with pytest.raises((ValueError, RuntimeError), match="offsets"):
        fast(ids, offsets.flip(0))


@pytest.mark.first_form
@pytest.mark.parametrize("path", ["kernels", "plain"])
def test_an_exported_collection_comes_back_from_a_file(case: Case, path: str) -> None:
    collection = case.collection().eval().requires_grad_(False)
    with on(path):
        exported = torch.export.export(
            collection, (case.ids(4),), dynamic_shapes=({0: Dim("rows")},), strict=False
        )
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    back = torch.export.load(file)
    ours = [str(node.target) for node in back.graph.nodes if "bitfold" in str(node.target)]
    parts = [part for part in embedders(collection) if not hasattr(part, "parts")]
    assert ours == [OPERATOR] * (path == "kernels" and sum(map(by_kernels, parts)))
    graph = back.module()
    for rows in (1, 9, 0):
        ids = case.ids(rows, seed=rows)
        with on(path):
            torch.testing.assert_close(graph(ids), collection(ids))
    bad = case.ids(3)
    for outside in (case.fields[0].num_embeddings, -1):
        assert outside is not None
        bad[1, 0] = outside
        with pytest.raises((IndexError, RuntimeError), match=OUTSIDE):
            graph(bad)


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach() for name, weight in module.named_parameters()}


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_tangents_equal_differences(case: Case) -> None:
    collection, ids = case.collection(), case.ids(3)
    need_derivatives(collection)
    weights = weights_of(collection)
    tangents = {name: torch.randn_like(weight) for name, weight in weights.items()}
    twice = copy.deepcopy(collection).double()

    def call(weights: dict[str, Tensor]) -> Tensor:
        module = twice if next(iter(weights.values())).dtype == torch.float64 else collection
        found: Tensor = functional_call(module, weights, (ids,))
        return found

    step = 1e-6  # small: thresholds have a kink at zero
    double = {name: weight.double() for name, weight in weights.items()}
    near = [
        call({name: double[name] + sign * step * tangents[name] for name in double})
        for sign in (1, -1)
    ]
    expected = ((near[0] - near[1]) / (2 * step)).float()
    found: Any = jvp(call, (weights,), (tangents,))
    torch.testing.assert_close(found[1], expected)
    with forward_ad.dual_level():
        duals = {name: forward_ad.make_dual(weights[name], tangents[name]) for name in weights}
        tangent = forward_ad.unpack_dual(call(duals)).tangent
    torch.testing.assert_close(tangent, expected)


def test_per_sample_gradients(case: Case) -> None:
    collection, ids = case.collection(), case.ids(4)
    weights = weights_of(collection)

    def loss(weights: dict[str, Tensor], row: Tensor) -> Tensor:
        found: Tensor = functional_call(collection, weights, (row.unsqueeze(0),))
        return found.square().sum()

    found: Any = vmap(grad(loss), (None, 0))(weights, ids)
    for number, row in enumerate(ids):
        collection.zero_grad()
        collection(row.unsqueeze(0)).square().sum().backward()
        for name, weight in collection.named_parameters():
            torch.testing.assert_close(found[name][number], weight.grad)
    outside = case.fields[0].num_embeddings
    assert outside is not None
    ids[2, 0] = outside
    with pytest.raises(IndexError):
        vmap(grad(loss), (None, 0))(weights, ids)


@pytest.mark.first_form
def test_a_module_that_was_built_in_inference_mode_can_be_trained(case: Case) -> None:
    with torch.inference_mode():
        collection = case.collection()
        found = collection(case.ids(3))
    assert torch.equal(found, case.collection()(case.ids(3)))
    for plain in (False, True):
        with plain_torch() if plain else torch.enable_grad():
            collection(case.ids(3)).sum().backward()
    assert all(weight.grad is not None for weight in collection.parameters())


@pytest.mark.first_form
def test_a_traced_model_has_our_modules_as_leaves(case: Case) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.bag = case.embedding(50), case.bag(50, mode="sum")
            self.fields = case.collection()

        def forward(
            self, ids: Tensor, starts: Tensor, weights: Tensor, rows: Tensor
        ) -> tuple[Tensor, Tensor, Tensor]:
            pooled = self.bag(ids, per_sample_weights=weights, offsets=starts)
            return self.table(ids).sum(1) + 1, pooled, self.fields(rows)

    model = Model()
    graph = torch.fx.symbolic_trace(model)
    leaves = [node.target for node in graph.graph.nodes if node.op == "call_module"]
    assert sorted(map(str, leaves)) == ["bag", "fields", "table"]
    given = torch.tensor([1, 2, 49]), torch.tensor([0, 2]), torch.ones(3), case.ids(2)
    for got, expected in zip(graph(*given), model(*given), strict=True):
        assert torch.equal(got, expected)
    with pytest.raises(BitfoldError, match="leaf"):
        torch.fx.symbolic_trace(model.table)


@pytest.mark.first_form
def test_functional_call_by_the_parameters_name(case: Case) -> None:
    table, ids = case.embedding(50), torch.tensor([[1, 2, 49], [3, 3, 0]])
    moved = {name: value.detach() + 1 for name, value in table.named_parameters()}
    before = table(ids)
    assert not torch.equal(torch.func.functional_call(table, moved, (ids,)), before)
    assert torch.equal(table(ids), before)
