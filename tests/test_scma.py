"""SCMA by hand: whose memory is shared, how far, and what signatures weigh."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfold import BitfoldError, BudgetTooSmall, EmbeddingCollection, Field, plan
from bitfold.address import Raw
from bitfold.address.stored import unpack_bits
from bitfold.data.prepare import prepare
from bitfold.data.prepared import PreparedLog
from bitfold.data.vocabulary import Vocabulary
from bitfold.embedder.minhash import NOTHING, MinHashes, add_neighbours, hashed, sample
from bitfold.embedder.signatures import Signatures
from bitfold.fitting import fit
from bitfold.planning import statistics
from bitfold.planning.statistics import Counted, Occurrences, Promised
from bitfold.pool import FlatPool
from bitfold.training.counting import LogStatistics
from bitfold.training.rows import TrainingRows
from click_log import DATA, columns, write

SHARED = (0, 5, 20, 45, 60)
"""How many of its 60 items user `k` has in common with user 5."""


def planned(fields, budget=40_000, dim=128, **more):
    return plan(fields, dim, method="scma", budget=budget, **more)


def company():
    """Rows of six users with 60 items each: user 5 has items 0 to 59."""
    users, items, fresh = [], [], 60
    for user, common in enumerate(SHARED):
        own = range(fresh, fresh + 60 - common)
        fresh += 60 - common
        users += [user] * 60
        items += [*range(common), *own]
    return Counted.of_rows({"user": [*users, *[5] * 60], "item": [*items, *range(60)]})


def cells_of(made, number, ids):
    embedder = made.embedder
    tables = {name: each.tolist() for name, each in embedder.stored.named().items()}
    return np.array([embedder.program.cells_int(number, value, tables) for value in ids])


def state_bytes(collection):
    return sum(each.nbytes for each in collection.serving().state_dict().values())


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("chunk", [None, 1])
def test_the_shared_part_of_memory_follows_the_overlap(power, chunk):
    """Of 128 elements: an error of three deviations is sqrt(1/4 * 9/128)."""
    fields = [Field("user", 100), Field("item", 240)]
    made = planned(fields, 90_000, elements=128, chunk=chunk, power=power, element_bits=10)
    collection = EmbeddingCollection.from_plan(made, seed=0)
    plain = cells_of(collection, 0, range(8))
    collection.embedder.prepare(company())
    cells = cells_of(collection, 0, range(8))
    assert np.array_equal(cells[6:], plain[6:])  # never met
    assert (cells[:6] != plain[:6]).mean() > 0.9
    for user, common in enumerate(SHARED):
        overlap = common / (120 - common)
        found = (cells[user] == cells[5]).mean()
        assert abs(found - overlap**power) < 0.14, (user, found, overlap)
    assert (cells[4] == cells[5]).all()
    ids = torch.tensor([[4, 0], [5, 0]])
    assert torch.equal(collection(ids)[0], collection(ids)[1])


def test_rows_as_company_join_fields_and_no_ids_of_one_field():
    """Users 0 and 1 take turns; zip 0 is user 0's, zip 1 both's by halves."""
    rows = {"user": [0, 1] * 40, "zip": [0, 1] * 20 + [0, 0, 1, 1] * 10}
    overlap = 30 / 50  # 40 rows of user 0, 40 of zip 0, 30 of them common
    fields = [Field("user", 100), Field("zip", 110)]
    made = planned(fields, 60_000, elements=128, of="rows", element_bits=10, power=1)
    collection = EmbeddingCollection.from_plan(made, seed=0)
    collection.embedder.prepare(Counted.of_rows(rows))
    users, zips = cells_of(collection, 0, [0, 1]), cells_of(collection, 1, [0, 1])
    assert abs((users[0] == zips[0]).mean() - overlap) < 0.14
    assert abs((users[1] == zips[1]).mean() - overlap) < 0.14
    assert (users[0] == users[1]).mean() < 0.03


@given(st.integers(1, 300), st.integers(0, 300), st.integers(0, 300), st.integers(0, 1 << 40))
@settings(max_examples=25, deadline=None)
def test_minhash_estimates_the_overlap(common, left, right, salt):
    members = np.arange(common + left + right, dtype=np.uint64)
    found = MinHashes(2, 400, salt)
    found.add(np.zeros(common + left, np.int64), members[: common + left])
    found.add(np.ones(common, np.int64), members[:common])
    found.add(np.ones(right, np.int64), members[common + left :])
    elements = found.elements(1, 1 << 30)
    overlap = common / len(members)
    # five deviations, of at most 1 / (2 sqrt(400))
    assert abs((elements[0:, 0] == elements[:, 1]).mean() - overlap) < 0.125


def test_the_error_of_many_pairs_is_one_over_the_root_of_the_elements():
    generator = np.random.default_rng(0)
    held = generator.random((60, 200)) < generator.uniform(0.1, 0.9, (60, 1))
    sets, members = np.nonzero(held)
    for functions in (16, 256):
        found = MinHashes(60, functions, 3)
        found.add(sets, members.astype(np.uint64))
        elements = found.elements(1, 1 << 30)
        share = (elements[:, :, None] == elements[:, None, :]).mean(0)
        both = (held[:, None] & held).sum(2) / (held[:, None] | held).sum(2)
        off = (share - both)[np.triu_indices(60, 1)]
        expected = np.sqrt((both * (1 - both))[np.triu_indices(60, 1)].mean() / functions)
        assert 0.7 * expected < np.sqrt((off**2).mean()) < 1.3 * expected
        assert expected < 1 / np.sqrt(functions)


def test_few_ways_share_by_chance_what_is_left():
    found = MinHashes(2, 4000, 1)
    found.add(np.array([0, 1]), np.array([1, 2], np.uint64))
    elements = found.elements(1, 4)
    assert 0 <= elements.min() <= elements.max() == 3
    assert abs((elements[:, 0] == elements[:, 1]).mean() - 1 / 4) < 0.04


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_what_a_row_adds_is_the_least_hash_of_the_others(data):
    rows = data.draw(st.integers(1, 5))
    part, members, sets = {}, {}, {}
    company = {}
    for name in ("a", "b", "c"):
        bags = data.draw(st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=rows,
                                  max_size=rows))  # fmt: skip
        ids = np.array([value for bag in bags for value in bag], np.int64)
        place = np.repeat(np.arange(rows), [len(bag) for bag in bags]) + 7
        part[name], sets[name] = Occurrences(ids, place), ids
        members[name] = (ids + 10 * ord(name)).astype(np.uint64)
        company[name] = bags
    hashes = {name: MinHashes(4, 3, 9) for name in ("a", "b")}
    add_neighbours(hashes, part, members, sets)
    for name, into in hashes.items():
        expected = MinHashes(4, 3, 9)
        for row in range(rows):
            row_has = {(other, value) for other, bags in company.items() for value in bags[row]}
            for value in set(company[name][row]):
                for other, each in row_has - {(name, value)}:
                    member = np.array([each + 10 * ord(other)], np.uint64)
                    expected.add(np.array([value]), member)
        assert np.array_equal(into.least, expected.least)


def test_signatures_do_not_ask_in_which_parts_rows_come(monkeypatch):
    stats, made = company(), planned([Field("user", 50), Field("item", 400)], 12_000)
    whole, pieces = (EmbeddingCollection.from_plan(made, seed=0) for _ in range(2))
    whole.embedder.prepare(stats)
    monkeypatch.setattr(statistics, "AT_ONCE", 7)
    assert len([*stats.occurrences()]) == -(-360 // 7)
    pieces.embedder.prepare(stats)
    for name, table in whole.embedder.stored.named().items():
        assert torch.equal(table, pieces.embedder.stored.named()[name])


def test_rare_ids_and_counts_alone_leave_hashes():
    made = planned([Field("user", 50), Field("item", 400)], 12_000, rare=61)
    collection = EmbeddingCollection.from_plan(made, seed=0)
    before = copy.deepcopy(collection.embedder.stored.named())
    collection.embedder.prepare(company())  # 60 rows a user
    after = collection.embedder.stored.named()
    assert all(torch.equal(before[name], after[name]) for name in before)
    often = EmbeddingCollection.from_plan(planned([Field("user", 50), Field("item", 400)], 12_000))
    often.embedder.prepare(Counted({"user": ([1], [2]), "item": ([1], [2])}))
    assert all(torch.equal(before[n], each) for n, each in often.embedder.stored.named().items())
    often.embedder.prepare(company())
    told = copy.deepcopy(often.embedder.stored.named())
    assert any(not torch.equal(before[name], told[name]) for name in told)
    often.embedder.reset_parameters()  # fresh weights, the same signatures
    fit(often.embedder, [torch.randn(50, 128), torch.randn(400, 128)])
    assert all(torch.equal(told[n], each) for n, each in often.embedder.stored.named().items())


def test_a_bound_of_rows_draws_them_by_chance():
    rows = {"user": np.arange(4000) % 100, "item": np.arange(4000) % 90}
    part = next(iter(Counted.of_rows(rows).occurrences()))
    some = sample(part, 0.25, 5)
    assert 850 < len(some["user"].rows) < 1150
    assert np.array_equal(some["user"].rows, some["item"].rows)
    assert np.array_equal(some["item"].ids, some["item"].rows % 90)
    assert len(sample(part, 1.0, 5)["user"].rows) == 4000
    made = planned([Field("user", 100), Field("item", 90)], 4000, dim=64, most_rows=400, rare=20)
    collection = EmbeddingCollection.from_plan(made, seed=0)
    plain = cells_of(collection, 0, range(100))
    collection.embedder.prepare(Counted.of_rows(rows))  # 40 rows a user, 4 of them drawn
    assert np.array_equal(cells_of(collection, 0, range(100)), plain)


def test_small_fields_are_whole_and_components_reach_the_whole_array():
    fields = [Field("user", 6040), Field("movie", 3706), Field("gender", 2)]
    for more in ({"chunk": 1}, {"element_bits": 4}, {"bits": 4}, {}):
        made = plan(fields, 16, method="scma", budget="10x", **more)
        collection = EmbeddingCollection.from_plan(made, seed=0)
        assert made.bytes == state_bytes(collection) <= made.budget
        assert made.budget - made.bytes <= 64 or "element_bits" in more
        assert isinstance(collection.embedder, Signatures)
        assert isinstance(collection.embedder.pool, FlatPool) is (more == {"chunk": 1})
        user, movie, gender = made.program.fields
        assert gender[0].source == Raw()
        signed = [each for each in (*user, *movie) if each.source != Raw()]
        assert {each.source.kind for each in signed} == {"signatures"}
        assert (movie[0].source == Raw()) is ("bits" in more)  # half of the budget holds it
        assert made.by_kind["signatures"] == sum(each.bytes for each in made.group.stored)
        low, high = user[0].base, user[0].base + user[0].span
        assert high == made.program.rows
        reads = np.zeros(high - low, int)
        for lookup in signed:
            reads[(np.arange(lookup.radix) + lookup.offset) % lookup.span] += 1
        if "element_bits" not in more:
            assert reads.min() >= 1
        assert len(set(cells_of(collection, 2, [0, 1]).ravel())) == 2 * made.program.chunks


def test_a_vector_is_read_where_shifts_of_its_elements_say():
    made = planned([Field("user", 40)], 2200, dim=16, chunk=2, elements=2, element_bits=4)
    collection = EmbeddingCollection.from_plan(made, seed=0)
    embedder = collection.embedder
    tables = embedder.stored.named()
    elements = [unpack_bits(tables[f"signatures_0_{e}"], 4, 40).tolist() for e in range(2)]
    shifts = [lookup.offset for lookup in made.program.fields[0]]
    assert len(set(shifts)) == 8
    for user in (0, 17, 39):
        cells = [(elements[c % 2][user] + shifts[c]) % made.program.rows for c in range(8)]
        expected = embedder.pool.weight[cells].flatten()
        assert torch.equal(collection(torch.tensor([[user]]))[0, 0], expected)


def test_the_least_bytes_are_said_and_enough():
    fields = [Field("user", 6040), Field("movie", 3706)]
    for more in ({}, {"bits": 4}, {"elements": 4, "chunk": 1}):
        with pytest.raises(BudgetTooSmall) as error:
            plan(fields, 16, method="scma", budget=500, **more)
        least = error.value.minimum
        assert least > (6040 + 3706) / 8  # a bit an id, at least
        assert plan(fields, 16, method="scma", budget=least, **more).bytes <= least
        with pytest.raises(BudgetTooSmall):
            plan(fields, 16, method="scma", budget=least - 1, **more)


@given(
    st.lists(st.integers(1, 2000), min_size=1, max_size=4), st.integers(1, 20_000),
    st.sampled_from([{}, {"chunk": 1}, {"bits": 2}, {"elements": 2}, {"element_bits": 9}]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_every_plan_keeps_to_its_budget(sizes, budget, more):
    fields = [Field(f"f{number}", size) for number, size in enumerate(sizes)]
    with pytest.raises(BudgetTooSmall) as error:
        plan(fields, 8, method="scma", budget=1, **more)
    least = error.value.minimum
    if budget < least:
        with pytest.raises(BudgetTooSmall):
            plan(fields, 8, method="scma", budget=budget, **more)
    made = plan(fields, 8, method="scma", budget=max(budget, least), **more)
    assert made.bytes <= made.budget


def test_ids_of_a_map_have_signatures_by_their_places():
    ids = np.random.default_rng(1).integers(-(2**63), 2**63 - 1, 300)
    rows = {"query": ids[np.arange(6000) % 300], "item": (np.arange(6000) % 300) // 2}
    fields = [Field("query", distinct=300), Field("item", 150)]
    made = planned(fields, 16_000, map=True, elements=8)
    collection = EmbeddingCollection.from_plan(made, seed=0)
    collection.embedder.prepare(Counted.of_rows(rows))
    pairs = collection(torch.from_numpy(np.stack([ids, np.zeros_like(ids)], 1)))[:, 0]
    assert torch.equal(pairs[0::2], pairs[1::2])  # each item's two queries
    assert len(pairs.unique(dim=0)) > 100
    assert made.bytes == state_bytes(collection)
    with pytest.raises(BitfoldError, match="hashed ids"):
        planned(fields, 16_000)
    whole = EmbeddingCollection.from_plan(planned(fields, "1x", map=True, bits=8), seed=0)
    whole.embedder.prepare(Counted.of_rows(rows))
    assert not isinstance(whole.embedder, Signatures)
    assert whole.plan.bytes == state_bytes(whole)


def test_rows_of_a_log_come_once_each_bags_too(tmp_path):
    log = prepare([write(tmp_path / "clicks.csv", columns())], tmp_path / "log", DATA).path
    found = PreparedLog(log)
    for dense in (None, Vocabulary.fit(found, 1)):
        stats = LogStatistics(TrainingRows(found, dense))
        met = {name: [] for name in found.schema.field_names}
        last = -1
        for part in stats.occurrences():
            lowest = min(each.rows[0] for each in part.values())
            assert lowest > last
            last = max(each.rows[-1] for each in part.values())
            for name, each in part.items():
                met[name].append(each)
        assert last == stats.rows - 1
        for name, parts in met.items():
            ids, counts = stats.top(name, stats.distinct(name))
            every = np.concatenate([each.ids for each in parts])
            again, times = np.unique(every, return_counts=True)
            assert dict(zip(again, times, strict=True)) == dict(zip(ids, counts, strict=True))
            assert (np.diff(np.concatenate([each.rows for each in parts])) >= 0).all()


def test_what_cannot_be_is_refused_by_name():
    fields = [Field("user", 600)]
    for more, words in (
        ({"elements": 3}, "no such pieces"),
        ({"chunk": 5}, "no such pieces"),
        ({"chunk": 4, "elements": 8}, "no such pieces"),
        ({"power": 0}, "power"),
        ({"element_bits": 32}, "element_bits"),
        ({"most_rows": 0}, "most_rows"),
        ({"of": "words"}, "of"),
        ({"map": True, "bits": 5}, "bits"),
    ):
        with pytest.raises(BitfoldError, match=words):
            plan(fields, 16, method="scma", budget="10x", **more)
    assert plan(fields, 16, method="scma", budget="10x", chunk=4, elements=4).program.chunks == 4
    with pytest.raises(BitfoldError, match="not counted yet"):
        Promised().occurrences()
    for columns_said in (
        {"user": [1, 2], "item": [1]},
        {"user": ([1, 2], [0])},
        {"user": ([1, 2], [1, 0])},
        {"user": ([1, 2], [-1, 0])},
    ):
        with pytest.raises(BitfoldError):
            Counted.of_rows(columns_said)
    assert Counted.of_rows({"user": ([1, 2], [0, 3]), "item": [1, 2, 3, 4]}).rows == 4
    assert Counted({"user": ([1], [1])}).occurrences() is None


def test_an_empty_set_has_a_signature_too():
    assert (MinHashes(3, 2, 1).least == NOTHING).all()
    assert hashed(5, [1, 2], 7).shape == (2, 5)
    assert hashed(500, [1], 7).max() == 6
