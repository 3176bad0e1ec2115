"""Learned hashes by hand: what is trained first, which ids come together, what it weighs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitfold import BitfoldError, BudgetTooSmall, EmbeddingCollection, Field, plan
from bitfold.address.stored import unpack_bits
from bitfold.embedder.buckets import Buckets, Sketch, clustered
from bitfold.method.sets import plan_sets
from bitfold.planning.statistics import Counted
from bitfold.training.phases import begun, ended, next_collection, stages

FIELDS = [Field("user", 300), Field("item", 200), Field("sex", 2)]
KINDS = 4 * (np.arange(300) % 6)
"""Numbers of six kinds of users."""


COUNTS = Counted({each.name: (np.arange(each.size), np.ones(each.size)) for each in FIELDS})


def planned(fields=FIELDS, **more):
    return plan(fields, 8, **{"method": "learned-hash", "budget": 4000, **more})


def first_of(made, stats=None):
    """The module that the first phase trains."""
    collection = EmbeddingCollection.from_plan(begun(made), seed=1)
    if stats is not None:
        collection.embedder.prepare(stats)
    return collection


def second_of(first):
    """The module of the clusters that the first phase gave."""
    small, clusters = stages(first.plan, 4)
    return next_collection(first, ended(first, small.phase), clusters.phase, seed=1)


def pointers_of(collection, number=0):
    embedder = collection.embedder
    source = embedder.program.fields[number][0].source
    table = embedder.stored.named()[source.table]
    return unpack_bits(table, source.bits, source.length).numpy()


def state_bytes(collection):
    return sum(each.nbytes for each in collection.serving().state_dict().values())


def read(points):
    return lambda ids: points[ids]


def test_ids_that_are_alike_share_a_row():
    """Users of six kinds, in a table of one number, and six rows of 64 numbers."""
    made = plan([Field("user", 300)], 64, method="learned-hash", budget=1657, frequency=0.0)
    assert made.program.rows == 6
    first = first_of(made, Counted({"user": (np.arange(252), np.ones(252))}))
    assert first.plan.group.width == 1
    with torch.no_grad():
        numbers = KINDS + 0.01 * np.arange(300) / 300
        first.embedder.pool.weight[:, 0] = torch.from_numpy(numbers)
    after, hashed = second_of(first), pointers_of(EmbeddingCollection.from_plan(made, seed=1))
    assert after.plan.group == made.group
    found = pointers_of(after)
    rows = [set(found[kind:252:6]) for kind in range(6)]
    assert [len(each) for each in rows] == [1] * 6
    assert set.union(*rows) == set(range(6))
    assert np.array_equal(found[252:], hashed[252:])  # those that training lacks
    assert len({*hashed[252:]}) > 3
    vectors = after(torch.arange(300).unsqueeze(1))[:, 0]
    assert torch.equal(vectors, after.embedder.pool.weight[found])


def test_alike_ids_of_hashed_fields_share_a_row_too():
    hashed = np.random.default_rng(3).integers(-(2**63), 2**63 - 1, 300)
    stats = Counted({"query": (hashed, np.ones(300))})
    fields = [Field("query", distinct=300)]
    made = plan(fields, 64, method="learned-hash", budget=2200, map=True, rows=6)
    first = first_of(made, stats)
    assert first.plan.group.width == 1
    assert first.plan.bytes == state_bytes(first) <= 2200
    embedder = first.embedder
    tables, source = embedder.stored.named(), embedder.program.fields[0][0].source
    places = source.code_torch(torch.from_numpy(hashed), tables)
    with torch.no_grad():
        embedder.pool.weight[places, 0] = torch.from_numpy(KINDS).float()
    after = second_of(first)
    assert after.plan.group == made.group
    after.embedder.prepare(stats)
    vectors = after(torch.from_numpy(hashed).unsqueeze(1))[:, 0]
    assert len(vectors.unique(dim=0)) == 6
    for kind in range(6):
        assert len(vectors[kind::6].unique(dim=0)) == 1
    assert after.plan.bytes == state_bytes(after)


def test_weights_that_are_no_numbers_are_not_clustered():
    made = planned()
    first = first_of(made, COUNTS)
    with torch.no_grad():
        first.embedder.pool.weight[0] = torch.nan
    hashed = EmbeddingCollection.from_plan(made, seed=1)
    assert np.array_equal(pointers_of(second_of(first)), pointers_of(hashed))


def test_sets_are_clustered_one_by_one():
    made = plan_sets(FIELDS, 8, 2, method="learned-hash", budget=8000)
    first = first_of(made)
    for part in first.embedder.parts:
        part.prepare(COUNTS)
    after = second_of(first)
    assert first.plan.bytes == state_bytes(first) <= 8000
    assert after.plan.bytes == state_bytes(after) <= 8000
    ids = torch.tensor([[3, 4, 1]]).repeat(1, 2)
    assert torch.equal(after(ids), after.serving()(ids))


def test_frequent_ids_own_rows_where_that_is_said():
    """Ids in one place but one, the first by far the most frequent, and three rows."""
    points = np.array([[0.0], [0.0], [0.0], [5.0], [0.0]], np.float32)
    often = np.array([9.0, 7.0, 1.0, 1.0, 0.0])
    row = clustered(read(points), often, 3, own=0.4)
    assert row[0] == 0
    assert row[1] == row[2] != row[3]
    assert row[4] == -1


def test_a_row_that_no_cluster_takes_goes_to_a_frequent_id():
    points = np.array([[0.0], [0.0], [0.0], [5.0], [0.0]], np.float32)
    row = clustered(read(points), np.array([7.0, 9.0, 1.0, 1.0, 0.0]), 3)
    assert row[0] == row[2] != row[3]
    assert len({*row[:4]}) == 3
    assert row[1] not in (row[0], row[3])


def test_frequency_parts_ids_of_one_place():
    points, often = np.zeros((200, 1), np.float32), np.repeat([1000.0, 1.0], 100)
    row = clustered(read(points), often, 2, frequency=1.0)
    assert len({*row[:100]}) == len({*row[100:]}) == 1
    assert row[0] != row[100]


@given(st.data())
def test_every_row_is_taken_and_no_other(data):
    many = data.draw(st.integers(1, 60))
    often = data.draw(st.lists(st.integers(0, 3), min_size=many, max_size=many))
    places = data.draw(st.lists(st.integers(-3, 3), min_size=many, max_size=many))
    rows, own = data.draw(st.integers(1, 20)), data.draw(st.sampled_from([0.0, 0.5, 1.0]))
    points, often = np.array(places, np.float32)[:, None], np.array(often, np.float64)
    found = clustered(read(points), often, rows, own=own, frequency=0.5, seed=7)
    seen = often > 0
    assert np.array_equal(found >= 0, seen)
    assert {*found[seen]} == set(range(min(rows, int(seen.sum()))))
    again = clustered(read(points), often, rows, own=own, frequency=0.5, seed=7)
    assert np.array_equal(found, again)


def test_vectors_are_read_some_at_a_time():
    read_at_once = []
    points = np.random.default_rng(0).normal(size=(20_000, 2)).astype(np.float32)

    def counted(ids):
        read_at_once.append(len(ids))
        return points[ids]

    found = clustered(counted, np.ones(20_000), 50)
    assert max(read_at_once) <= 5000
    means = np.stack([points[found == row].mean(0) for row in range(50)])
    lost = np.square(points - means[found]).sum() / np.square(points - points.mean(0)).sum()
    assert lost < 0.04  # a random map of as many rows: 1


@pytest.mark.parametrize(
    ("budget", "bits"), [(168, None), (900, None), (4000, None), (9000, None), (300, 4), (1500, 4)]
)
def test_both_plans_hold_the_budget_and_know_their_bytes(budget, bits):
    made = planned(budget=budget, bits=bits)
    first = first_of(made, COUNTS)
    after = second_of(first)
    assert after.plan.groups == made.groups
    assert first.plan.bytes <= made.bytes <= budget
    assert first.plan.bytes == state_bytes(first)
    assert after.plan.bytes == state_bytes(after)


def test_its_bytes_to_the_last_pointer():
    made = planned()
    rows = made.group.options["rows"]
    bits = (rows - 1).bit_length()
    assert made.program.rows == 2 * rows + 2
    pointers = -(-300 * bits // 8) + -(-200 * bits // 8)
    assert made.by_kind == {
        "weights": (2 * rows + 2) * 32, "pointers": pointers, "fingerprint": 8
    }  # fmt: skip
    assert 4000 - 2 * 32 - 63 < made.bytes <= 4000
    with pytest.raises(BudgetTooSmall) as error:
        planned(budget=100)
    assert planned(budget=error.value.minimum).bytes == error.value.minimum
    with pytest.raises(BudgetTooSmall):
        planned(budget=error.value.minimum - 1)
    with pytest.raises(BudgetTooSmall):
        planned(rows=200)
    whole = planned(budget=502 * 32)
    assert not whole.group.stored
    assert [stage.phase.name for stage in stages(begun(whole), 3)] == [""]


def test_what_is_trained_first():
    """A table as wide as the budget allows, codes where it holds none, at worst what follows."""
    table = begun(planned())
    assert (table.group.width, table.fusion) == (1, "sum")
    assert begun(planned(budget=12_000)).group.width == 5
    assert begun(planned(budget=12_000, dims=2)).group.width == 2
    codes = begun(planned(budget=2000))
    assert (codes.group.width, codes.fusion) == (8, "product")
    assert begun(planned(small="code")).fusion == "product"
    assert isinstance(first_of(planned()).embedder, Sketch)
    least = plan([Field("id", 1000)], 64, method="learned-hash", budget=400)
    assert begun(least).groups == least.groups


def test_without_phases_pointers_are_a_hash():
    made = planned()
    one, other, salted = (EmbeddingCollection.from_plan(made, seed=seed) for seed in (1, 1, 2))
    assert isinstance(one.embedder, Buckets)
    assert np.array_equal(pointers_of(one), pointers_of(other))
    assert not np.array_equal(pointers_of(one), pointers_of(salted))
    rows = made.group.options["rows"]
    assert np.bincount(pointers_of(one), minlength=rows).max() < 5 * 300 / rows
    after = second_of(one)  # of a loop that does not begin as it should: pointers stay
    assert np.array_equal(pointers_of(after), pointers_of(one))


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("learn", 1.0, "learn is out of range"),
        ("own", 1.5, "own is out of range"),
        ("frequency", -1.0, "frequency is out of range"),
        ("dims", 0, "dims of method"),
        ("rows", 0, "rows of method"),
        ("small", "hash", "small"),
    ],
)
def test_options_that_cannot_be(option, value, said):
    with pytest.raises(BitfoldError, match=said):
        planned(**{option: value})


def test_options_that_do_not_go_together():
    with pytest.raises(BitfoldError, match="dims are those of a narrow table"):
        planned(small="code", dims=2)
    with pytest.raises(BitfoldError, match="needs a budget"):
        planned(budget=None)
    with pytest.raises(BitfoldError, match="cannot take hashed ids"):
        planned([Field("query", distinct=200)])
