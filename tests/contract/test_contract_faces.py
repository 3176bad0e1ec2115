"""Every method: shapes of every face, bags equal to the loop, ids that are refused."""

import pytest
import torch
from contract_cases import DIM, EXTREMES, bags_by_field, random_bags
from torch import nn

from bitfold import BitfoldError, Field, IdOutOfRange
from bitfold.fuse.bags import MODES


@pytest.mark.parametrize("shape", [(), (3,), (0,), (2, 3), (0, 4), (2, 0), (2, 3, 4)])
def test_an_embedding_keeps_the_shape_of_its_ids(case, shape):
    embedding = case.embedding(50)
    assert embedding(torch.zeros(shape, dtype=torch.int64)).shape == (*shape, DIM)


def test_a_collection_gives_a_vector_for_every_field(case, small):
    for rows in (0, 1, 5):
        ids = case.ids(rows)
        vectors = small(ids)
        assert vectors.shape == (rows, len(case.fields), DIM)
        assert vectors.dtype == torch.float32
        for b in range(rows):
            assert torch.equal(small(ids[b : b + 1])[0], vectors[b])


def test_a_collection_is_its_table(case):
    """`Embedding(ids)` is a row of `Embedding.weight`."""
    embedding = case.embedding(50)
    ids = torch.tensor([[0, 49], [7, 7]])
    assert embedding.weight.shape == (50, DIM)
    assert torch.equal(embedding(ids), embedding.weight[ids])


@pytest.mark.parametrize("mode", MODES)
def test_bags_of_a_collection_equal_the_loop(case, mode):
    collection = case.collection(mode=mode)
    rows = random_bags(case, 5)
    ids, offsets = bags_by_field(rows)
    vectors = collection(ids, offsets)
    assert vectors.shape == (5, len(case.fields), DIM)
    for b, row in enumerate(rows):
        for f, bag in enumerate(row):
            expected = torch.zeros(DIM)
            if bag:
                batch = case.ids(len(bag))
                batch[:, f] = torch.tensor(bag)
                singles = collection(batch)[:, f]
                expected = singles.amax(0) if mode == "max" else getattr(singles, mode)(0)
            torch.testing.assert_close(vectors[b, f], expected)


def test_weighted_bags_of_a_collection_equal_the_loop(case):
    collection = case.collection(mode="sum")
    rows = random_bags(case, 4)
    ids, offsets = bags_by_field(rows)
    weights = torch.randn(len(ids), generator=torch.Generator().manual_seed(1))
    vectors = collection(ids, offsets, weights)
    start = iter(range(len(ids)))
    for f in range(len(case.fields)):
        for b in range(4):
            batch = case.ids(len(rows[b][f]))
            batch[:, f] = torch.tensor(rows[b][f], dtype=torch.int64)
            own = weights[[next(start) for _ in rows[b][f]]]
            expected = (collection(batch)[:, f] * own.unsqueeze(1)).sum(0)
            torch.testing.assert_close(vectors[b, f], expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding_idx", [None, 3, -1])
def test_every_form_of_a_bag_equals_torch(case, mode, padding_idx):
    """2-D, offsets, offsets with an end, weights: all as `nn.EmbeddingBag` on the same table."""
    ours = case.bag(50, mode=mode, padding_idx=padding_idx)
    theirs = nn.EmbeddingBag(50, DIM, mode=mode, padding_idx=padding_idx)
    with torch.no_grad():
        theirs.weight.copy_(case.bag(50).weight)
    flat = torch.tensor([3, 4, 49, 3, 3, 0, 9, 3])
    offsets = torch.tensor([0, 3, 3, 5, 8])  # empty bags inside and at the end; one of id 3 alone
    square = torch.tensor([[3, 4, 49], [3, 3, 3], [49, 0, 49]])
    weights = torch.linspace(-1, 2, 8)
    pairs = [
        (ours(flat, offsets), theirs(flat, offsets)),
        (ours(square), theirs(square)),
        (ours(square[:0]), torch.zeros(0, DIM)),
        (ours(square[:, :0]), torch.zeros(3, DIM)),
        (ours(flat[:0], offsets[:0]), torch.zeros(0, DIM)),
        (ours(flat[:0], offsets[:2] * 0), torch.zeros(2, DIM)),
    ]
    if mode == "sum":
        pairs.append((ours(flat, offsets, weights), theirs(flat, offsets, weights)))
        both = weights[:3].expand(3, 3)
        pairs.append(
            (ours(square, per_sample_weights=both), theirs(square, per_sample_weights=both))
        )
    for got, expected in pairs:
        torch.testing.assert_close(got, expected)
    ended = case.bag(50, mode=mode, padding_idx=padding_idx, include_last_offset=True)
    end = torch.tensor([0, 3, 3, 5, 8])
    torch.testing.assert_close(ended(flat, end), ours(flat, end[:-1]))
    assert ended(flat[:0], end[:1]).shape == (0, DIM)


def test_padding_is_zero_and_learns_nothing(case):
    embedding = case.embedding(50, padding_idx=-2)
    assert embedding.padding_idx == 48
    vectors = embedding(torch.tensor([48, 3, 48]))
    assert not vectors[[0, 2]].any()
    assert vectors[1].any()
    assert not embedding.weight[48].any()
    embedding(torch.tensor([48, 48])).sum().backward()
    assert all(not p.grad.any() for p in embedding.parameters())
    bag = case.bag(50, padding_idx=48, mode="sum")
    bag(torch.tensor([[48, 48]])).sum().backward()
    assert all(not p.grad.any() for p in bag.parameters())


@pytest.mark.aspect("hashed ids")
def test_hashed_ids_may_be_any_int64(case):
    embedding = case.embedding(None)
    vectors = embedding(torch.tensor(EXTREMES))
    assert torch.isfinite(vectors).all()
    assert len(vectors.unique(dim=0)) >= 3
    bag = case.bag(None, mode="sum", padding_idx=-1)
    pooled = bag(torch.tensor([EXTREMES, [-1] * 4]))
    torch.testing.assert_close(pooled[0], bag(torch.tensor([EXTREMES[:2] + EXTREMES[3:]]))[0])
    assert not pooled[1].any()
    with pytest.raises(BitfoldError, match="no table"):
        _ = embedding.weight


@pytest.mark.parametrize("bad", [-1, 50, -(2**63), 2**63 - 1])
def test_dense_ids_out_of_range_raise(case, bad):
    with pytest.raises(IdOutOfRange, match=f"{bad} at"):
        case.embedding(50)(torch.tensor([3, bad]))
    with pytest.raises(IdOutOfRange, match=f"{bad} at"):
        case.bag(50)(torch.tensor([[3, 4], [4, bad]]))
    with pytest.raises(IndexError):
        case.bag(50, padding_idx=3)(torch.tensor([bad, 3]), torch.tensor([0]))


def test_each_field_has_its_own_range(case, small):
    for f, field in enumerate(case.fields):
        ids = case.ids(3)
        ids[1, f] = -1 if field.hashed else field.num_embeddings
        if field.hashed:
            assert small(ids).shape[0] == 3
            continue
        with pytest.raises(IdOutOfRange, match=f"'{field.name}'") as error:
            small(ids)
        assert f"0 to {field.num_embeddings - 1}" in str(error.value)
        bags = [[[int(v)] for v in row] for row in ids]
        with pytest.raises(IdOutOfRange, match=f"'{field.name}'"):
            small(*bags_by_field(bags))


def test_int32_ids_are_accepted(case):
    embedding, bag = case.embedding(50, padding_idx=3), case.bag(50, padding_idx=3)
    ids = torch.tensor([[0, 3], [49, 7]])
    assert torch.equal(embedding(ids.int()), embedding(ids))
    assert torch.equal(bag(ids.int()), bag(ids))
    starts = torch.tensor([0, 3])
    flat = ids.reshape(-1)
    assert torch.equal(bag(flat.int(), starts.int()), bag(flat, starts))


def mistakes(case):
    embedding, bag, collection = case.embedding(50), case.bag(50), case.collection()
    summed = case.bag(50, mode="sum")
    ids, flat, start = torch.zeros(2, 3).long(), torch.zeros(4).long(), torch.tensor([0, 2])
    fields = len(case.fields)
    return {
        "float ids": lambda: embedding(ids.float()),
        "bool ids": lambda: embedding(ids.bool()),
        "float ids in bags": lambda: bag(ids.double()),
        "float offsets": lambda: bag(flat, start.float()),
        "0-D bag": lambda: bag(torch.tensor(1)),
        "3-D bag": lambda: bag(ids.unsqueeze(0)),
        "1-D without offsets": lambda: bag(flat),
        "2-D with offsets": lambda: bag(ids, start),
        "2-D offsets": lambda: bag(flat, start.reshape(1, 2)),
        "offsets that fall": lambda: bag(flat, torch.tensor([0, 3, 2])),
        "offsets from 1": lambda: bag(flat, torch.tensor([1, 2])),
        "offsets past the end": lambda: bag(flat, torch.tensor([0, 5])),
        "ids without a bag": lambda: bag(flat, start[:0]),
        "weights of a mean": lambda: bag(ids, per_sample_weights=torch.ones(2, 3)),
        "too few weights": lambda: summed(flat, start, torch.ones(3)),
        "2-D weights": lambda: summed(flat, start, torch.ones(4, 1)),
        "a column too many": lambda: collection(torch.zeros(2, fields + 1).long()),
        "1-D batch": lambda: collection(torch.zeros(fields).long()),
        "3-D batch": lambda: collection(torch.zeros(2, fields, 1).long()),
        "float batch": lambda: collection(torch.zeros(2, fields)),
        "short offsets": lambda: collection(flat, torch.tensor([0] * fields)),
        "float offsets of a batch": lambda: collection(flat[:0], torch.zeros(fields + 1)),
        "unknown mode": lambda: case.bag(50, mode="median"),
        "padding out of range": lambda: case.embedding(50, padding_idx=50),
        "negative size": lambda: case.embedding(-50),
        "size 0": lambda: case.collection([Field("f", 0)]),
    }


def test_mistakes_are_refused_with_what_was_expected(case):
    for what, mistake in mistakes(case).items():
        with pytest.raises(BitfoldError) as error:
            mistake()
        assert error.value.expected or error.value.fix, what
