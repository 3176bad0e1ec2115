"""CCE by hand: clusters and helpers, when ids are clustered, what stays and what starts anew."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitfold import BitfoldError, BudgetTooSmall, EmbeddingCollection, Field, plan
from bitfold.address.stored import pack_bits, unpack_bits
from bitfold.embedder.clusters import closest, k_means
from bitfold.embedder.contract import Progress
from bitfold.planning.statistics import Counted
from bitfold.training.lifecycle import Lifecycle

FIELDS = [Field("user", 300), Field("item", 200), Field("sex", 2)]


def built(fields=FIELDS, **more):
    return EmbeddingCollection(
        fields, 8, **{"method": "cce", "budget": 4000, "chunks": 2, "seed": 1, **more}
    )


def generator():
    return torch.Generator().manual_seed(0)


@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 5))
def test_centroids_are_numbers_whatever_the_points(points, count, distinct):
    drawn = torch.randn(distinct, 3, generator=generator())[torch.arange(points) % distinct]
    found = k_means(drawn, count, generator())
    assert found.shape == (count, 3)
    assert torch.isfinite(found).all()
    assert torch.equal(found, k_means(drawn, count, generator()))
    if count >= min(points, distinct):  # every distinct point is a centroid
        assert closest(drawn, found)[1].max() < 1e-4


def test_an_empty_cluster_takes_the_farthest_point():
    """Three points in one place, and one far away: two equal centroids would leave it alone."""
    points = torch.tensor([[0.0], [0.0], [0.0], [5.0]])
    for seed in range(8):
        found = k_means(points, 2, torch.Generator().manual_seed(seed))
        assert sorted(found.flatten().tolist()) == [0.0, 5.0]


def test_a_vector_is_a_cluster_and_a_helper_chunk_by_chunk():
    embedder = built().embedder
    tables = {name: each.tolist() for name, each in embedder.stored.named().items()}
    ids = torch.tensor([[3, 7, 1], [299, 0, 0]])
    for b, row in enumerate(ids.tolist()):
        for f, value in enumerate(row):
            rows = embedder.pool.weight[embedder.program.cells_int(f, value, tables)]
            assert rows.shape == ((4 if f < 2 else 2), 4)
            parts = rows.reshape(2, -1, 4).sum(1)
            torch.testing.assert_close(embedder(ids)[b, f], parts.flatten())


def test_vectors_that_are_few_survive_their_clustering():
    """As many distinct vectors as clusters: clusters are then these, and helpers zero."""
    collection = built()
    embedder = collection.embedder
    with torch.no_grad():
        for _, cluster, helper in embedder._pairs():
            radix, source = cluster.radix, cluster.source
            embedder.stored.put(
                source.table, pack_bits(torch.arange(source.length) % radix, source.bits)
            )
            embedder.pool.weight[helper.base : helper.base + helper.radix] = 0
    ids = torch.stack([torch.arange(300), torch.arange(300) % 200, torch.arange(300) % 2], 1)
    before = collection(ids).detach()
    (move,) = embedder.cluster()
    torch.testing.assert_close(collection(ids), before)
    assert embedder.turn == 1
    for _, _, helper in embedder._pairs():
        rows = embedder.pool.weight[helper.base : helper.base + helper.radix]
        assert not rows.any()
    folded = {row for _, *pair in embedder._pairs() for each in pair
              for row in range(each.base, each.base + each.radix)}  # fmt: skip
    assert set(move.target.tolist()) == folded
    assert (move.source == -1).all()


def test_ids_that_are_alike_come_together():
    """Two groups of users that hashing had mixed."""
    collection = built()
    embedder = collection.embedder
    kinds = torch.tensor([0.0, 4.0])[torch.arange(300) % 2]
    _, cluster, helper = next(embedder._pairs())
    source = cluster.source
    with torch.no_grad():
        embedder.pool.weight[helper.base : helper.base + helper.radix] *= 0
        rows = embedder.pool.weight[cluster.base : cluster.base + cluster.radix]
        half = cluster.radix // 2
        rows[:half], rows[half:] = kinds[0], kinds[1]
        pointers = torch.randint(half, (300,)) + half * (torch.arange(300) % 2)
        embedder.stored.put(source.table, pack_bits(pointers, source.bits))
    embedder.cluster()
    table = embedder.stored.named()[source.table]
    found = unpack_bits(table, source.bits, 300) % cluster.radix
    assert not set(found[::2].tolist()) & set(found[1::2].tolist())
    ids = torch.stack([torch.arange(300), torch.zeros(300), torch.zeros(300)], 1).long()
    torch.testing.assert_close(collection(ids)[:, 0, :4], kinds.unsqueeze(1).expand(300, 4))


def test_helpers_are_hashed_anew():
    embedder = built().embedder
    ids = torch.arange(200).unsqueeze(1).expand(-1, 3) % 2

    def helpers():
        tables = {name: each.tolist() for name, each in embedder.stored.named().items()}
        return [embedder.program.cells_int(0, value, tables)[1] for value in range(200)]

    before = helpers()
    embedder.cluster()
    after = helpers()
    same = sum(one == other for one, other in zip(before, after, strict=True))
    assert same < 40
    assert torch.isfinite(embedder(ids)).all()


def test_it_clusters_with_an_epochs_first_step():
    embedder = built(times=2).embedder
    turns, step = [], 0
    for epoch in range(5):
        for _ in range(3):
            step += 1
            embedder.maintain(Progress(step, epoch, 5))
            turns.append(embedder.turn)
        embedder.maintain(Progress(step, epoch + 1, 5))
        turns.append(embedder.turn)
    assert turns == [0, 0, 0, 0, 1, 1, 1, 1, *[2] * 12]


def test_the_same_weights_are_clustered_alike():
    one, other = built(), built()
    for module in (one, other):
        module.embedder.cluster()
    for name, value in one.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


def test_weights_that_are_no_numbers_are_left_alone():
    embedder = built().embedder
    with torch.no_grad():
        embedder.pool.weight[0] = torch.nan
    assert list(embedder.cluster()) == []
    assert embedder.turn == 0


def test_what_an_optimizer_keeps_starts_anew_where_rows_do():
    collection = built()
    optimizer = torch.optim.Adagrad(collection.parameters(), lr=0.1, initial_accumulator_value=0.5)
    life = Lifecycle(collection, [optimizer], epochs=3)
    ids = torch.stack([torch.arange(200), torch.arange(200), torch.arange(200) % 2], 1)
    for _ in range(2):
        optimizer.zero_grad()
        collection(ids).sum().backward()
        optimizer.step()
        life.step()
        life.epoch_ended()
    kept = optimizer.state[collection.embedder.pool.weight]["sum"]
    program = collection.embedder.program
    whole = [lookup.base + each for lookup in program.fields[2] for each in range(2)]
    folded = [row for row in range(program.rows) if row not in whole]
    assert (kept[folded] == 0.5).all()
    assert (kept[whole] > 0.5).all()


def test_its_bytes_to_the_last_pointer():
    made = plan(FIELDS, 8, method="cce", budget=4000, chunks=2)
    rows = made.program.fields[0][0].radix
    bits = (rows - 1).bit_length()
    pointers = 2 * (-(-300 * bits // 8) + -(-200 * bits // 8))
    assert made.by_kind == {
        "weights": made.program.rows * 16, "pointers": pointers + 8, "fingerprint": 8
    }  # fmt: skip
    assert 4000 - 16 < made.bytes <= 4000
    assert [len(lookups) for lookups in made.program.fields] == [4, 4, 2]
    assert made.program.rows >= 8 * rows + 4
    assert made.program.rows < 8 * (rows + 1) + 4  # another cluster and helper would not have fit
    with pytest.raises(BudgetTooSmall) as error:
        plan(FIELDS, 8, method="cce", budget=100)
    least = plan(FIELDS, 8, method="cce", budget=error.value.minimum)
    assert least.bytes <= error.value.minimum


def test_chunks_follow_the_budget():
    """Half of the budget may be pointers, at the most."""
    chunks = [
        plan([Field("id", 10_000)], 16, method="cce", budget=budget).program.chunks
        for budget in ("4x", "15x", "40x")
    ]
    assert chunks == sorted(chunks, reverse=True)
    assert chunks[0] == 4
    assert chunks[-1] == 1
    with pytest.raises(BitfoldError, match="divide the width"):
        plan(FIELDS, 8, method="cce", budget=4000, chunks=3)


def test_hashed_ids_need_places():
    fields = [Field("query", distinct=200), Field("item", 100)]
    with pytest.raises(BitfoldError, match="'cce' keeps a row per id"):
        plan(fields, 8, method="cce", budget=4000)
    hashed = np.random.default_rng(3).integers(-(2**63), 2**63 - 1, 200)
    stats = Counted(
        {"query": (hashed, np.arange(200) + 1), "item": (np.arange(90), np.ones(90, np.int64))}
    )
    made = plan(fields, 8, method="cce", budget=4000, map=True)
    collection = EmbeddingCollection.from_plan(made, seed=0)
    collection.embedder.prepare(stats)
    assert made.bytes == sum(each.nbytes for each in collection.serving().state_dict().values())
    ids = torch.stack([torch.from_numpy(hashed), torch.arange(200) % 100], 1)
    with torch.no_grad():
        collection.embedder.pool.weight.normal_(generator=generator())
    before = collection(ids)
    collection.embedder.cluster()
    after = collection(ids)
    spread = (before - before.mean(0)).square().sum()
    assert (after - before).square().sum() < 0.7 * spread
    going_on = EmbeddingCollection.from_plan(made, seed=0)
    going_on.load_state_dict(collection.state_dict())
    assert list(going_on.embedder.cluster()) == []  # nobody told it of the ids
    assert torch.equal(going_on(ids), after)
