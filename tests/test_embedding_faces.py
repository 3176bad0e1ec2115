"""The faces beside torch's own: same weights, same vectors, same gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import bitfold
from bitfold import BitfoldError, Embedding, EmbeddingBag, EmbeddingCollection, Field

V, D = 60, 5


def loaded(ours, theirs):
    """`theirs` with the weights of `ours`."""
    with torch.no_grad():
        theirs.weight.copy_(ours.weight)
    return theirs


@given(st.lists(st.integers(0, V - 1), max_size=12), st.sampled_from([None, 7, -1]))
def test_full_is_torchs_embedding(values, padding_idx):
    ours = Embedding(V, D, padding_idx, method="full")
    theirs = loaded(ours, nn.Embedding(V, D, padding_idx))
    ids = torch.tensor(values, dtype=torch.int64)
    assert torch.equal(ours(ids), theirs(ids))
    for module in (ours, theirs):
        module(ids).pow(2).sum().backward()
    torch.testing.assert_close(next(ours.parameters()).grad, theirs.weight.grad)


@given(
    st.lists(st.lists(st.integers(0, V - 1), max_size=4), min_size=1, max_size=5),
    st.sampled_from(["sum", "mean", "max"]),
    st.sampled_from([None, 7, -1]),
    st.booleans(),
)
def test_full_is_torchs_embedding_bag(bags, mode, padding_idx, last):
    ours = EmbeddingBag(
        V, D, padding_idx=padding_idx, mode=mode, include_last_offset=last, method="full", seed=3
    )
    theirs = nn.EmbeddingBag(V, D, mode=mode, padding_idx=padding_idx, include_last_offset=last)
    loaded(EmbeddingBag(V, D, method="full", seed=3), theirs)
    ids = torch.tensor([v for bag in bags for v in bag], dtype=torch.int64)
    ends = torch.tensor([0, *[len(bag) for bag in bags]]).cumsum(0)
    offsets = ends if last else ends[:-1]
    torch.testing.assert_close(ours(ids, offsets), theirs(ids, offsets))
    if len(ids) != len(ids.unique()) and mode == "max":
        return  # ties: torch sends the gradient to the first, we share it
    for module in (ours, theirs):
        module(ids, offsets).pow(2).sum().backward()
    torch.testing.assert_close(next(ours.parameters()).grad, theirs.weight.grad)


def test_the_weight_of_full_is_its_parameter():
    embedding = Embedding(V, D, method="full")
    assert embedding.weight is next(embedding.parameters())
    assert embedding.plan.bytes == V * D * 4


def test_the_weight_of_others_is_computed_and_differentiable():
    embedding = Embedding(V, D, budget="3x")
    assert embedding.weight.shape == (V, D)
    assert not embedding.weight.is_leaf
    embedding.weight.sum().backward()
    assert any(p.grad.any() for p in embedding.parameters())
    with pytest.raises(BitfoldError, match="computed"), torch.no_grad():
        embedding.weight.zero_()


def test_a_collection_is_its_fields_side_by_side():
    """A field's vectors depend on its own ids alone."""
    fields = [Field("a", 500), Field("b", 40), Field("q", distinct=1000)]
    collection = EmbeddingCollection(fields, D, budget="5x")
    ids = torch.tensor([[3, 4, -5], [499, 39, 2**62], [3, 39, -5]])
    vectors = collection(ids)
    assert torch.equal(vectors[0, 0], vectors[2, 0])
    assert torch.equal(vectors[1, 1], vectors[2, 1])
    assert torch.equal(vectors[0, 2], vectors[2, 2])
    assert collection.fields == tuple(fields)
    assert collection.embedding_dim == D


def test_a_field_learns_alone():
    """Slices do not overlap: a field's loss leaves the other fields' vectors as they were."""
    collection = EmbeddingCollection([Field("a", 500), Field("b", 300)], D, budget="5x")
    ids = torch.tensor([[3, 4], [499, 39]])
    before = collection(ids).detach()
    collection(ids)[:, 0].sum().backward()
    with torch.no_grad():
        for parameter in collection.parameters():
            parameter -= parameter.grad
    after = collection(ids)
    assert not torch.equal(after[:, 0], before[:, 0])
    assert torch.equal(after[:, 1], before[:, 1])


def test_from_a_plan():
    made = bitfold.plan([Field("a", 500), Field("b", 40)], D, budget="5x", seed=7)
    one = EmbeddingCollection.from_plan(made, seed=7)
    other = EmbeddingCollection([Field("a", 500), Field("b", 40)], D, budget="5x", seed=7)
    assert one.plan == other.plan
    ids = torch.tensor([[3, 4]])
    assert torch.equal(one(ids), other(ids))
    with pytest.raises(BitfoldError, match="mode"):
        EmbeddingCollection.from_plan(made, mode="median")


def test_the_printed_form_says_method_and_bytes():
    collection = EmbeddingCollection([Field("a", 500)], D, budget="5x")
    assert f"bytes={collection.plan.bytes}" in repr(collection)
    embedding = Embedding(V, D, 3, budget="2x")
    for part in ("60, 5", "method='auto'", "padding_idx=3"):
        assert part in repr(embedding)
    assert "hashed" in repr(Embedding(None, D, budget=4096, distinct=100))


def test_ids_that_never_met_have_vectors_of_their_own():
    """Unseen hashed ids: no row is reserved, none is zero, few are alike."""
    embedding = Embedding(None, 16, budget="10x", distinct=10_000)
    unseen = torch.randint(-(2**63), 2**63 - 1, (500,), generator=torch.Generator().manual_seed(1))
    vectors = embedding(unseen)
    assert len(vectors.unique(dim=0)) >= 497  # 2**18 codes: half a pair of 500 may meet
    assert vectors.abs().sum(1).min() > 0


def test_binary_code_by_default_tells_every_id_apart():
    embedding = Embedding(20_000, 8, budget="50x")
    with torch.no_grad():
        assert len(embedding.weight.unique(dim=0)) == 20_000


def test_a_shared_pool_and_a_sum_lose_the_order_of_blocks():
    """The paper's form, and why slices are the default: 50 % of the vectors for two blocks."""
    words = {"blocks": 2, "fusion": "sum", "dtype": torch.float64}
    shared = Embedding(4096, 4, sharing="shared", **words)
    slices = Embedding(4096, 4, **words)
    with torch.no_grad():
        assert len(slices.weight.unique(dim=0)) == 4096
        rounded = (shared.weight * 1e12).round()
        assert len(rounded.unique(dim=0)) == 64 * 65 // 2
