"""FIITED by hand: what utilities come to, who holds a chunk, what is left of who held it before."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitfold import BitfoldError, BudgetTooSmall, EmbeddingCollection, Field, plan
from bitfold.embedder.chunks import Chunks
from bitfold.embedder.contract import Progress
from bitfold.embedder.utilities import Utilities, trade
from bitfold.kernels.choice import plain_torch
from bitfold.optim import LazyAdam, RowWiseAdagrad
from bitfold.training.lifecycle import Lifecycle

FIELDS = [Field("user", 300), Field("query", distinct=200), Field("sex", 2)]
PAPER = {"rest": "zeros", "utility": "product", "small": 0.0, "chunks": 4}


def planned(fields=FIELDS, dim=8, **more):
    return plan(fields, dim, **{"method": "fiited", "budget": 4000, "chunks": 2, **more})


def built(fields=FIELDS, dim=8, **more):
    words = {"every": 1, "pointers": 0.9, "budget": 1700 if more.get("bits") else 5000, **more}
    made = planned(fields, dim, **words)
    assert 0 < made.program.fields[0][0].source.length == 300  # a virtual row each
    return EmbeddingCollection.from_plan(made, seed=1)


def place(embedder, field, value):
    """The virtual row of an id, of those of all fields."""
    each = next(each for each in embedder.virtual if each.field == field)
    rows = each.rows(torch.tensor([value]), embedder.stored.named())
    return each.first + int(rows)


def read(embedder, field, value):
    """The rows of the pool that an id's chunks are."""
    tables = {name: each.tolist() for name, each in embedder.stored.named().items()}
    return embedder.program.cells_int(field, value, tables)


def worth(embedder, found):
    """Let chunks (field, id, chunk) be worth this, and no others anything."""
    embedder.utilities.worth.zero_()
    for (field, value, chunk), each in found.items():
        embedder.utilities.worth[place(embedder, field, value), chunk] = each


def state_bytes(module):
    return sum(each.nbytes for each in module.state_dict().values())


# ---- who holds what


WORTH = st.lists(st.integers(0, 50), min_size=1, max_size=24)


@given(WORTH, st.integers(1, 12), st.randoms(use_true_random=False))
def test_the_chunks_of_the_highest_utilities_hold_slots(values, slots, random):
    worth = np.array(values, np.float32)
    held = np.full(len(worth), -1)
    owners = random.sample(range(len(worth)), random.randint(0, min(slots, len(worth))))
    held[owners] = random.sample(range(slots), len(owners))
    found = trade(worth, held, slots)
    after = held.copy()
    after[found.losers] = -1
    assert (after[found.newcomers] == -1).all()
    after[found.newcomers] = found.slots
    kept = after[after >= 0]
    assert len(kept) == len(np.unique(kept)) <= slots
    assert not set(found.losers) & set(found.newcomers)
    best = np.sort(worth)[::-1][:slots]
    best = best[best > 0]
    assert np.sort(worth[after >= 0])[::-1][: len(best)].tolist() == best.tolist()
    assert worth[found.newcomers].min(initial=1) > 0
    # Of equal ones those that have it already: nothing is traded for nothing.
    assert worth[found.losers].max(initial=-1) < worth[found.newcomers].min(initial=99)
    patient = trade(worth, held, slots, evict=False)
    assert (worth[patient.losers] == 0).all()
    assert len(trade(worth, after, slots).newcomers) == 0


def test_a_slot_that_two_chunks_name_is_not_free_until_both_are_gone():
    """No trade makes such pointers; a table that was written over may have them."""
    worth, held = np.array([3, 2, 5, 6], np.float32), np.array([0, 0, -1, -1])
    found = trade(worth, held, 1)
    assert found.losers.tolist() == [1]
    assert len(found.newcomers) == 0
    found = trade(worth, np.array([-1, 0, -1, -1]), 1)
    assert found == ([1], [3], [0])


# ---- utilities


@given(
    st.lists(st.lists(st.integers(0, 8), min_size=3, max_size=3), min_size=1, max_size=9),
    st.integers(1, 4),
    st.sampled_from([1.0, 0.5, 0.9]),
)
def test_utilities_are_those_of_the_recursion(gains, every, decay):
    """u(i) = decay u(i - 1) + gain(i), looked at when it is settled."""
    made, expected = Utilities(3, 1, decay=decay, every=every), torch.zeros(3, 1)
    for number, gain in enumerate(gains, start=1):
        gain = torch.tensor(gain, dtype=torch.float32).unsqueeze(1)
        expected = decay * expected + gain
        made.add(torch.arange(3), gain)
        assert made.step() == (number % every == 0)
        if number % every == 0:
            torch.testing.assert_close(made.worth, expected)


def test_gradients_that_are_no_numbers_are_worth_nothing():
    made = Utilities(2, 1, decay=0.5, every=1)
    made.add(torch.tensor([0, 1]), torch.tensor([[float("nan")], [float("inf")]]))
    made.step()
    assert made.worth.tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize(
    ("utility", "first", "second"),
    [("lengths", [5.0 + 5.0, 2.0], [0.0, 7.0]), ("product", [2 * 50**0.5, 2 * 2.0], [0.0, 7.0])],
)
def test_what_a_step_adds_by_hand(utility, first, second):
    """User 3 is read twice, pulled at right angles; query -7 once. A chunk has four numbers."""
    collection = built(utility=utility, decay=1.0, every=9)
    toward = torch.zeros(2, 3, 8)
    toward[0, 0, 0], toward[0, 0, 4] = 5.0, 2.0
    toward[1, 0, 1] = 5.0
    toward[0, 1, 7] = 7.0
    (collection(torch.tensor([[3, -7, 0], [3, 11, 1]])) * toward).sum().backward()
    embedder = collection.embedder
    found = embedder.utilities.worth
    assert found[place(embedder, 0, 3)].tolist() == pytest.approx(first)
    assert found[place(embedder, 1, -7)].tolist() == pytest.approx(second)
    assert float(found.sum()) == pytest.approx(sum(first) + sum(second))


def test_every_so_many_steps_chunks_are_evicted_and_not_at_an_epochs_end():
    embedder = built(every=3, decay=0.5).embedder
    worth(embedder, {(0, 299, 0): 8.0})
    life = Lifecycle(embedder)
    for step in range(1, 3):
        life.step()
        assert read(embedder, 0, 299)[0] < embedder.shared, step
    life.epoch_ended()
    assert int(embedder.utilities.steps) == 2
    life.step()
    assert read(embedder, 0, 299)[0] >= embedder.shared
    assert float(embedder.utilities.worth.max()) == 1.0


# ---- what is left of who held a slot


@pytest.mark.parametrize("make", [RowWiseAdagrad, torch.optim.Adam, LazyAdam])
@pytest.mark.parametrize("rest", ["shared", "zeros"])
@pytest.mark.parametrize("bits", [None, 4])
def test_an_evicted_chunk_leaves_nothing_behind(make, rest, bits):
    """Its slot begins anew, numbers and optimizer state; when it returns it reads a newcomer's."""
    collection = built(rest=rest, bits=bits, decay=1.0)
    embedder, weight = collection.embedder, collection.embedder.pool.weight
    optimizer = make(collection.parameters(), lr=0.1)
    life = Lifecycle(embedder, [optimizer])
    old, new = 0, 299
    ids = torch.tensor([[old, -7, 0], [new, 11, 1]])
    for _ in range(3):
        optimizer.zero_grad()
        (collection(ids) - 1).square().sum().backward()
        optimizer.step()
    names = [each for name, each in optimizer.state[weight].items() if name != "step"]
    kept = [each for each in names if each.shape[:1] == weight.shape[:1]]
    (slot, _), (rest_row, _) = read(embedder, 0, old), read(embedder, 0, new)
    assert slot >= embedder.shared > rest_row
    assert kept
    assert all(bool(each[slot].any()) for each in kept)
    trained, begun = weight[slot].detach().clone(), weight[rest_row].detach().clone()

    # All slots are held by chunks that are worth more than that of `old`.
    holders = embedder.pointers() >= embedder.shared
    embedder.utilities.worth.zero_()
    embedder.utilities.worth[holders] = 5.0
    embedder.utilities.worth[place(embedder, 0, old), 0] = 1.0
    embedder.utilities.worth[place(embedder, 0, new), 0] = 2.0
    life.step()
    assert read(embedder, 0, new)[0] == slot
    now = weight[slot].detach().clone()
    assert not torch.equal(now, trained)
    assert torch.equal(now, begun) == (rest == "shared")
    assert 0 < float(now.abs().max()) < (0.1 if rest == "zeros" else 10)
    assert not any(bool(each[slot].any()) for each in kept)
    gone = read(embedder, 0, old)[0]
    assert gone < embedder.shared
    if rest == "zeros":
        assert not collection(ids)[0, 0, :4].any()

    # It returns, to the slot that `new` has trained since.
    with torch.no_grad():
        weight[slot] += 3.0
        for each in kept:
            each[slot] += 3.0
    embedder.utilities.worth[place(embedder, 0, old), 0] = 4.0
    life.step()
    assert read(embedder, 0, old)[0] == slot
    assert not any(bool(each[slot].any()) for each in kept)
    if rest == "shared":
        assert torch.equal(weight[slot], weight[gone])
    else:
        assert float(weight[slot].detach().abs().max()) < 0.1
        assert not torch.equal(weight[slot], now)


def test_only_the_chunk_that_is_pulled_at_is_held():
    """All users pull at the second half of their vector; the first half stays the shared one."""
    fields = [Field("user", 300)]
    collection = built(fields, budget=3000, decay=1.0, shared=0.1)
    optimizer = torch.optim.SGD(collection.parameters(), lr=0.01)
    life = Lifecycle(collection, [optimizer])
    toward = torch.randn(300, 1, 8, generator=torch.Generator().manual_seed(0))
    toward[:, :, :4] = 0
    for _ in range(3):
        users = torch.randperm(300, generator=torch.Generator().manual_seed(1)).unsqueeze(1)
        optimizer.zero_grad()
        (collection(users) * toward[users[:, 0]]).sum().backward()
        optimizer.step()
        life.step()
    embedder = collection.embedder
    held = embedder.pointers() >= embedder.shared
    assert held.sum(0).tolist() == [0, embedder.slots]
    longest = toward.norm(dim=2).flatten().argsort(descending=True)[: embedder.slots]
    assert set(longest.tolist()) == set(held[:, 1].nonzero().flatten().tolist())


def test_warm_up_lets_nobody_lose_what_is_worth_something():
    embedder = built(warmup=2, decay=1.0).embedder
    embedder.utilities.worth[:] = 1.0
    embedder.utilities.worth[place(embedder, 0, 299), 0] = 5.0
    before = embedder.pointers()
    for step in (1, 2):
        assert list(embedder.maintain(Progress(step))) == []
    assert torch.equal(embedder.pointers(), before)
    assert len(list(embedder.maintain(Progress(3)))) == 1
    assert read(embedder, 0, 299)[0] >= embedder.shared


def test_a_served_model_is_trained_on_with_what_it_holds():
    collection = built(decay=1.0)
    embedder = collection.embedder
    worth(embedder, {(0, 299, 0): 5.0, (1, -7, 1): 4.0})
    embedder.maintain(Progress(1))
    served = collection.serving()
    assert not any("utilities" in name for name in served.state_dict())
    assert state_bytes(served) == collection.plan.bytes
    assert collection.bytes("training")["utilities"] == embedder.utilities.worth.nbytes
    again = served.resume()
    assert torch.equal(again.embedder.pointers(), embedder.pointers())
    held = again.embedder.pointers() >= again.embedder.shared
    assert torch.equal(again.embedder.utilities.worth > 0, held)
    assert again.state_dict().keys() == collection.state_dict().keys()


def test_utilities_stay_as_they_are_under_casts():
    embedder = built().embedder
    embedder.utilities.worth[:] = 1e30
    assert embedder.half().utilities.worth.dtype == torch.float32
    assert float(embedder.utilities.worth.min()) == float(torch.tensor(1e30))


# ---- zeros


@pytest.mark.parametrize("bits", [None, 4])
def test_what_nobody_holds_is_zeros_and_stays_so(bits):
    collection = built(rest="zeros", bits=bits, every=5)
    embedder = collection.embedder
    optimizer = torch.optim.Adam(collection.parameters(), lr=0.1, weight_decay=0.1)
    life = Lifecycle(collection, [optimizer])
    ids = torch.stack([torch.arange(300), torch.arange(300) - 150, torch.arange(300) % 2], 1)
    for _ in range(7):
        optimizer.zero_grad()
        (collection(ids) - 1).square().sum().backward()
        assert not embedder.pool.weight.grad[0].any()
        optimizer.step()
        life.step()
    assert not embedder.pool.weight[0].any()
    vectors = collection(ids).detach()
    held = embedder.pointers() >= embedder.shared
    users = vectors[:, 0].reshape(300, 2, 4)
    assert torch.equal(users.any(2), held[:300])
    assert 0 < int(held[:300].sum()) < 600
    served = collection.serving()
    assert served.embedder.by_kernels == (bits is None)
    assert torch.equal(served(ids), vectors)
    with plain_torch():
        assert torch.equal(served(ids), vectors)
    assert not served.resume().embedder.by_kernels
    with torch.no_grad():
        embedder.pool.weight[0] = 3.0  # as an average of models might
    assert torch.equal(collection.serving()(ids), vectors)


def test_what_nobody_holds_is_shared_within_a_field_and_a_chunk():
    embedder = built(shared=0.5, budget=6000).embedder
    rests = embedder.rests(torch.arange(1000)).view(500, 2)
    spans = [rests[each.first :][: each.length] for each in embedder.virtual]
    ends = [(int(span[:, c].min()), int(span[:, c].max())) for span in spans for c in range(2)]
    flat = [end for pair in sorted(ends) for end in pair]
    assert flat == sorted(flat)
    assert len({low for low, _ in ends}) == len(ends)
    assert flat[-1] < embedder.shared
    assert embedder.shared == pytest.approx(0.5 * embedder.program.fields[0][0].radix, rel=0.1)
    one = built(shared=0.0).embedder
    assert one.shared == 2 * len(one.virtual)


# ---- plans


def test_its_bytes_to_the_last():
    made = planned(budget=5000, dim=8)
    user, query, sex = made.program.fields
    assert [type(each[0].source).__name__ for each in (user, query, sex)] == [
        "Stored", "Stored", "Raw",
    ]  # fmt: skip
    rows = user[0].radix
    bits = user[0].source.bits
    assert bits == (rows - 1).bit_length()
    tables = [each.source.length for each in (*user, *query)]
    assert made.by_kind == {
        "weights": (rows + 2 * 2) * 16,
        "pointers": sum(-(-length * bits // 8) for length in tables),
        "fingerprint": 8,
    }
    assert 5000 - 16 < made.bytes <= 5000
    collection = EmbeddingCollection.from_plan(made, seed=0)
    assert state_bytes(collection.serving()) == made.bytes


@given(
    st.integers(300, 12000), st.sampled_from([1, 2, 4, None]), st.sampled_from(["q4", "float32"])
)
def test_no_plan_is_above_its_budget_and_the_least_is_said(budget, chunks, numbers):
    bits = 4 if numbers == "q4" else None
    words = {"method": "fiited", "chunks": chunks, "bits": bits}
    with pytest.raises(BudgetTooSmall) as refused:
        plan(FIELDS, 8, budget=1, **words)
    least = refused.value.minimum
    assert plan(FIELDS, 8, budget=least, **words).bytes == least
    with pytest.raises(BudgetTooSmall):
        plan(FIELDS, 8, budget=least - 1, **words)
    budget = max(budget, least)
    assert plan(FIELDS, 8, budget=budget, **words).bytes <= budget


def test_ids_share_virtual_rows_where_pointers_would_be_too_many():
    fields = [Field("user", 5000)]
    apart = planned(fields, budget="4x", chunks=1, dim=16)
    assert apart.program.fields[0][0].source.length == 5000
    tight = planned(fields, budget="50x", chunks=1, dim=16)
    length = tight.program.fields[0][0].source.length
    assert length < 2500
    assert tight.by_kind["pointers"] <= 0.25 * tight.budget + 64
    every = planned(fields, budget="50x", chunks=1, dim=16, pointers=0.9)
    assert length < every.program.fields[0][0].source.length <= 5000
    collection = EmbeddingCollection.from_plan(tight, seed=0)
    rows = collection.embedder.virtual[0].rows(torch.arange(5000), {})
    vectors = collection(torch.arange(5000).unsqueeze(1))[:, 0]
    assert len(rows.unique()) > 0.8 * length
    first = {int(row): number for number, row in reversed(list(enumerate(rows.tolist())))}
    same = torch.tensor([first[int(row)] for row in rows])
    assert torch.equal(vectors, vectors[same])


def test_chunks_follow_from_what_pointers_take():
    fields = [Field("user", 5000)]
    found = [planned(fields, 16, budget=f"{ratio}x", chunks=None) for ratio in (2, 5, 20)]
    assert [each.program.chunks for each in found] == [4, 2, 1]


def test_the_first_ids_hold_chunks_before_training():
    embedder = built().embedder
    held = embedder.pointers() >= embedder.shared
    assert int(held.sum()) == embedder.slots
    for each in embedder.virtual:
        column = held[each.first :][: each.length, 0].tolist()
        assert column == sorted(column, reverse=True)


def test_a_map_gives_places_that_have_pointers_of_their_own():
    made = planned([Field("query", distinct=200)], budget=3000, map=True)
    source = made.program.fields[0][0].source
    assert type(source.of).__name__ == "Mapped"
    assert source.length == 201
    assert made.bytes <= 3000


@pytest.mark.parametrize(
    "words",
    [
        {"chunks": 3},
        {"chunks": 0},
        {"every": 0},
        {"warmup": -1},
        {"decay": 0.0},
        {"decay": 1.5},
        {"decay": 0.1, "every": 100},
        {"shared": 1.0},
        {"pointers": -0.1},
        {"small": 1.0},
        {"rest": "nothing"},
        {"utility": "luck"},
        {"low_precision": True, "bits": 4},
    ],
)
def test_options_that_make_no_sense_are_refused(words):
    with pytest.raises(BitfoldError):
        planned(**words)
    assert planned().method == "fiited"


def test_a_whole_table_where_that_fits():
    made = plan(FIELDS[::2], 8, method="fiited", budget="1x")
    assert made.by_kind.keys() == {"weights"}
    assert not isinstance(EmbeddingCollection.from_plan(made, seed=0).embedder, Chunks)


def test_the_papers_form():
    made = planned(**PAPER, dim=8, pointers=1.0, budget=4000)
    assert all(len(lookups) == 4 for lookups in made.program.fields)
    assert {each.base for lookups in made.program.fields for each in lookups} == {0}
    assert [lookups[0].source.length for lookups in made.program.fields] == [300, 200, 2]
