"""Pooling against torch's own bags, and offsets that make no sense."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from bitfold import BitfoldError, UnknownName
from bitfold.fuse.bags import MODES, bags_of, check_offsets, check_pooling, pool

LENGTHS = st.lists(st.integers(0, 4), min_size=0, max_size=6)


def cut(lengths):
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return offsets, int(offsets[-1])


@given(LENGTHS, st.sampled_from(MODES), st.booleans(), st.integers(0, 2**31))
def test_pooling_equals_torch(lengths, mode, weighted, seed):
    offsets, total = cut(lengths)
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(total, 3, generator=generator, dtype=torch.float64)
    weights = None
    if weighted and mode == "sum":
        weights = torch.randn(total, generator=generator, dtype=torch.float64)
    ours = pool(vectors, bags_of(offsets, total), len(lengths), mode, weights=weights)
    if not lengths:
        assert ours.shape == (0, 3)
        return
    expected = F.embedding_bag(
        torch.arange(total),
        torch.cat([vectors, torch.zeros(1, 3, dtype=torch.float64)]),
        offsets[:-1],
        mode=mode,
        per_sample_weights=weights,
    )
    torch.testing.assert_close(ours, expected)


@given(LENGTHS, st.sampled_from(MODES), st.data())
def test_what_is_left_out_counts_in_no_bag(lengths, mode, data):
    offsets, total = cut(lengths)
    keep = data.draw(st.lists(st.booleans(), min_size=total, max_size=total))
    vectors = torch.randn(total, 2) - 5  # below zero: a zero that slipped in would win the max
    bag = bags_of(offsets, total)
    kept = torch.tensor(keep, dtype=torch.bool)
    ours = pool(vectors, bag, len(lengths), mode, keep=kept)
    assert torch.equal(ours, pool(vectors[kept], bag[kept], len(lengths), mode))


def test_narrow_numbers_are_summed_in_float32():
    ones = torch.ones(3000, 1, dtype=torch.bfloat16)
    bag = torch.zeros(3000, dtype=torch.int64)
    total = pool(ones, bag, 1, "sum")
    assert total.dtype == torch.bfloat16
    assert float(total) == pytest.approx(3000, rel=0.01)  # in bfloat16 it would stop at 256
    assert float(pool(ones, bag, 1, "mean")) == 1.0


def test_one_gradient_flows_to_the_largest():
    vectors = torch.tensor([[1.0, 5.0], [2.0, 4.0], [9.0, 9.0]], requires_grad=True)
    pool(vectors, torch.tensor([0, 0, 1]), 3, "max").sum().backward()
    assert vectors.grad.tolist() == [[0, 1], [1, 0], [1, 1]]


@given(LENGTHS)
def test_bags_are_numbered_by_their_offsets(lengths):
    offsets, total = cut(lengths)
    expected = [bag for bag, length in enumerate(lengths) for _ in range(length)]
    assert bags_of(offsets, total).tolist() == expected
    check_offsets(offsets, total)


@pytest.mark.parametrize(
    ("offsets", "total"), [([1, 3], 3), ([0, 2], 3), ([0, 4], 3), ([0, 2, 1, 3], 3), ([-1, 3], 3)]
)
def test_offsets_that_cut_nothing(offsets, total):
    with pytest.raises(BitfoldError, match="offsets") as error:
        check_offsets(torch.tensor(offsets), total)
    assert f"end at {total}" in error.value.expected


def test_modes_and_weights():
    with pytest.raises(UnknownName, match="did you mean 'mean'"):
        check_pooling("meen", None)
    for mode in ("mean", "max"):
        with pytest.raises(BitfoldError, match="for sums"):
            check_pooling(mode, torch.ones(1))
