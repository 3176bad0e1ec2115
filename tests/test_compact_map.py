"""Compact maps: every id of a set has a place of its own, three ways to look it up agree."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from bitfold import BitfoldError
from bitfold.address.compact_map import MOST_IDS, CompactMap
from bitfold.kernels.map_building import build_map
from drawn_plans import INT64, SEEDS

EXTREMES = [-(2**63), 2**63 - 1, -1, 0, 1]
SETS = st.lists(st.one_of(INT64, st.sampled_from(EXTREMES)), max_size=200)


@given(SETS, st.integers(0, 20), SEEDS, st.lists(INT64, max_size=20))
def test_every_id_has_a_place_of_its_own_in_all_three_ways(ids, spare, salt, others):
    distinct = sorted(set(ids))
    shape = CompactMap(max(len(distinct), 1) + spare, salt)
    table = build_map(shape, np.array(ids, np.int64))
    assert table.dtype == np.uint8
    assert len(table) == shape.bytes
    asked = np.array([*distinct, *others, *EXTREMES], np.int64)
    defined = [shape.place_int(table.tolist(), int(value)) for value in asked]
    assert shape.places(table, asked).tolist() == [-1 if p is None else p for p in defined]
    found = shape.places_torch(torch.from_numpy(table), torch.from_numpy(asked))
    assert found.tolist() == shape.places(table, asked).tolist()
    places = defined[: len(distinct)]
    assert None not in places
    assert len(set(places)) == len(distinct)
    assert all(0 <= place < shape.capacity for place in places)


@given(SETS.filter(bool), SEEDS, st.randoms())
def test_a_table_is_of_the_set_and_not_of_its_order(ids, salt, random):
    shape = CompactMap(len(set(ids)), salt)
    table = build_map(shape, np.array(ids, np.int64))
    again = [*ids, *ids[:3]]
    random.shuffle(again)
    assert np.array_equal(build_map(shape, np.array(again, np.int64)), table)


@pytest.mark.parametrize("count", [1, 2, 3, 17, 1000, 50_000])
@pytest.mark.parametrize("drawn", [False, True])
def test_places_of_a_full_map_are_0_to_n(count, drawn):
    ids = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, count) if drawn else None
    ids = np.arange(count) if ids is None else ids
    shape = CompactMap(count, salt=3)
    places = shape.places(build_map(shape, ids), ids)
    assert np.array_equal(np.sort(places), np.arange(count))


@pytest.mark.parametrize("filled", [1.0, 0.5, 0.0])
def test_one_id_in_256_that_is_not_of_the_set_is_taken_for_one(filled):
    """Also where places are empty: their fingerprints match no more than others do."""
    shape = CompactMap(20_000, salt=5)
    table = build_map(shape, np.arange(int(20_000 * filled)))
    unseen = np.random.default_rng(1).integers(1 << 40, 2**62, 256_000)
    taken = int((shape.places(table, unseen) >= 0).sum())
    assert 850 < taken < 1150


def test_the_size_is_known_before_the_ids():
    """Ten and a half bits an id."""
    assert CompactMap(1, 0).bytes == 3
    assert CompactMap(13_296, 0).bytes == 1 + 4155 + 13_296
    assert CompactMap(10**9, 0).bytes * 8 < 10.51 * 10**9


def test_places_never_change_between_versions():
    """Saved weights depend on these numbers: whoever changes them raises `MAP_VERSION`."""
    shape = CompactMap(1000, salt=12345)
    table = (np.arange(shape.bytes) * 37 % 256).astype(np.uint8)
    hits = {value: shape.place_int(table.tolist(), value) for value in range(1000)}
    assert {value: place for value, place in hits.items() if place is not None} == {
        301: 123,
        437: 845,
        458: 963,
        685: 951,
    }


def test_a_set_without_a_solution_takes_another_salt():
    """Of such small sets some have none at the first attempt."""
    attempts = {int(build_map(CompactMap(n, salt=1), np.arange(n))[0]) for n in range(1, 200)}
    assert max(attempts) > 0


def test_a_compiled_graph_gives_the_same_places():
    shape, ids = CompactMap(50, salt=9), torch.arange(-100, 100)
    table = torch.from_numpy(build_map(shape, np.arange(50)))
    compiled = torch.compile(shape.places_torch, backend="eager", fullgraph=True)
    assert torch.equal(compiled(table, ids), shape.places_torch(table, ids))
    assert shape.places_torch(table, ids.reshape(2, 5, 20)).shape == (2, 5, 20)


@pytest.mark.parametrize("capacity", [0, -1, MOST_IDS + 1])
def test_maps_of_no_size_are_refused(capacity):
    with pytest.raises(BitfoldError, match="of that size"):
        CompactMap(capacity, 0)


def test_more_ids_than_places_are_refused():
    with pytest.raises(BitfoldError, match="5 distinct ids"):
        build_map(CompactMap(4, 0), np.array([1, 2, 3, 4, 5, 5]))


@pytest.mark.parametrize("ids", [np.zeros(3), np.zeros((2, 2), np.int64), np.zeros(3, np.int32)])
def test_a_map_is_built_of_int64(ids):
    with pytest.raises(BitfoldError, match="built of ids"):
        build_map(CompactMap(4, 0), ids)
