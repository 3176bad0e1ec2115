"""PEP by hand: what thresholds take off, what is kept, where it is trained from, what it weighs."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitfold import BitfoldError, BudgetTooSmall, EmbeddingCollection, Field, plan
from bitfold.embedder.pruning import ThresholdPool
from bitfold.method.base import Phase
from bitfold.planning.kept import index_of
from bitfold.planning.spec import PoolSpec
from bitfold.pool.indexing import index_bytes, places_of
from bitfold.pool.pruned import MaskedPool, PrunedPool
from bitfold.training.phases import ended, next_collection

FIELDS = [Field("user", 60), Field("item", 40)]
SEARCH, RETRAIN = Phase("search", 0.5), Phase("retrain", 0.5, start="fresh")


@given(st.data())
def test_an_index_tells_any_places(data):
    numbers = data.draw(st.integers(1, 400))
    places = sorted(data.draw(st.sets(st.integers(0, numbers - 1), min_size=1)))
    index = index_bytes(torch.tensor(places), numbers)
    assert len(index) == index_of(numbers, len(places)).bytes
    assert places_of(index, numbers, len(places)).tolist() == places


def test_an_index_in_bytes_by_hand():
    """Of 1600 numbers 1, 6 and 300: seven bits of each, then what is above them: 0, 0 and 2."""
    assert index_of(16, 3).bytes == 2
    assert index_of(10**6, 10**4) == (6, 7500, 7500 + (10**4 + (10**6 - 1 >> 6) + 7) // 8)
    assert index_of(10**6, 5 * 10**5) == (-1, 0, 125_000)
    index = index_bytes(torch.tensor([1, 6, 300]), 1600)
    assert int.from_bytes(bytes(index[:3].tolist()), "little") == 1 | 6 << 7 | (300 - 256) << 14
    assert index[3:].tolist() == [0b10011, 0]


@pytest.mark.parametrize(("numbers", "kept"), [(64, 30), (1000, 3)])
def test_a_damaged_index_is_refused(numbers, kept):
    index = index_bytes(torch.arange(kept) * 2, numbers)
    with pytest.raises(BitfoldError, match="damaged"):
        places_of(torch.zeros_like(index), numbers, kept)
    with pytest.raises(BitfoldError, match="damaged"):
        places_of(torch.full_like(index, 255), numbers, kept)


def test_thresholds_draw_numbers_towards_zero():
    pool = ThresholdPool(3, 2, 3, bounds=(), shape=(3, 1), start=-2.0)
    with torch.no_grad():
        pool.weight.copy_(torch.tensor([[0.5, -0.5], [0.1, -0.05], [-2.0, 0.2]]))
        pool.thresholds.weight.copy_(torch.tensor([[0.0], [-1.0], [2.0]]))
    off = torch.sigmoid(torch.tensor([-2.0, -3.0, 0.0]))
    expected = torch.tensor(
        [[0.5 - off[0], off[0] - 0.5], [0.1 - off[1], off[1] - 0.05], [off[2] - 2.0, 0.0]]
    )
    expected[1, 1] = -(0.05 - off[1])
    torch.testing.assert_close(pool(torch.tensor([0, 1, 2])), expected)
    # |v| - off: .38 .38 | .05 .0026 | 1.5 -.3; of equal ones the first is taken.
    assert pool.best().tolist() == [0, 1, 4]
    served = pool.serving()
    torch.testing.assert_close(served.weight.data, expected.flatten()[[0, 1, 4]])


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("global", (1, 1)), ("field", (2, 1)), ("dimension", (1, 4)), ("feature", (100, 1))],
)
def test_what_has_a_threshold_of_its_own(kind, shape):
    collection = EmbeddingCollection(FIELDS, 4, method="pep", budget="4x", threshold=kind, std=1.0)
    pool = collection.embedder.pool
    assert pool.thresholds.weight.shape == shape
    with torch.no_grad():
        pool.thresholds.weight.copy_(
            torch.arange(pool.thresholds.weight.numel()).reshape(shape) + 15.0
        )
    ids = torch.tensor([[3, 5], [59, 39]])
    levels = {
        "global": torch.zeros(2, 2, 4),
        "field": torch.tensor([0.0, 1.0]).reshape(1, 2, 1).expand(2, 2, 4),
        "dimension": torch.arange(4.0).expand(2, 2, 4),
        "feature": torch.tensor([[3.0, 65], [59, 99]]).unsqueeze(-1).expand(2, 2, 4),
    }
    rows = pool.weight[torch.tensor([[3, 65], [59, 99]])]
    expected = rows.sign() * (rows.abs() - torch.sigmoid(levels[kind])).relu()
    torch.testing.assert_close(collection(ids), expected)


def test_the_budget_buys_numbers_and_their_index():
    for budget in (200, 600, 1000, 1500):
        made = plan(FIELDS, 4, method="pep", budget=budget)
        kept = made.group.pools[0].kept
        assert made.bytes == 4 * kept + index_of(400, kept).bytes <= budget
        assert 4 * (kept + 1) + index_of(400, kept + 1).bytes > budget
    assert plan(FIELDS, 4, method="pep", budget=1600).group.pools[0].kept is None
    with pytest.raises(BudgetTooSmall) as error:
        plan(FIELDS, 4, method="pep", budget=1)
    assert error.value.minimum == 4 + index_of(400, 1).bytes
    with pytest.raises(BitfoldError, match="kept"):
        PoolSpec("pool", 10, 4, kept=41)
    with pytest.raises(BitfoldError, match="search is out of range"):
        plan(FIELDS, 4, method="pep", budget="4x", search=1.0)


def test_what_was_found_is_trained_from_its_initial_values():
    first = EmbeddingCollection(FIELDS, 4, method="pep", budget="4x", seed=3)
    initial = first.embedder.pool.weight.detach().clone()
    with torch.no_grad():
        first.embedder.pool.weight.add_(torch.randn(100, 4))
    best = first.embedder.pool.best()
    made = ended(first, SEARCH)
    assert (made.phase, made.bytes) == ("search", first.plan.bytes)
    after = next_collection(first, made, RETRAIN, seed=3)
    ids = torch.stack([torch.arange(40) + 20, torch.arange(40)], 1)
    rows = torch.zeros(400).index_copy(0, best, initial.flatten()[best]).reshape(100, 4)
    expected = torch.stack([rows[20:60], rows[60:]], 1)
    assert torch.equal(after(ids), expected)
    after(ids).sum().backward()
    assert int((after.embedder.pool.weight.grad != 0).sum()) <= len(best)
    served = after.serving()
    assert isinstance(served.embedder.pool, PrunedPool)
    assert torch.equal(served(ids), expected)
    again = EmbeddingCollection.from_plan(made).serving()
    again.load_state_dict(served.state_dict())
    assert torch.equal(again(ids), expected)
    assert isinstance(again.resume().embedder.pool, MaskedPool)
    assert torch.equal(again.resume().embedder.pool.mask, after.embedder.pool.mask)


def test_in_a_search_the_smallest_numbers_are_lost_when_it_serves():
    collection = EmbeddingCollection(FIELDS, 4, method="pep", budget="4x", seed=3)
    assert not collection.embedder.exact
    ids = torch.stack([torch.arange(40) + 20, torch.arange(40)], 1)
    vectors, served = collection(ids), collection.serving()(ids)
    kept = served != 0
    assert torch.equal(served[kept], vectors[kept])
    assert vectors[~kept].abs().max() <= vectors[kept].abs().min()


@pytest.mark.parametrize("method", ["pep", "magnitude-pruning", "full"])
def test_a_plan_with_maps_keeps_to_its_budget(method):
    """The address of a map has a fingerprint, of which a table's plan knows nothing."""
    fields = [Field("query", distinct=100), Field("page", distinct=30)]
    whole = plan(fields, 4, method="full", map=True).bytes
    budgets = [whole - 1, whole] if method != "full" else [whole]
    for budget in budgets:
        made = plan(fields, 4, method=method, map=True, budget=budget)
        assert budget - 8 <= made.bytes <= budget


def test_a_cast_leaves_a_mask():
    pool = MaskedPool(4, 3, 5)
    before = pool.mask.clone()
    assert torch.equal(pool.type(torch.float64).mask, before)
    assert pool(torch.arange(4)).dtype is torch.float64
