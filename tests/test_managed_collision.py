"""Managed rows by hand: who gets one, who gives it up, what goes along, what nobody reads again."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitfold import BitfoldError, BudgetTooSmall, EmbeddingCollection, Field, plan
from bitfold.address.compact_map import CompactMap
from bitfold.embedder.admission import DEPTH, MOST, SLOTS, CountMin, Waiting
from bitfold.embedder.contract import Progress
from bitfold.embedder.managed import OWNERS
from bitfold.optim import RowWiseAdagrad
from bitfold.training.lifecycle import Lifecycle

FIELDS = [Field("user"), Field("query", distinct=200)]
BATCH = st.dictionaries(st.integers(0, 2**31 - 1), st.integers(1, 40), min_size=1, max_size=9)


@given(st.lists(BATCH, max_size=8), st.integers(1, 30))
def test_a_sketch_never_counts_too_low(batches, width):
    sketch, true = CountMin(np.zeros((DEPTH, width), np.uint8)), {}
    for batch in batches:
        keys = np.array(sorted(batch), np.int64)
        told = sketch.add(keys, np.array([batch[key] for key in keys.tolist()]))
        assert (told <= sketch.counts(keys)).all()  # those beside it may have raised it since
        for key, times in batch.items():
            true[key] = true.get(key, 0) + times
    if true:
        found = sketch.counts(np.array([*true], np.int64))
        assert (found >= np.minimum([*true.values()], MOST)).all()


def test_a_wide_sketch_counts_right_and_forgets_by_halves():
    sketch = CountMin(np.zeros((DEPTH, 4096), np.uint8))
    keys = np.random.default_rng(0).integers(0, 1 << 31, 50)
    sketch.add(keys, np.arange(50))
    sketch.add(keys, np.full(50, 230))
    assert sketch.counts(keys).tolist() == [min(230 + k, MOST) for k in range(50)]
    assert not sketch.crowded
    sketch.halve()
    assert sketch.counts(keys).tolist() == [min(230 + k, MOST) // 2 for k in range(50)]
    sketch.add(np.arange(5000), np.ones(5000, np.int64))
    assert sketch.crowded


def test_those_that_wait_wait_once_and_a_full_bucket_takes_no_more():
    waiting = Waiting(*np.zeros((2, 1, SLOTS), np.uint32))
    waiting.add(np.array([3, 9]), np.array([70, 80]))
    waiting.add(np.array([3, 4, 5, 6, 7]), np.array([1, 2, 3, 4, 5]))
    assert waiting.keys.tolist() == [3, 9, 4, 5]
    assert waiting.cells.tolist() == [70, 80, 2, 3]
    waiting.clear()
    assert waiting.keys.tolist() == []


def built(**more):
    """Few own rows, a sketch that is never crowded, and so many shared rows."""
    words = {"method": "managed-collision", "seed": 1, "capacity": 3, "sketch": 200.0, **more}
    return EmbeddingCollection(FIELDS, 8, **{"budget": 6000, **words})


class Trained:
    """A collection, its optimizer, and what an id reads now."""

    def __init__(self, make=torch.optim.Adagrad, **more):
        self.collection = built(every=1000, **more)
        self.embedder = self.collection.embedder
        self.optimizer = make(self.collection.parameters(), lr=0.1)
        self.life = Lifecycle(self.collection, [self.optimizer])

    def come(self, *users, query=None):
        """A step of these users; the query has no gradient, so that it counts for nobody."""
        ids = torch.tensor([[user, 0] for user in users])
        self.optimizer.zero_grad()
        (self.collection(ids)[:, 0] * torch.arange(1.0, 9)).sum().backward()
        self.optimizer.step()
        self.life.step()

    def turn(self):
        self.life._maintain(self.embedder)

    def vector(self, user):
        return self.collection(torch.tensor([[user, 0]]))[0, 0].detach().clone()

    def cells(self, user):
        tables = {name: each.tolist() for name, each in self.embedder.stored.named().items()}
        return self.embedder.program.cells_int(0, user, tables)

    def owns(self, user):
        (key,) = self.embedder.keys(0, np.array([user])).tolist()
        return key | 1 << 31 in self.embedder.noted(OWNERS, np.uint32).tolist()

    def beside(self, row):
        """What the optimizer keeps of a row."""
        state = self.optimizer.state[self.embedder.pool.weight]
        (kept,) = [each for name, each in state.items() if name != "step"]
        return kept[row].clone()


@pytest.mark.parametrize("make", [RowWiseAdagrad, torch.optim.Adagrad], ids=["ours", "torch's"])
@pytest.mark.parametrize("shared", ["hash", "digits"])
def test_an_id_that_came_twice_owns_a_row_that_begins_as_what_it_read(shared, make):
    at = Trained(make, shared=shared)
    at.come(5, 7)
    at.turn()
    assert not at.owns(5)
    at.come(5)
    before, cells = at.vector(5), at.cells(5)
    beside = at.beside(cells[0])
    at.turn()
    assert at.owns(5)
    assert not at.owns(7)
    (row, *later) = at.cells(5)
    assert row < 3 <= cells[0]
    torch.testing.assert_close(at.vector(5), before)
    assert torch.equal(at.beside(row), beside)
    if shared == "digits":
        (slice_,) = {each[1].base for each in at.embedder.program.fields[:1]}
        assert later == [slice_]
        assert cells[1] > slice_
    kept, beside = at.embedder.pool.weight[row].detach().clone(), at.beside(row)
    at.come(9, 9)
    at.turn()  # the map is another, and its numbers are where it has them
    (row, *_) = at.cells(5)
    assert torch.equal(at.embedder.pool.weight[row], kept)
    assert torch.equal(at.beside(row), beside)


WAYS = {
    "least": {"evict": "lfu"},
    "longest ago": {"evict": "lru"},
    "by time": {"evict": "none", "ttl": 2},
}


@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize("shared", ["hash", "digits"])
@pytest.mark.parametrize("how", WAYS)
def test_an_evicted_id_never_reads_its_numbers_again(how, shared, bits):
    at = Trained(capacity=1, shared=shared, bits=bits, **WAYS[how])
    old, other = 5, 11
    shared_cells = at.cells(old), at.cells(other)
    assert all(cell >= 1 for cell in shared_cells[0] + shared_cells[1])
    at.come(old, old)
    at.turn()
    assert at.cells(old)[0] == 0
    for _ in range(3):
        at.come(old)
    stale, beside = at.embedder.pool.weight[0].detach().clone(), at.beside(0)
    with torch.no_grad():
        at.embedder.pool.weight[0] += 100  # nobody else may ever read this
    for _ in range(4):
        at.come(*[other] * 9)
        at.turn()
    assert at.owns(other)
    assert not at.owns(old)
    assert at.cells(old) == shared_cells[0]  # as a newcomer
    assert at.cells(other)[0] == 0
    table = at.embedder.pool.weight
    assert table.abs().max() < 50
    assert not torch.equal(at.beside(0), beside)
    expected = table[shared_cells[0]].prod(0)
    if bits is None:
        torch.testing.assert_close(at.vector(old), expected.detach())
    for _ in range(12):  # it returns, and begins where it stands
        at.come(*[old] * 30)
        before = at.vector(old)
        at.turn()
        if at.owns(old):
            break
    assert at.owns(old)
    assert at.embedder.pool.weight.abs().max() < 50
    assert not torch.equal(at.embedder.pool.weight[0], stale)
    if bits is None:
        torch.testing.assert_close(at.vector(old), before)


def test_a_row_that_nobody_takes_begins_anew():
    at = Trained(evict="none", ttl=3)
    at.come(5, 5)
    at.turn()
    (row,) = at.cells(5)
    for _ in range(2):
        at.come(5)
    at.turn()
    at.come(1)
    at.come(2)
    at.turn()
    assert at.owns(5)  # two steps ago
    at.come(3)
    at.turn()
    assert not at.owns(5)
    table, hot = at.embedder.pool.weight, at.embedder.hot
    shared = at.embedder.source.misses
    torch.testing.assert_close(table[row], table[hot : hot + shared].mean(0))
    assert at.beside(row).sum() == 0
    assert at.embedder.rows_in_use == 0
    assert at.embedder.noted("clock", np.int64)[3:].tolist() == [1, 1]


def test_who_gives_way():
    for evict, gone in (("lfu", 6), ("lru", 5)):
        at = Trained(evict=evict)
        at.come(5, 5, 5, 5, 6, 6, 7, 7, 7)
        at.turn()
        at.come(6)
        at.turn()
        at.come(7)
        at.turn()
        assert all(map(at.owns, (5, 6, 7)))
        at.come(8, 8, 8)
        at.turn()
        if evict == "lfu":  # all came more often, or as often
            assert not at.owns(8)
            at.come(8)
            at.turn()
        assert at.owns(8)
        assert [user for user in (5, 6, 7) if not at.owns(user)] == [gone]
    at = Trained(evict="lru")
    at.come(5, 5, 6, 6, 7, 7)
    at.turn()
    at.come(5, 6, 7, 8, 8, 8)
    at.turn()
    assert not at.owns(8)  # all owners came since the last turn
    at = Trained(evict="none")
    at.come(*range(20), *range(20))
    at.turn()
    first = [user for user in range(20) if at.owns(user)]
    assert len(first) == 3
    at.come(*range(20), *range(20))
    at.turn()
    assert first == [user for user in range(20) if at.owns(user)]


def test_counts_stop_at_what_a_byte_holds():
    embedder = built(capacity=1).embedder
    user = torch.full((300,), 5)
    for step in (1, 2):
        embedder.observe(user, torch.zeros_like(user), torch.ones(300, 8))
        embedder.maintain(Progress(step))
        assert embedder.noted("counts", np.uint8).tolist() == [MOST]


def test_ids_of_no_gradient_and_of_whole_fields_count_for_nobody():
    made = EmbeddingCollection([Field("user"), Field("sex", 2)], 8, seed=0, budget=6000,
                               method="managed-collision", admit=1)  # fmt: skip
    ids = torch.tensor([[5, 1], [6, 1]])
    toward = torch.tensor([1.0, 0.0]).reshape(2, 1, 1)
    (made(ids) * toward).sum().backward()
    made.embedder.maintain(Progress(1))
    keys = made.embedder.keys(0, np.array([5, 6])).tolist()
    owners = made.embedder.noted(OWNERS, np.uint32)
    assert [key | 1 << 31 in owners.tolist() for key in keys] == [True, False]
    assert made.embedder.rows_in_use == 1
    assert made.plan.program.fields[1][0].plain


def by_hand(steps, capacity, admit, half, embedder):
    """Which keys own rows after each turn, and how often they came: least frequent give way."""
    owners, counts = {}, {}
    for number, batch in enumerate(steps, 1):
        waiting = []
        for key, times in sorted(batch.items()):
            if key in owners:
                owners[key] = min(MOST, owners[key] + times)
                continue
            counts[key] = min(MOST, counts.get(key, 0) + times)
            if counts[key] >= admit and len(waiting) < SLOTS:
                waiting.append(key)
        new = sorted(waiting, key=lambda key: (-counts[key], key))
        for key in new[: capacity - len(owners)]:
            owners[key] = counts[key]
        weak = sorted((n, embedder.places(np.array([key]))[0], key) for key, n in owners.items()
                      if key not in new)  # fmt: skip
        for key, (n, _, victim) in zip(
            [key for key in new if key not in owners], weak, strict=False
        ):
            if counts[key] > n:
                del owners[victim]
                owners[key] = counts[key]
        if number % half == 0:
            owners = {key: n // 2 for key, n in owners.items()}
            counts = {key: n // 2 for key, n in counts.items()}
        yield owners


@pytest.mark.parametrize("seed", range(5))
def test_owners_are_those_of_the_rules_by_hand(seed):
    embedder, rng = built(capacity=6, half=7, sketch=255.0).embedder, np.random.default_rng(seed)
    users = rng.integers(-(2**63), 2**63 - 1, 25)
    keys = embedder.keys(0, users)
    steps, told = [], []
    for number in range(60):
        if number % 20 == 0:  # the head moves
            order = rng.permutation(25)
        drawn = order[(25 * rng.random(12) ** 3).astype(int)]
        told.append(users[drawn])
        found, times = np.unique(keys[drawn], return_counts=True)
        steps.append(dict(zip(found.tolist(), times.tolist(), strict=True)))
    changed = 0
    for number, owners in enumerate(by_hand(steps, 6, 2, 7, embedder)):
        before = set(embedder.noted(OWNERS, np.uint32).tolist())
        ids = torch.from_numpy(told[number])
        embedder.observe(ids, torch.zeros_like(ids), torch.ones(len(ids), 8))
        embedder.maintain(Progress(number + 1))
        words = embedder.noted(OWNERS, np.uint32)
        counts = embedder.noted("counts", np.uint8)[words > 0].tolist()
        held = (words[words > 0] & ~np.uint32(1 << 31)).tolist()
        assert dict(zip(held, counts, strict=True)) == owners
        changed += before != set(words.tolist())
    assert changed > 10
    assert len(owners) == 6


def test_its_bytes_to_the_last():
    words = {"method": "managed-collision", "budget": 6000}
    made = plan(FIELDS, 8, hot=0.6, **words)
    hot, rows = made.program.fields[0][0].source.ids, made.program.rows
    slots = 4 * -(-hot // 32)
    sketch = 4 * hot + hot + 4 * (2 * hot // 4 + 1) + 4 * slots + 5 * 8
    assert made.by_kind == {
        "weights": rows * 32, "map": CompactMap(hot, 0).bytes, "sketch": sketch, "fingerprint": 8
    }  # fmt: skip
    assert 6000 - 32 < made.bytes <= 6000
    timed = plan(FIELDS, 8, capacity=hot, ttl=9, shared="digits", **words)
    assert timed.by_kind["sketch"] == sketch + 4 * hot + 4 * slots
    bare = plan(FIELDS, 8, capacity=hot, evict="none", admit=1, **words)
    assert bare.by_kind["sketch"] == 4 * hot + 4 * slots + 5 * 8
    for wrong in (
        {"every": 0}, {"admit": 0}, {"admit": 256}, {"hot": 1.0}, {"sketch": 0.0}, {"ttl": -1},
        {"evict": "fifo"}, {"shared": "rows"}, {"capacity": 0}, {"half": 0},
    ):  # fmt: skip
        with pytest.raises(BitfoldError):
            plan(FIELDS, 8, **words, **wrong)


@pytest.mark.parametrize(
    "options", [{}, {"shared": "digits"}, {"bits": 4, "evict": "lru"}], ids=str
)
def test_the_least_bytes_are_said(options):
    with pytest.raises(BudgetTooSmall) as error:
        plan(FIELDS, 8, method="managed-collision", budget=20, **options)
    least = error.value.minimum
    made = EmbeddingCollection(FIELDS, 8, method="managed-collision", budget=least, **options)
    assert made.plan.bytes <= least
    assert made(torch.tensor([[1, 2]])).isfinite().all()
    with pytest.raises(BudgetTooSmall):
        plan(FIELDS, 8, method="managed-collision", budget=least - 1, **options)


def test_without_a_budget_it_is_a_full_table_that_grows():
    with pytest.raises(BitfoldError, match="capacity"):
        plan(FIELDS, 8, method="managed-collision")
    at = Trained(capacity=64, admit=1, evict="none", budget=None)
    made = at.collection.plan
    assert made.budget is None
    assert made.program.fields[0][0].source.ids == 64
    empty = at.embedder.used_bytes()
    sizes, each = [], (made.bytes - 5 * 8 - 8 - 64 // 8 * 32) / 64
    for users in ([1, 2, 3], [3, 4], range(100, 300)):
        for _ in range(12):
            at.come(*users)
            at.turn()
        sizes.append(at.embedder.used_bytes())
    assert sizes[:2] == [pytest.approx(empty + n * each, abs=2) for n in (3, 4)]
    assert sizes[2] == made.bytes == sum(
        tensor.nbytes for tensor in at.collection.serving().state_dict().values()
    )  # fmt: skip
    assert all(map(at.owns, (1, 2, 3, 4)))


def test_an_interrupted_stream_goes_on_to_the_same_bits():
    def batch(step):
        torch.manual_seed(step)
        return ((torch.rand(16) ** 3 * 40).long() + step).tolist()

    words = {"capacity": 8, "shared": "digits", "ttl": 6, "half": 3}
    whole, half = Trained(**words), Trained(**words)
    for step in range(20):
        whole.come(*batch(step))
        if step % 3 == 0:
            whole.turn()
    for step in range(10):
        half.come(*batch(step))
        if step % 3 == 0:
            half.turn()
    again = Trained(**words)
    again.collection.load_state_dict(half.collection.state_dict())
    again.optimizer.load_state_dict(half.optimizer.state_dict())
    again.life.at(half.life.steps, 0)
    for step in range(10, 20):
        again.come(*batch(step))
        if step % 3 == 0:
            again.turn()
    expected, found = whole.collection.state_dict(), again.collection.state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert whole.embedder.noted("clock", np.int64)[4] > 0
