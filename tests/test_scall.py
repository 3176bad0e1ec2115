"""SCALL by hand: sizes under a total, ids whose widths shrink and grow, a life that goes on."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitfold import BitfoldError, BudgetTooSmall, EmbeddingCollection, Field, plan
from bitfold.address.compact_map import CompactMap
from bitfold.data.prepare import prepare
from bitfold.embedder.contract import Progress
from bitfold.embedder.counted import BUCKET, Counted
from bitfold.embedder.resizing import Resizing, kinds_of
from bitfold.embedder.sizes import dealt, even_shares, group_means, ranked
from bitfold.optim import RowWiseAdagrad
from bitfold.training import train
from bitfold.training.lifecycle import Lifecycle
from click_log import DATA, TINY, columns, write

FIELDS = [Field("user", 300), Field("query", distinct=200)]
AT = Progress(10)


def built(**more):
    words = {"method": "scall", "budget": 6000, "seed": 1, "every": 5, **more}
    return EmbeddingCollection(FIELDS, 8, **words)


# Sizes


def test_sizes_by_hand():
    # no id has more than 4
    assert dealt(np.array([8.0, 2, 1]), 4, 13).tolist() == [4, 4, 4]
    # 8 : 2 : 2 : 1 of 9: 4, and 5 to 2 : 2 : 1, a piece a unit
    assert dealt(np.array([8.0, 2, 2, 1]), 4, 9).tolist() == [4, 2, 2, 1]
    # of 7: 3 to 2 : 2 : 1 are 1.2, 1.2 and 0.6; the piece that is over goes to 0.6
    assert dealt(np.array([8.0, 2, 2, 1]), 4, 7).tolist() == [4, 1, 1, 1]
    assert dealt(np.array([1.0, 1, 1]), 4, 2).tolist() == [1, 1, 0]
    assert dealt(np.array([1.0, 0]), 4, 0).tolist() == [0, 0]
    assert ranked(even_shares(2), 3.0, 0.0).tolist() == [3.0, 3.0]
    assert group_means(np.array([3.0, 1.0]), 3).tolist() == [3.0, 1.0, 0.0]


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=40), st.integers(1, 5), st.integers(0, 99))
def test_sizes_hold_the_total_and_never_rise_with_the_rank(wanted, most, total):
    wanted = np.sort(np.array(wanted))[::-1]
    sizes = dealt(wanted, most, total)
    assert sizes.sum() == min(total, most * int((wanted > 0).sum()))
    assert 0 <= sizes.min() <= sizes.max() <= most
    assert (np.diff(sizes) <= 0).all()


@given(
    st.lists(st.tuples(st.floats(0.25, 4), st.floats(0.1, 64)), min_size=1, max_size=4),
    st.integers(1, 60),
    st.integers(0, 200),
)
def test_what_a_policy_can_say_is_dealt_by_rank(parameters, count, total):
    wanted = [ranked(even_shares(count), *each) for each in parameters]
    assert np.concatenate(wanted).mean() == pytest.approx(
        np.mean([level for level, _ in parameters]), rel=0.5 if count > 20 else 100
    )
    for part in np.split(dealt(np.concatenate(wanted), 4, total), len(parameters)):
        assert (np.diff(part) <= 0).all()


def test_large_fields_have_distributions_of_their_own():
    assert kinds_of([3, None, 9, 9], 4) == [3, 0, 1, 2]
    assert kinds_of([3, 5], 8) == [1, 0]


# Counts


def counted(slots, exact=False):
    return Counted(
        np.zeros(slots, np.int64), np.zeros(slots, np.float32), np.zeros(slots, np.uint8), exact
    )


def test_a_newcomer_takes_the_least_slot_its_count_and_no_size():
    table = counted(BUCKET)
    table.add(np.array([1, 2, 3, -4]), np.array([9, 8, 2, 7]))
    table.sizes[:] = 4
    table.add(np.array([5]), np.array([1]))
    found = {
        int(name): (float(count), int(size))
        for name, count, size in zip(table.ids, table.counts, table.sizes, strict=True)
    }
    assert found == {1: (9.0, 4), 2: (8.0, 4), -4: (7.0, 4), 5: (3.0, 0)}


def test_ids_that_are_slots_are_counted_exactly():
    table = counted(3, exact=True)
    table.add(np.array([-1, 0, 2, 3]), np.array([5, 1, 2, 5]))  # padding may lie outside
    table.add(np.array([2]), np.array([4]))
    assert table.counts.tolist() == [1.0, 0.0, 6.0]
    assert table.known.tolist() == [0, 2]


@given(st.lists(st.dictionaries(st.integers(-40, 40), st.integers(1, 9), max_size=9), max_size=9))
def test_no_count_is_too_low(batches):
    table, truth = counted(2 * BUCKET), {}
    for batch in batches:
        for name, times in batch.items():
            truth[name] = truth.get(name, 0) + times
        names = np.array(sorted(batch), np.int64)
        table.add(names, np.array([batch[name] for name in names.tolist()], np.int64))
    seen = table.known
    assert len(set(table.ids[seen].tolist())) == len(seen)
    if len(truth) <= BUCKET:
        assert (
            dict(zip(table.ids[seen].tolist(), table.counts[seen].tolist(), strict=True)) == truth
        )


# Widths that change


def cells_of(embedder, pair):
    tables = {
        name: each.tolist() for name, each in embedder.stored.named().items() if name == "owned"
    }
    return embedder.program.cells_int(*pair, tables)


def owned(embedder, pair):
    """How many pieces of an id's vector are its own: the first ones."""
    own = [cell < embedder.hot for cell in cells_of(embedder, pair)]
    assert own == sorted(own, reverse=True)
    return sum(own)


def counts(embedder, known):
    """Let the sketch know these (field, id) pairs with these counts, and sizes as they are.

    So many steps were seen that sizes may change.
    """
    with embedder.working() as held:
        held.policy.whole[3] = embedder.every
        for number, table in enumerate(held.fields):
            sizes = dict(zip(table.ids.tolist(), table.sizes.tolist(), strict=True))
            for each in (table.ids, table.counts, table.sizes):
                each[:] = 0
            names = np.array([name for field, name in known if field == number], np.int64)
            table.add(names, np.array([known[number, name] for name in names.tolist()]))
            for slot in table.known:
                table.sizes[slot] = sizes.get(int(table.ids[slot]), 0)


@pytest.mark.parametrize("make", [RowWiseAdagrad, torch.optim.Adagrad], ids=["ours", "torch's"])
def test_an_id_that_shrinks_and_grows_reads_no_stale_numbers(make):
    collection = built(policy="frequency", power=4.0, slots=8.0, budget=1200, own=0.4)
    embedder = collection.embedder
    optimizer = make(collection.parameters(), lr=0.1)
    life = Lifecycle(collection, [optimizer])
    life.steps = 10
    (collection(torch.tensor([[3, -7], [4, 11]])) * torch.arange(1.0, 9)).sum().backward()
    optimizer.step()
    weight = embedder.pool.weight
    (kept,) = [each for name, each in optimizer.state[weight].items() if name != "step"]
    rest = {(0, name): 40.0 for name in range(100, 100 + embedder.hot // 2)}
    others = {(0, name): 10.0 for name in range(200, 200 + embedder.hot // 2)}

    def read(pair):
        cells = cells_of(embedder, pair)
        return weight[cells].detach().clone(), kept[cells].clone()

    pair = (0, 3)
    shared, beside = read(pair)
    assert owned(embedder, pair) == 0
    # It grows: its pieces begin as what it has read, with what the optimizer keeps.
    counts(embedder, {pair: 100.0, **others})
    life._maintain(embedder)
    assert owned(embedder, pair) == embedder.pieces
    assert torch.equal(read(pair)[0], shared)
    assert torch.equal(read(pair)[1], beside)
    # It is trained by itself; then half of it goes to others.
    with torch.no_grad():
        cells = cells_of(embedder, pair)
        weight[cells] += 5
        kept[cells] += 7
    own, with_it = read(pair)
    counts(embedder, {pair: 38.0, **rest})
    life._maintain(embedder)
    left = owned(embedder, pair)
    assert 0 < left < embedder.pieces
    now, then = read(pair)
    assert torch.equal(now[:left], own[:left])
    assert torch.equal(then[:left], with_it[:left])
    assert torch.equal(now[left:], shared[left:])  # as one reads who never had them
    assert torch.equal(then[left:], beside[left:])
    # Who has got its rows begins as a newcomer: no number of it is left in the pool.
    for other in rest:
        assert read(other)[0].max() < 2
    # It leaves altogether, and returns: it reads what a newcomer reads.
    counts(embedder, rest)
    life._maintain(embedder)
    assert owned(embedder, pair) == 0
    assert torch.equal(read(pair)[0], shared)
    assert float(weight.detach().max()) < 2
    counts(embedder, {pair: 100.0, **others})
    life._maintain(embedder)
    assert owned(embedder, pair) == embedder.pieces
    assert torch.equal(read(pair)[0], shared)
    assert torch.equal(read(pair)[1], beside)


def test_rows_of_nobody_have_no_numbers_of_who_left():
    """An id that the map takes for another may read them."""
    collection = built(policy="static")
    embedder = collection.embedder
    counts(embedder, {(0, name): 5.0 for name in range(50)})
    embedder.maintain(AT)
    with torch.no_grad():
        embedder.pool.weight[: embedder.hot] += 5
    with embedder.working() as held:  # all others are forgotten
        held.fields[0].counts[held.fields[0].ids != 1] = 0
        held.policy.whole[3] = embedder.every
    (move,) = embedder.maintain(AT)
    assert owned(embedder, (0, 1)) == embedder.pieces
    assert int((embedder.pool.weight[:, 0] > 2).sum()) == embedder.pieces
    assert sorted(move.target.tolist()) == list(range(embedder.hot))
    assert int((move.source < 0).sum()) == embedder.hot - embedder.pieces


def test_nothing_moves_while_sizes_stay_and_between_changes():
    embedder = built(policy="static").embedder
    assert list(embedder.maintain(AT)) == []
    known = {(0, 1): 3.0, (1, 5): 2.0}
    counts(embedder, known)
    assert len(embedder.maintain(AT)) == 1
    with embedder.working() as held:
        assert held.fields[0].counts.max() == pytest.approx(3.0 * 0.98)
    assert list(embedder.maintain(AT)) == []  # at the end of an epoch, say
    with embedder.working() as held:
        assert held.fields[0].counts.max() == pytest.approx(3.0 * 0.98)
    counts(embedder, known)
    assert list(embedder.maintain(AT)) == []


def test_ids_that_stay_away_are_forgotten_and_lose_their_pieces():
    embedder = built(policy="static", decay=0.5).embedder
    counts(embedder, {(0, 1): 1.0, (0, 2): 64.0})
    embedder.maintain(AT)
    assert owned(embedder, (0, 1)) == embedder.pieces
    for _ in range(5):
        with embedder.working() as held:
            held.policy.whole[3] = embedder.every
        embedder.maintain(AT)
    assert owned(embedder, (0, 1)) == 0
    assert owned(embedder, (0, 2)) == embedder.pieces


def test_windows_shorter_than_a_period_add_up():
    """Each with a life of its own, as the days of a stream may have."""
    collection = built(every=4)
    for day in range(4):
        optimizer = torch.optim.Adagrad(collection.parameters(), lr=0.05)
        life = Lifecycle(collection, [optimizer])
        trained(collection, 3, life, optimizer, first=3 * day)
        life.epoch_ended()
    with collection.embedder.working() as held:
        assert held.policy.changes == 2  # after 6 and 12 steps
        assert held.policy.steps == 0


def test_ids_are_counted_where_they_have_gradients():
    collection = built()
    ids = torch.tensor([[3, -7], [3, 11], [5, -7]])
    toward = torch.ones(3, 2, 8)
    toward[2, 0] = 0  # as that of padding
    (collection(ids) * toward).sum().backward()
    with collection.embedder.working() as held:
        found = [
            dict(zip(each.ids[each.known].tolist(), each.counts[each.known].tolist(), strict=True))
            for each in held.fields
        ]
    assert found == [{3: 2.0}, {-7: 2.0, 11: 1.0}]


@pytest.mark.parametrize("policy", ["scall", "static", "frequency", "random"])
@pytest.mark.parametrize("drawn", [False, True])
def test_the_total_holds_at_every_moment(policy, drawn):
    collection = trained(built(policy=policy, drawn=drawn, budget=2000), 10)
    embedder = collection.embedder
    with embedder.working() as held:
        sizes = [table.sizes.astype(int) for table in held.fields]
        counts = [table.counts for table in held.fields]
    total = sum(int(each.sum()) for each in sizes)
    known = sum(int((each > 0).sum()) for each in counts)
    assert total == min(embedder.hot, known * embedder.pieces)
    assert total > 0
    for size, count in zip(sizes, counts, strict=True):
        assert (np.diff(size[np.argsort(-count, kind="stable")]) <= 0).all()


def trained(collection, steps, life=None, optimizer=None, first=0):
    optimizer = optimizer or torch.optim.Adagrad(collection.parameters(), lr=0.05)
    life = life or Lifecycle(collection, [optimizer])
    for step in range(first, first + steps):
        chance = torch.Generator().manual_seed(step)
        user = (torch.rand(32, generator=chance) ** 3 * 300).long()
        query = torch.randint(-20, 20, (32,), generator=chance)
        optimizer.zero_grad()
        loss = (collection(torch.stack([user, query], 1)) - 0.1).square().mean()
        loss.backward()
        optimizer.step()
        life.step(loss.detach())
    return collection


def test_a_training_that_was_stopped_goes_on_to_the_bit():
    """Between two changes: losses, counts and the last action are in the state dict."""
    whole = trained(built(every=4), 30)
    first = built(every=4)
    optimizer = torch.optim.Adagrad(first.parameters(), lr=0.05)
    trained(first, 18, optimizer=optimizer)
    file = io.BytesIO()
    torch.save([first.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    states = torch.load(file)
    second = built(every=4)
    optimizer = torch.optim.Adagrad(second.parameters(), lr=0.05)
    second.load_state_dict(states[0])
    optimizer.load_state_dict(states[1])
    life = Lifecycle(second, [optimizer])
    life.at(18, 0)
    trained(second, 12, life, optimizer, first=18)
    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name
    with whole.embedder.working() as held:
        assert held.policy.critic.seen == 30 // 4 - 1


def test_a_training_tells_its_losses(monkeypatch, tmp_path):
    heard = []
    monkeypatch.setattr(Resizing, "hear", lambda self, loss: heard.append(loss))
    log = prepare([write(tmp_path / "clicks.csv", columns())], tmp_path / "log", DATA).path
    words = replace(TINY, epochs=1, method="scall", budget="4x", set={"every": 2})
    run = train([log], None, words, tmp_path / "run")
    assert len(heard) == 6  # 1,400 rows, 256 a step
    assert 0.5 < np.mean(heard) < 0.8
    assert run.path == tmp_path / "run"
    heard.clear()
    life = Lifecycle(built())
    life.step()
    assert heard == []
    life.step(0.5)
    life.step(torch.tensor(0.25))
    assert heard == [0.5, 0.25]


# Bytes, options


def test_its_bytes_to_the_last():
    made = plan(FIELDS, 8, method="scall", budget=6000)
    own = made.program.fields[0][0].source.ids
    assert made.program.chunks == 4
    assert made.by_kind == {
        "weights": made.program.rows * 8,
        "map": CompactMap(own, 0).bytes,
        "fingerprint": 8,
    }
    assert 6000 - 8 < made.bytes <= 6000
    assert own * 8 + CompactMap(own, 0).bytes == pytest.approx(3000, rel=0.02)


def test_what_training_takes_is_told_and_serving_does_without():
    collection = built()
    embedder = collection.embedder
    state, kinds = collection.state_dict(), embedder.bytes("training")
    told = sum(each.nbytes for name, each in state.items() if "sketch_" in name)
    assert kinds["sketch"] == told == 13 * sum(embedder.slots)
    assert kinds["policy"] == state["embedder.stored.policy"].nbytes > embedder.networks.bytes
    assert built(policy="static").embedder.bytes("training")["policy"] == 64
    served = trained(collection, 12).serving()
    assert not any("sketch" in name or "policy" in name for name in served.state_dict())
    assert sum(each.nbytes for each in served.state_dict().values()) == collection.plan.bytes
    ids = torch.tensor([[0, 4], [1, -3]])
    assert torch.equal(served(ids), collection(ids))
    assert Lifecycle(served).epoch_ended() is None


def test_a_served_copy_is_trained_on_with_counts_that_begin_anew():
    collection = trained(built(policy="frequency"), 20)
    again = collection.serving().resume()
    ids = torch.stack([torch.arange(300), torch.arange(-150, 150)], 1)
    before = again(ids)
    assert torch.equal(before, collection(ids))
    sizes = sizes_of(collection.embedder)
    assert set(sizes_of(again.embedder).values()) == set()
    seen = {pair: float(sizes[pair]) for pair in sizes if sizes[pair] and pair[1] % 2}
    counts(again.embedder, seen)
    again.embedder.maintain(AT)
    after, now = sizes_of(again.embedder), again(ids)
    assert after.keys() == seen.keys()
    for field, name in seen:
        row = name + 150 * field
        kept = after[field, name] * again.embedder.pool.weight.shape[1]
        assert kept > 0
        assert torch.equal(now[row, field, :kept], before[row, field, :kept])
    trained(again, 10)


def sizes_of(embedder):
    """How many pieces each known (field, id) has been dealt."""
    with embedder.working() as held:
        return {
            (field, int(table.ids[slot])): int(table.sizes[slot])
            for field, table in enumerate(held.fields)
            for slot in table.known
        }


def test_who_gains_a_piece_reads_what_it_has_read():
    """Also where the map took the id for another: growing changes no vector."""
    collection = trained(built(policy="random", every=6), 11)
    embedder = collection.embedder
    width = embedder.pool.weight.shape[1]
    every = torch.stack([torch.arange(300), torch.arange(300) - 150], 1)
    for step in range(12, 42, 6):
        vectors, before = collection(every).detach(), sizes_of(embedder)
        with embedder.working() as held:
            held.policy.whole[3] = embedder.every
        embedder.maintain(Progress(step))
        now, after = collection(every).detach(), sizes_of(embedder)
        grown = [pair for pair in before if after.get(pair, 0) > before[pair]]
        assert len(grown) > 5
        for field, name in before:
            row, own = name + 150 * field, after.get((field, name), 0) * width
            assert torch.equal(now[row, field, :own], vectors[row, field, :own])
        with torch.no_grad():
            embedder.pool.weight += torch.rand_like(embedder.pool.weight)


def test_the_policy_stays_as_large_when_the_population_grows():
    sizes = []
    for distinct in (200, 2_000_000):
        fields = [Field("user", distinct=distinct), Field("item", distinct=distinct)]
        made = EmbeddingCollection(fields, 8, method="scall", budget=10**5)
        sizes.append(made.embedder.bytes("training")["policy"])
    assert sizes[0] == sizes[1]


def test_a_budget_that_holds_all_rows_takes_a_full_table():
    fields = [Field("user", 300)]
    assert plan(fields, 8, method="scall", budget="1x").program.plain
    with pytest.raises(BudgetTooSmall) as caught:
        plan(FIELDS, 8, method="scall", budget=20)
    least = caught.value.minimum
    assert plan(FIELDS, 8, method="scall", budget=least).bytes <= least


@pytest.mark.parametrize(
    "words",
    [
        {"own": 0.0}, {"own": 1.0}, {"pieces": 3}, {"pieces": 0}, {"policy": "best"}, {"every": 0},
        {"decay": 0.0}, {"decay": 1.5}, {"discount": 1.0}, {"slots": 0.0}, {"bands": 0},
        {"distributions": 0}, {"hidden": 0}, {"shape": -1.0}, {"power": -0.5},
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused_by_name(words):
    (name,) = words
    with pytest.raises(BitfoldError, match=name if name != "pieces" else "pieces|chunks"):
        plan(FIELDS, 8, method="scall", budget=6000, **words)
    assert plan(FIELDS, 8, method="scall", budget=6000, pieces=2, every=1, decay=1.0).bytes <= 6000
