"""CAFE by hand: what the sketch keeps, who owns a row, what goes along when owners change."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitfold import BitfoldError, EmbeddingCollection, Field, plan
from bitfold.address.compact_map import CompactMap
from bitfold.embedder.contract import Progress
from bitfold.embedder.owners import KEY_BITS
from bitfold.embedder.sketch import HotSketch
from bitfold.optim import RowWiseAdagrad
from bitfold.training.lifecycle import Lifecycle

FIELDS = [Field("user", 300), Field("query", distinct=200)]
AT = Progress(1)


def empty(buckets, slots):
    return HotSketch(np.zeros((buckets, slots), np.uint32), np.zeros((buckets, slots), np.float32))


def by_hand(batches, slots):
    """Space Saving in one bucket: known keys first, then the highest newcomers."""
    kept = []
    for batch in batches:
        known = [each for each in kept if each[0] in batch]
        new = {key: gain for key, gain in batch.items() if key not in dict(kept)}
        for each in known:
            each[1] += batch[each[0]]
        for key, gain in sorted(new.items(), key=lambda e: (-e[1], e[0]))[:slots]:
            if len(kept) < slots:
                kept.append([key, gain])
            else:
                least = min(kept, key=lambda each: each[1])
                least[:] = key, least[1] + gain
    return dict(kept)


# Sums of powers of two below 2**20 are exact, and distinct gains leave no ties.
BATCH = st.dictionaries(st.integers(0, 9), st.integers(1, 2**12), max_size=6)


@given(st.lists(BATCH, max_size=8), st.integers(1, 4))
def test_a_bucket_keeps_what_space_saving_keeps(batches, slots):
    sketch = empty(1, slots)
    told = [
        {key: gain + key / 16 + moment / 2**9 for key, gain in batch.items()}
        for moment, batch in enumerate(batches)
    ]
    for batch in told:
        keys = np.array(sorted(batch), np.int64)
        sketch.add(keys, np.array([batch[key] for key in keys.tolist()]))
    expected = by_hand(told, slots)
    scores = sketch.scores.reshape(-1)
    found = dict(zip(sketch.keys.reshape(-1)[scores > 0].tolist(), scores[scores > 0], strict=True))
    assert found == pytest.approx(expected)
    assert set(sketch.hottest(slots).tolist()) == expected.keys()


def test_frequent_keys_outlive_many_others():
    rng, sketch = np.random.default_rng(0), empty(64, 4)
    hot = rng.integers(0, 1 << KEY_BITS, 32)
    for _ in range(200):
        others = rng.integers(0, 1 << KEY_BITS, 100)
        keys = np.unique(np.concatenate([hot, others]))
        sketch.add(keys, np.where(np.isin(keys, hot), 5.0, 1.0))
    assert np.isin(hot, sketch.hottest(32)).mean() > 0.9


def built(**more):
    words = {"method": "cafe", "budget": 6000, "seed": 1, **more}
    return EmbeddingCollection(FIELDS, 8, **words)


def key_of(embedder, field, value):
    return int(embedder.keys(field, np.array([value]))[0])


def test_gradients_become_scores():
    collection = built()
    ids = torch.tensor([[3, -7], [3, 11], [5, -7]])
    toward = torch.zeros(3, 2, 8)
    toward[:, 0, 0], toward[:, 1, 1] = torch.tensor([3.0, 4, 0]), torch.tensor([1.0, 2, 5])
    (collection(ids) * toward).sum().backward()
    sketch = collection.embedder.sketch()
    scores = sketch.scores.reshape(-1)
    found = dict(zip(sketch.keys.reshape(-1)[scores > 0].tolist(), scores[scores > 0], strict=True))
    expected = {(0, 3): 7.0, (1, -7): 6.0, (1, 11): 2.0}
    assert found == {key_of(collection.embedder, *pair): at for pair, at in expected.items()}


def scored(embedder, scores):
    """Let the sketch know these (field, id) pairs alone."""
    sketch = embedder.sketch()
    sketch.words[:], sketch.scores[:] = 0, 0
    keys = np.array([key_of(embedder, *pair) for pair in scores])
    order = np.argsort(keys)
    sketch.add(keys[order], np.array([*scores.values()], float)[order])


@pytest.mark.parametrize("make", [RowWiseAdagrad, torch.optim.Adagrad], ids=["ours", "torch's"])
def test_rows_change_owners_with_all_that_is_kept_of_them(make):
    collection = built()
    embedder, hot = collection.embedder, collection.embedder.hot
    optimizer = make(collection.parameters(), lr=0.1)
    life = Lifecycle(collection, [optimizer])
    (collection(torch.tensor([[3, -7], [4, 11]])) * torch.arange(1.0, 9)).sum().backward()
    optimizer.step()
    kept = [each for name, each in optimizer.state[embedder.pool.weight].items() if name != "step"]

    def read(pair):
        """An id's row, its numbers, and what the optimizer keeps beside them."""
        tables = {name: each.tolist() for name, each in embedder.stored.named().items()}
        (row,) = embedder.program.cells_int(*pair, tables)
        return row, embedder.pool.weight[row].detach().clone(), kept[0][row].clone()

    before = {pair: read(pair) for pair in [(0, 3), (1, -7), (0, 4), (1, 11)]}
    assert all(row >= hot for row, _, _ in before.values())
    scored(embedder, dict.fromkeys(before, 5.0))
    life._maintain(embedder)
    for pair, (_, weight, beside) in before.items():  # newcomers begin as what they have read
        row, now, then = read(pair)
        assert row < hot
        assert torch.equal(now, weight)
        assert torch.equal(then, beside)
    with torch.no_grad():
        embedder.pool.weight[:hot] += torch.arange(float(hot)).unsqueeze(1)
        kept[0][:hot] += torch.arange(float(hot)).reshape(-1, *[1] * (kept[0].dim() - 1))
    owned = {pair: read(pair) for pair in before}
    sketch, gone = embedder.sketch(), key_of(embedder, 0, 4)
    sketch.words[sketch.keys == gone] = key_of(embedder, 0, 250)  # another takes its slot
    life._maintain(embedder)
    for pair, (_, weight, beside) in owned.items():
        row, now, then = read(pair)
        if pair == (0, 4):
            assert row == before[pair][0]  # it reads the shared row again
        else:
            assert row < hot
            assert torch.equal(now, weight)
            assert torch.equal(then, beside)


def test_nothing_moves_while_owners_stay():
    embedder = built().embedder
    scored(embedder, {(0, 1): 3.0, (1, 5): 2.0})
    (move,) = embedder.maintain(AT)
    assert len(move.target) == 2
    assert list(embedder.maintain(AT)) == []
    assert embedder.sketch().scores.max() == pytest.approx(3.0 * 0.98 * 0.98)


def test_its_bytes_to_the_last():
    made = plan(FIELDS, 8, method="cafe", budget=6000, hot=0.6, slots=2.0)
    hot = made.program.fields[0][0].source.ids
    slots = -(-2 * hot // 4) * 4
    shared = made.program.rows - hot
    assert made.by_kind == {
        "weights": (hot + shared) * 32,
        "map": CompactMap(hot, 0).bytes,
        "sketch": slots * 8,
        "fingerprint": 8,
    }
    assert 6000 - 32 < made.bytes <= 6000
    for words in ({"every": 0}, {"slots": 0.5}, {"hot": 0.0}, {"decay": 0.0}):
        with pytest.raises(BitfoldError):
            plan(FIELDS, 8, method="cafe", budget=6000, **words)


def test_it_finds_what_is_hot():
    """Ids below 20 have labels of their own, and come often; nothing else is to be learned."""
    torch.manual_seed(0)
    collection = built(every=10)
    optimizer = torch.optim.Adagrad(collection.parameters(), lr=0.05)
    life = Lifecycle(collection, [optimizer])
    labels = torch.randn(20, 8)
    for _ in range(60):
        user = torch.randint(0, 20, (64,))
        user[::4] = torch.randint(20, 300, (16,))
        ids = torch.stack([user, torch.randint(-(2**63), 2**63 - 1, (64,))], 1)
        toward = torch.where((user < 20).unsqueeze(1), labels[user % 20], torch.zeros(8))
        optimizer.zero_grad()
        (collection(ids)[:, 0] - toward).square().sum().backward()
        optimizer.step()
        life.step()
    embedder = collection.embedder
    keys = embedder.keys(0, np.arange(20))
    assert np.isin(keys, embedder.sketch().owners).all()
