"""DPQ and MGQE by hand: what is chosen, where gradients go, what is kept of it, what it weighs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfold import BitfoldError, BudgetTooSmall, EmbeddingCollection, Field, plan
from bitfold.address.stored import pack_bits, unpack_bits
from bitfold.embedder.contract import Progress
from bitfold.embedder.corridor import Corridor
from bitfold.embedder.quantizing import Quantizing, nearest, ones
from bitfold.fitting import fit
from bitfold.planning.statistics import Counted

FIELDS = [Field("user", 300), Field("item", 200), Field("sex", 2)]


def built(method="dpq", fields=FIELDS, dim=8, **more):
    return EmbeddingCollection(fields, dim, **{"method": method, "budget": "6x", "seed": 1, **more})


def some_ids(rows, fields=FIELDS):
    generator = torch.Generator().manual_seed(3)
    columns = [torch.randint(each.num_embeddings, (rows,), generator=generator) for each in fields]
    return torch.stack(columns, 1)


def numbers(*values):
    return torch.tensor(values).unsqueeze(1)


def state_bytes(module):
    return sum(each.nbytes for each in module.state_dict().values())


def test_an_id_has_the_nearest_centroids_of_its_query_and_both_learn():
    made = built(fields=[Field("id", 40)], dim=2, chunks=2, centroids=3, budget=100)
    assert made.plan.by_kind == {"weights": 6 * 4, "pointers": 2 * 10, "fingerprint": 8}
    embedder = made.embedder
    with torch.no_grad():
        embedder.pool.weight.copy_(numbers(0.0, 1.0, 3.0, -1.0, 0.0, 2.0))
        embedder.queries.weight.fill_(0.0)
        embedder.queries.weight[5] = torch.tensor([0.9, 0.6])
        embedder.queries.weight[7] = torch.tensor([2.5, 1.2])
    found = made(torch.tensor([[5], [7], [0]]))
    assert found.squeeze(1).tolist() == [[1.0, 0.0], [3.0, 2.0], [0.0, 0.0]]
    toward = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]).unsqueeze(1)
    (found * toward).sum().backward()
    # Id 7 is at 3 and 2; id 5 at 1 and 0; id 0 at 0 and 0.
    assert embedder.pool.weight.grad.flatten().tolist() == [5.0, 1.0, 3.0, 0.0, 8.0, 4.0]
    assert embedder.queries.weight.grad[[5, 7, 0, 1]].tolist() == [[1, 2], [3, 4], [5, 6], [0, 0]]
    tables = made.serving().embedder.stored.named()
    first, second = (unpack_bits(tables[f"pointers_0_{chunk}"], 2, 40) for chunk in range(2))
    assert first[[5, 7, 0]].tolist() == [1, 2, 0]
    assert second[[5, 7, 0]].tolist() == [1, 2, 1]


def test_rare_ids_choose_from_the_first_centroids_by_shorter_pointers():
    made = built("mgqe", [Field("id", 40)], 1, chunks=1, centroids=8, budget=80)
    kinds = {"weights": 32, "pointers": 5 + 1, "mask": 5, "fingerprint": 8}
    assert made.plan.by_kind == kinds  # 40 of 1 bit, 4 of 2 bits more, 40 of a mask
    embedder = made.embedder
    with torch.no_grad():
        embedder.pool.weight.copy_(torch.arange(8.0).unsqueeze(1))
        embedder.queries.weight.fill_(5.2)
    ids = torch.arange(40).unsqueeze(1)
    first = [5.0] * 4 + [1.0] * 36
    assert made(ids).flatten().tolist() == first  # nothing is counted: the first are popular
    counts = np.ones(40, np.int64)
    counts[[7, 30, 39, 2]] = 9
    embedder.prepare(Counted({"id": (np.arange(40), counts)}))
    expected = [5.0 if each in (7, 30, 39, 2) else 1.0 for each in range(40)]
    assert made(ids).flatten().tolist() == expected
    served = made.serving()
    assert served(ids).flatten().tolist() == expected
    assert served.bytes("serving") == kinds
    assert state_bytes(served) == sum(kinds.values())
    tables = served.embedder.stored.named()
    assert unpack_bits(tables["popular_0"], 1, 40).nonzero().flatten().tolist() == [2, 7, 30, 39]
    assert unpack_bits(tables["more_0_0"], 2, 4).tolist() == [5 >> 1] * 4
    assert unpack_bits(tables["pointers_0_0"], 1, 40).tolist() == [1] * 40


@given(st.integers(0, 20), st.integers(1, 3), st.integers(1, 9), st.integers(1, 4), st.data())
def test_the_nearest_is_the_nearest(count, chunks, centroids, width, data):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    few = data.draw(st.integers(1, centroids))
    queries = torch.randn(count, chunks, width, generator=generator)
    rows = torch.randn(chunks, centroids, width, generator=generator)
    rare = torch.rand(count, generator=generator) < 0.5
    found = nearest(queries, rows, rare, few)
    for number in range(count):
        for chunk in range(chunks):
            known = rows[chunk, : few if rare[number] else centroids]
            off = (known - queries[number, chunk]).square().sum(1)
            assert off[found[number, chunk]] <= off.min() * (1 + 1e-5)
    for number in range(count):
        part = slice(number, number + 1)
        assert torch.equal(nearest(queries[part], rows, rare[part], few), found[part])
    own = nearest(rows.transpose(0, 1), rows)
    assert torch.equal(own, torch.arange(centroids).unsqueeze(1).expand(-1, chunks))


def test_bits_are_counted():
    values = torch.arange(256)
    assert ones(values).tolist() == [each.bit_count() for each in range(256)]


@settings(deadline=None, max_examples=15)
@given(
    st.sampled_from(["dpq", "mgqe"]),
    st.lists(st.integers(1, 400), min_size=1, max_size=4),
    st.integers(2, 12),
    st.sampled_from([None, 8, 4, 2]),
    st.integers(0, 9),
)
def test_what_is_served_is_what_was_trained_and_goes_on(method, sizes, ratio, bits, seed):
    fields = [Field(f"f{number}", size) for number, size in enumerate(sizes)]
    said = {"method": method, "budget": f"{ratio}x", "bits": bits}
    try:
        made = plan(fields, 4, **said)
    except BudgetTooSmall as error:
        made = plan(fields, 4, **{**said, "budget": error.minimum})
    assert made.bytes <= made.budget
    collection = EmbeddingCollection.from_plan(made, seed=seed)
    ids = some_ids(50, fields)
    vectors = collection.eval()(ids)
    served = collection.serving()
    assert torch.equal(served(ids), vectors)
    assert state_bytes(served) == made.bytes == sum(served.bytes("serving").values())
    again = served.resume()
    assert torch.equal(again(ids), vectors)
    assert torch.equal(again.serving()(ids), vectors)


@pytest.mark.parametrize("method", ["dpq", "mgqe"])
def test_no_bytes_lead_out_of_a_fields_centroids(method):
    served = built(method, chunks=4, centroids=11).serving()
    embedder = served.embedder
    with torch.no_grad():
        embedder.pool.weight.copy_(torch.arange(len(embedder.pool.weight)).unsqueeze(1))
    for fill in (255, 0b10101010, 0):
        for name, table in embedder.stored.named().items():
            embedder.stored.put(name, torch.full_like(table, fill))
        found = served(some_ids(60))[..., ::2].long()
        for number, lookups in enumerate(served.plan.program.fields):
            for chunk, lookup in enumerate(lookups):
                cells = found[:, number, chunk]
                assert cells.ge(lookup.base).all()
                assert cells.lt(lookup.base + lookup.radix).all()


def test_one_tier_is_served_by_the_kernels():
    collection, ids = built(), some_ids(20)
    assert isinstance(collection.embedder, Quantizing)
    served = collection.serving()
    assert isinstance(served.embedder, Corridor)
    assert served.embedder.by_kernels
    assert torch.equal(served(ids), collection(ids))


def test_training_has_a_row_an_id():
    found = built(centroids=8).bytes("training")
    assert found["queries"] == 500 * 8 * 4  # of users and items; the two sexes are whole
    assert found["gradients"] == found["queries"] + found["weights"]
    assert "queries" not in built(centroids=8).bytes("serving")


def test_ids_that_were_never_met_have_the_mean_query():
    collection = built()
    embedder = collection.embedder
    stats = {"user": (np.arange(290), np.ones(290)), "item": (np.arange(200), np.ones(200)),
             "sex": (np.array([1]), np.array([5]))}  # fmt: skip
    embedder.prepare(Counted(stats))
    embedder.maintain(Progress(1, 1, 2))
    queries, mean = embedder.queries.weight, embedder.queries.weight[:290].mean(0)
    torch.testing.assert_close(queries[290:300], mean.expand(10, -1))
    assert len(torch.unique(queries[:290], dim=0)) == 290
    vectors = collection(torch.tensor([[0, 0, 0], [0, 0, 1]]))
    assert torch.equal(vectors[0], vectors[1])


def test_bytes_buy_bits_to_choose_by():
    """Three bits for each of 16 numbers at 10x of width 16; the least is a bit an id."""
    fields = [Field("id", 10_000)]
    made = plan(fields, 16, method="dpq", budget="10x")
    lookups = made.program.fields[0]
    assert sum(lookup.source.bits for lookup in lookups) >= 45
    assert 0.9 * made.budget < made.bytes <= made.budget
    least = 2 * 16 * 4 + 1250 + 8
    with pytest.raises(BudgetTooSmall) as error:
        plan(fields, 16, method="dpq", budget=least - 1)
    assert error.value.minimum == least
    assert plan(fields, 16, method="dpq", budget=least).bytes == least
    tiers = plan(fields, 16, method="mgqe", budget="10x", fewer=1)
    assert 0.9 * tiers.budget < tiers.bytes <= tiers.budget


@pytest.mark.parametrize(
    ("method", "said", "what"),
    [
        ("dpq", {"chunks": 3}, "divide the width"),
        ("dpq", {"chunks": 0}, "chunks of method 'dpq' is too small"),
        ("dpq", {"centroids": 1}, "centroids of method 'dpq' is too small"),
        ("mgqe", {"popular": 0.0}, "popular is out of range"),
        ("mgqe", {"popular": 1.0}, "called dpq"),
        ("mgqe", {"fewer": 0}, "fewer of method 'mgqe' is too small"),
        ("dpq", {"bits": 4, "low_precision": True}, "in floats while they are trained"),
        ("dpq", {"budget": None}, "needs a budget"),
    ],
)
def test_options_that_make_no_sense_are_refused(method, said, what):
    with pytest.raises(BitfoldError, match=what):
        built(method, **said)


@pytest.mark.parametrize("method", ["dpq", "mgqe"])
def test_a_step_for_each_row_is_not_gone_on_from(method):
    served = built(method, bits=4, scale="row").serving()
    with pytest.raises(BitfoldError, match=f"'{method}' cannot be trained on"):
        served.resume()


@pytest.mark.parametrize("method", ["dpq", "mgqe"])
def test_hashed_ids_need_places(method):
    fields = [Field("query", distinct=200), Field("item", 100)]
    with pytest.raises(BitfoldError, match=f"'{method}' keeps a row per id"):
        plan(fields, 8, method=method, budget=2000)
    hashed = np.random.default_rng(3).integers(-(2**63), 2**63 - 1, 200)
    often = np.where(np.arange(200) < 20, 50, 1)
    stats = Counted({"query": (hashed, often), "item": (np.arange(90), np.ones(90, np.int64))})
    made = plan(fields, 8, method=method, budget=2000, map=True)
    collection = EmbeddingCollection.from_plan(made, seed=0)
    collection.embedder.prepare(stats)
    ids = torch.stack([torch.from_numpy(hashed), torch.arange(200) % 100], 1)
    vectors = collection(ids)
    served = collection.serving()
    assert torch.equal(served(ids), vectors)
    assert state_bytes(served) == made.bytes <= 2000
    assert torch.equal(served.resume()(ids), vectors)
    if method == "mgqe":  # the popular are those that were counted most, wherever the map has them
        (each, _) = collection.embedder.fields
        tables = collection.embedder.stored.named()
        popular = each.is_popular(each.index(ids[:, 0], tables), tables)
        assert popular.tolist() == [place < 20 for place in range(200)]


@pytest.mark.parametrize("method", ["dpq", "mgqe"])
def test_a_table_of_few_kinds_is_fitted_to_the_last_digit(method):
    """Sixteen vectors, and as many centroids for popular ids."""
    kinds = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    table = kinds[torch.arange(500) % 16]
    made = built(method, [Field("id", 500)], 4, chunks=1, centroids=16, budget="4x")
    counts = torch.where(torch.arange(500) < 50, 100, 1)
    (found,) = fit(made.embedder, [table], [counts])
    assert found.how == "k-means of chunks"
    popular = made(torch.arange(50).unsqueeze(1)).squeeze(1)
    if method == "dpq":
        assert found.error < 1e-3
        torch.testing.assert_close(popular, table[:50], rtol=1e-4, atol=1e-5)
    else:
        assert found.error < 0.75


def test_pointers_in_bytes():
    served = built(chunks=1, centroids=4).serving()
    for number, field in enumerate(FIELDS[:2]):
        queries = built(chunks=1, centroids=4).embedder
        each = queries.fields[number]
        index = torch.arange(field.num_embeddings)
        rows = queries.queries.weight[each.at + index].detach()
        chosen = queries.choices(queries.pool.weight, each, rows, index)
        table = served.embedder.stored.named()[f"pointers_{number}_0"]
        assert torch.equal(table, pack_bits(chosen[:, 0], 2))


@pytest.mark.parametrize("method", ["dpq", "mgqe"])
def test_what_is_drawn_anew_is_all_there_is(method):
    """Memory that nothing was written to holds anything: pointers and masks, too."""
    fresh = built(method).state_dict()
    made = built(method, device="meta").to_empty(device="cpu")
    for name, table in made.embedder.stored.named().items():
        made.embedder.stored.put(name, torch.full_like(table, 171))
    made.reset_parameters()
    for name, value in made.state_dict().items():
        assert torch.equal(value, fresh[name]), name


def test_a_field_beside_others_learns_in_bags_as_in_rows():
    """Bags read every field's centroids for every id; gradients are those of rows all the same."""
    one, other = built("mgqe", mode="sum"), built("mgqe", mode="sum")
    ids = some_ids(12)
    one(ids).square().sum().backward()
    other(ids.T.reshape(-1), torch.arange(12 * 3 + 1)).square().sum().backward()
    for (name, got), expected in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(got.grad, expected.grad, msg=name)
