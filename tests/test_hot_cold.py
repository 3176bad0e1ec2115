"""Hot and cold ids by hand: who owns a row, what it weighs, what stays."""

import copy

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bitfold import BitfoldError, BudgetTooSmall, EmbeddingCollection, Field, plan
from bitfold.address.compact_map import CompactMap
from bitfold.embedder.hot import Hot
from bitfold.planning.statistics import Counted

HASHED = np.random.default_rng(5).integers(-(2**63), 2**63 - 1, 200)
FIELDS = [Field("user", 300), Field("query", distinct=200), Field("sex", 2)]
COUNTS = Counted(
    {
        "user": (np.arange(300), 1000 - np.arange(300)),
        "query": (HASHED, 2000 - 8 * np.arange(200)),
        "sex": (np.array([0, 1]), np.array([10_000, 9_000])),
    }
)


def built(**more):
    words = {"method": "hot-cold", "budget": 6000, "seed": 1, **more}
    made = EmbeddingCollection(FIELDS, 8, **words)
    made.embedder.prepare(COUNTS)
    return made


def hottest(count):
    """(field, id) of the most frequent ids of all fields."""
    every = [
        (-times, field, value)
        for field, name in enumerate(("user", "query", "sex"))
        for value, times in zip(*COUNTS.top(name, 300), strict=True)
    ]
    return [(field, int(value)) for _, field, value in sorted(every, key=lambda e: e[0])[:count]]


@pytest.mark.parametrize("hashes", [1, 2])
def test_hot_ids_own_rows_and_others_share_the_mean_of_theirs(hashes):
    embedder = built(hashes=hashes).embedder
    assert isinstance(embedder, Hot)
    hot, rows = embedder.hot, len(embedder.pool.weight)
    tables = {name: each.tolist() for name, each in embedder.stored.named().items()}
    owned = [set(embedder.program.cells_int(f, value, tables)) for f, value in hottest(hot)]
    assert sorted(owned, key=min) == [{row} for row in range(hot)]
    ids = torch.from_numpy(np.stack([np.arange(200) + 100, HASHED, np.arange(200) % 2], 1))
    cold = 0
    for b, row in enumerate(ids.tolist()):
        for f, value in enumerate(row):
            cells = embedder.program.cells_int(f, value, tables)
            assert all(cell < rows for cell in cells)
            cold += all(cell >= hot for cell in cells)
            expected = embedder.pool.weight[cells].mean(0)
            torch.testing.assert_close(embedder(ids[b : b + 1])[0, f], expected)
    assert cold > 200


def test_the_budget_is_met_to_the_row():
    for share in (0.2, 0.5, 0.8):
        made = plan(FIELDS, 8, method="hot-cold", budget=6000, hot=share)
        (source,) = {lookup.source.map for lookup in made.program}
        hot, rows = source.capacity, made.program.rows
        assert made.by_kind == {
            "weights": rows * 32, "map": CompactMap(hot, 0).bytes, "fingerprint": 8
        }  # fmt: skip
        assert 6000 - 32 < made.bytes <= 6000
        assert 0.95 * share < (hot * 32 + made.by_kind["map"]) / 6000 <= share
    assert plan(FIELDS[:1], 8, method="hot-cold", budget=300 * 32).program.plain
    with pytest.raises(BudgetTooSmall) as error:
        plan(FIELDS, 8, method="hot-cold", budget=50)
    assert error.value.minimum == 2 * 32 + CompactMap(1, 0).bytes + 8
    with pytest.raises(BitfoldError, match="hot is out of range"):
        plan(FIELDS, 8, method="hot-cold", budget="4x", hot=1.0)


def test_it_asks_for_counts():
    made = EmbeddingCollection(FIELDS, 8, method="hot-cold", budget=6000)
    with pytest.raises(BitfoldError, match="prepare"):
        made(torch.zeros(1, 3, dtype=torch.int64))


def test_fewer_ids_than_hot_rows_leave_rows_unread():
    few = Counted({name: (np.arange(2), np.array([3, 1])) for name in ("user", "query", "sex")})
    made = EmbeddingCollection(FIELDS, 8, method="hot-cold", budget=6000)
    made.embedder.prepare(few)
    assert torch.isfinite(made(torch.tensor([[299, -5, 1], [0, 1, 0]]))).all()


def test_a_module_whose_weights_are_averaged_keeps_its_map():
    """An average over bytes would round them: ids would read other rows."""
    made = built()
    ids = torch.from_numpy(np.stack([np.arange(200), HASHED, np.arange(200) % 2], 1))
    average = AveragedModel(made, multi_avg_fn=get_ema_multi_avg_fn(0.999), use_buffers=True)
    for _ in range(20):
        average.update_parameters(made)
    torch.testing.assert_close(average(ids), made(ids))
    cast = copy.deepcopy(made).type(torch.float16).type(torch.float32)
    torch.testing.assert_close(cast(ids), made(ids), rtol=1e-2, atol=1e-4)
