"""Every method: shapes of every face, ids that are refused, mistakes that are told."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from bitfold.embedding import EmbeddingCollection
from bitfold.errors import BitfoldError, IdOutOfRange
from bitfold.planning.field import Field
from bitfold.testing.cases import DIM, EXTREMES, Case, bags_by_field
from bitfold.testing.checks import embedders, same_rows

SHAPES = [(), (3,), (0,), (2, 3), (0, 4), (2, 0), (2, 3, 4)]


@pytest.mark.first_form
@pytest.mark.parametrize("shape", SHAPES)
def test_an_embedding_keeps_the_shape_of_its_ids(case: Case, shape: tuple[int, ...]) -> None:
    embedding = case.embedding(50)
    assert embedding(torch.zeros(shape, dtype=torch.int64)).shape == (*shape, DIM)


def test_a_collection_gives_a_vector_for_every_field(
    case: Case, small: EmbeddingCollection
) -> None:
    for rows in (0, 1, 5):
        ids = case.ids(rows)
        vectors = small(ids)
        assert vectors.shape == (rows, len(case.fields), DIM)
        assert vectors.dtype == torch.float32
        for b in range(rows):
            same_rows(small, small(ids[b : b + 1])[0], vectors[b])


def test_an_embedding_is_its_table(case: Case) -> None:
    """`Embedding(ids)` is a row of `Embedding.weight`."""
    embedding = case.embedding(50)
    ids = torch.tensor([[0, 49], [7, 7]])
    assert embedding.weight.shape == (50, DIM)
    same_rows(embedding, embedding(ids), embedding.weight[ids])


@pytest.mark.first_form
def test_padding_is_zero_and_learns_nothing(case: Case) -> None:
    embedding = case.embedding(50, padding_idx=-2)
    assert embedding.padding_idx == 48
    vectors = embedding(torch.tensor([48, 3, 48]))
    assert not vectors[[0, 2]].any()
    assert vectors[1].any()
    assert not embedding.weight[48].any()
    bag = case.bag(50, padding_idx=48, mode="sum")
    embedding(torch.tensor([48, 48])).sum().backward()
    bag(torch.tensor([[48, 48]])).sum().backward()
    for module in (embedding, bag):
        assert not any(p.grad is not None and p.grad.any() for p in module.parameters())


@pytest.mark.hashed_ids
def test_hashed_ids_may_be_any_int64(case: Case) -> None:
    embedding = case.embedding(None)
    vectors = embedding(torch.tensor(EXTREMES))
    assert torch.isfinite(vectors).all()
    bag = case.bag(None, mode="sum", padding_idx=-1)
    pooled = bag(torch.tensor([EXTREMES, [-1] * 4]))
    torch.testing.assert_close(pooled[0], bag(torch.tensor([EXTREMES[:2] + EXTREMES[3:]]))[0])
    assert not pooled[1].any()
    with pytest.raises(BitfoldError, match="no table"):
        _ = embedding.weight


@pytest.mark.first_form
@pytest.mark.hashed_ids
def test_hashed_ids_have_no_weight_and_say_so(case: Case) -> None:
    for module in (case.embedding(None), case.bag(None)):
        assert not hasattr(module, "weight")
        assert getattr(module, "weight", None) is None
        with pytest.raises(AttributeError, match="no table"):
            _ = module.weight
        with pytest.raises(BitfoldError, match="no table"):
            module.weight = nn.Parameter(torch.zeros(50, DIM))


@pytest.mark.parametrize("bad", [-1, 50, -(2**63), 2**63 - 1])
def test_dense_ids_out_of_range_raise(case: Case, bad: int) -> None:
    with pytest.raises(IdOutOfRange, match=f"{bad} at"):
        case.embedding(50)(torch.tensor([3, bad]))
    with pytest.raises(IdOutOfRange, match=f"{bad} at"):
        case.bag(50)(torch.tensor([[3, 4], [4, bad]]))
    with pytest.raises(IndexError):
        case.bag(50, padding_idx=3)(torch.tensor([bad, 3]), torch.tensor([0]))


def test_each_field_has_its_own_range(case: Case, small: EmbeddingCollection) -> None:
    for f, field in enumerate(case.fields):
        ids = case.ids(3)
        if field.num_embeddings is None:
            ids[1, f] = -1
            assert small(ids).shape[0] == 3
            continue
        ids[1, f] = field.num_embeddings
        with pytest.raises(IdOutOfRange, match=f"'{field.name}'") as error:
            small(ids)
        assert f"0 to {field.num_embeddings - 1}" in str(error.value)
        bags = [[[int(v)] for v in row] for row in ids]
        with pytest.raises(IdOutOfRange, match=f"'{field.name}'"):
            small(*bags_by_field(bags))


@pytest.mark.first_form
def test_ids_of_every_form(case: Case) -> None:
    table = case.embedding(50)
    rows = table(torch.arange(50))
    wide = torch.arange(48).reshape(6, 8)
    for ids in (torch.tensor(7), wide[:, ::2], wide.T, wide.reshape(2, 3, 8), wide.int()):
        same_rows(table, table(ids), rows[ids.long()])
    for shape in ((0,), (0, 3), (3, 0)):
        out = table(torch.zeros(shape, dtype=torch.int64))
        assert out.shape == (*shape, DIM)
        out.sum().backward()
    padded, bag = case.embedding(50, padding_idx=3), case.bag(50, padding_idx=3)
    ids = torch.tensor([[0, 3], [49, 7]])
    assert torch.equal(padded(ids.int()), padded(ids))
    assert torch.equal(bag(ids.int()), bag(ids))
    starts = torch.tensor([0, 3])
    flat = ids.reshape(-1)
    assert torch.equal(bag(flat.int(), starts.int()), bag(flat, starts))


def mistakes(case: Case) -> dict[str, Callable[[], object]]:
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


@pytest.mark.first_form
def test_mistakes_are_refused_with_what_was_expected(case: Case) -> None:
    for what, mistake in mistakes(case).items():
        with pytest.raises(BitfoldError) as error:
            mistake()
        assert error.value.expected or error.value.fix, what


@pytest.mark.first_form
def test_the_printed_form_is_one_line_and_says_what_was_said(case: Case) -> None:
    table = case.embedding(50, padding_idx=3, sparse=True)
    assert repr(table).startswith(f"Embedding(50, {DIM}, method={case.method!r}")
    assert "\n" not in repr(table)
    assert "padding_idx=3" in repr(table)
    assert ("sparse=True" in repr(table)) == embedders(table)[0].sparse
    assert "\n" not in repr(case.collection())
