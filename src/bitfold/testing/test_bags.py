"""Every method: a bag's vector is the pooled vectors of its ids, in every face and form."""

import pytest
import torch
from torch import nn

from bitfold.fuse.bags import MODES
from bitfold.testing.cases import DIM, Case, bags_by_field, random_bags


@pytest.mark.parametrize("mode", MODES)
def test_bags_of_a_collection_equal_the_loop(case: Case, mode: str) -> None:
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


def test_weighted_bags_of_a_collection_equal_the_loop(case: Case) -> None:
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


@pytest.mark.first_form
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding_idx", [None, 3, -1])
def test_every_form_of_a_bag_equals_torch(case: Case, mode: str, padding_idx: int | None) -> None:
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
