"""torch.compile beyond the contract: more forms, faces of one field, hashed ids."""

import pytest
import torch

from bitfold.testing.cases import Case, bags_by_field, random_bags

SLOW = [  # compiling takes seconds a form
    Case("multi-hash", {"fusion": "concat"}),
    Case("binary-code", {"fusion": "sum", "sharing": "fields"}),
]
FORMS = [Case("binary-code", {"fusion": "weighted", "allocation": 0.0, "strategy": "skip"})]
PARAMS = [pytest.param(case, id=str(case)) for case in FORMS]
PARAMS += [pytest.param(case, id=str(case), marks=pytest.mark.slow) for case in SLOW]


@pytest.fixture(params=PARAMS)
def form(request):
    """A few forms."""
    torch._dynamo.reset()
    yield request.param
    torch._dynamo.reset()


def compiled(module):
    return torch.compile(module, fullgraph=True, backend="aot_eager")


def with_gradients(module, call, inputs):
    module.zero_grad()
    out = call(*inputs)
    out.pow(2).sum().backward()
    return [out.detach(), *[p.grad.clone() for p in module.parameters()]]


def test_vectors_and_gradients_compiled_equal_eager(form):
    collection = form.collection()
    fast = compiled(collection)
    for rows in (4, 7):  # the second number of rows compiles with symbolic shapes
        ids = form.ids(rows)
        pairs = zip(
            with_gradients(collection, fast, (ids,)),
            with_gradients(collection, collection, (ids,)),
            strict=True,
        )
        for got, expected in pairs:
            torch.testing.assert_close(got, expected)
    bad = form.ids(7)
    bad[3, 0] = form.fields[0].num_embeddings
    with pytest.raises((IndexError, RuntimeError), match="outside"):
        fast(bad)
    bad[3, 0] = -1
    with pytest.raises((IndexError, RuntimeError), match="outside"):
        fast(bad)


def test_bags_compiled_equal_eager(form):
    collection = form.collection(mode="mean")
    fast = compiled(collection)
    for rows in (3, 5):
        bags = bags_by_field(random_bags(form, rows))
        pairs = zip(
            with_gradients(collection, fast, bags),
            with_gradients(collection, collection, bags),
            strict=True,
        )
        for got, expected in pairs:
            torch.testing.assert_close(got, expected)
    ids, offsets = bags_by_field([[[0]] * len(form.fields)] * 5)
    bad = ids.clone()
    bad[0] = 10**9
    with pytest.raises((IndexError, RuntimeError), match="outside"):
        fast(bad, offsets)
    offsets = offsets.flip(0)
    with pytest.raises((ValueError, RuntimeError), match="offsets"):
        fast(ids, offsets)


@pytest.mark.parametrize("face", ["embedding", "bag"])
def test_one_field_compiled_equals_eager(face):
    torch._dynamo.reset()
    case = Case("binary-code")
    module = getattr(case, face)(50, padding_idx=3)
    fast, ids = compiled(module), torch.tensor([[3, 4, 49], [0, 3, 7]])
    torch.testing.assert_close(fast(ids), module(ids))
    with pytest.raises((IndexError, RuntimeError), match="outside"):
        fast(torch.tensor([[3, 4, 50], [0, 3, 7]]))


def test_a_compiled_hashed_embedding_takes_any_int64():
    torch._dynamo.reset()
    module = Case("binary-code").embedding(None)
    ids = torch.tensor([-(2**63), 2**63 - 1, -1, 0])
    torch.testing.assert_close(compiled(module)(ids), module(ids))
