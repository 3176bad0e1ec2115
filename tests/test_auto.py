"""The default method: which rule is taken at which budget, what it says, and that it works."""

import pytest
import torch

import bitfold
from bitfold import BitfoldError, EmbeddingCollection, Field
from bitfold.planning.statistics import Promised

SIZES = (6040, 3706, 2, 7, 21, 3439, 81)
DENSE = [Field(f"f{number}", size) for number, size in enumerate(SIZES)]
HASHED = [Field(f"f{number}", distinct=size) for number, size in enumerate(SIZES)]


def chosen(fields, budget, dim=16, **more):
    made = bitfold.plan(fields, dim, budget=budget, **more)
    assert made.bytes <= made.budget
    assert made.method == "auto"
    methods = {group.method for group in made.groups}
    assert len(methods) == 1
    return made, methods.pop(), {pool.bits for group in made.groups for pool in group.pools}


@pytest.mark.parametrize(
    ("budget", "method", "bits"),
    [
        ("1x", "full", 32),
        ("2x", "full", 8),
        ("5x", "full", 4),
        ("9x", "mixed-dimensions", 4),
        ("10x", "mixed-dimensions", 4),
        ("15x", "mixed-dimensions", 4),
        ("18x", "binary-code", 4),
        ("1000x", "binary-code", 4),
    ],
)
def test_dense_ids_are_whole_then_narrow_then_share(budget, method, bits):
    made, found, kept = chosen(DENSE, budget)
    assert (found, kept) == (method, {bits})
    assert f"{bits} bits a number" in made.why[0]


@pytest.mark.parametrize("fields", [DENSE, HASHED], ids=["dense", "hashed"])
@pytest.mark.parametrize("dim", [1, 3, 8, 16, 30])
def test_every_budget_is_met_and_more_bytes_never_mean_less_of_an_id(fields, dim):
    """From a row for each id downwards there is one way only, and no gap in it."""
    order = ["full", "mixed-dimensions", "binary-code"]
    before = 0
    for ratio in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 20, 50):
        stats = Promised(1_000_000)
        try:
            _, method, _ = chosen(fields, f"{ratio}x", dim, stats=stats)
        except bitfold.BudgetTooSmall:
            assert dim == 1
            continue
        assert order.index(method) >= before
        before = order.index(method)


def test_narrow_rows_are_taken_where_half_of_them_fits():
    ids, dim = 100_000, 32
    needed = ids * (dim // 2) // 2  # bytes at 4 bits
    beside = dim * dim * 4 + 1000  # the matrix, scales and fingerprint
    _, above, _ = chosen([Field("id", ids)], needed + beside, dim)
    _, below, _ = chosen([Field("id", ids)], needed - 1, dim)
    assert (above, below) == ("mixed-dimensions", "binary-code")
    made, _, _ = chosen(DENSE, "14x")
    assert "of 8, 10 or 16 of 16 numbers" in made.why[0]


def test_hashed_ids_get_maps_where_these_take_a_quarter_at_most():
    made, method, _ = chosen(HASHED, "8x", stats=Promised(10**6))
    assert method == "mixed-dimensions"
    assert sum(each.kind == "map" for group in made.groups for each in group.stored) == len(SIZES)
    assert "maps of" in made.why[1]
    made, method, _ = chosen(HASHED, "100x", stats=Promised(10**6))
    assert not made.groups[0].stored
    assert "codes" in made.why[1]
    made, method, _ = chosen(HASHED, "8x")  # without counts nothing can be mapped
    assert method == "binary-code"


def test_its_own_words_reach_what_it_chooses():
    made, method, bits = chosen(DENSE, "8x", bits=3)
    assert (method, bits) == ("full", {3})
    made, method, bits = chosen(DENSE, "18x", bits=2, scale="row")
    assert {pool.scale for group in made.groups for pool in group.pools} == {"row"}
    made, method, bits = chosen(DENSE, "4x", low_precision=True)
    assert made.groups[0].options["low_precision"] is True
    with pytest.raises(BitfoldError, match="bits"):
        bitfold.plan(DENSE, 16, budget="8x", bits=5)


@pytest.mark.parametrize("low_precision", [False, True])
def test_several_groups_learn_serve_and_come_back(low_precision):
    words = {"budget": "9x", "seed": 0, "low_precision": low_precision}
    module = EmbeddingCollection(DENSE, 16, **words)
    assert len(module.plan.groups) > 1
    ids = torch.stack([torch.arange(50) * 7 % size for size in SIZES], 1)
    many = [number for number, size in enumerate(SIZES) if size > 50]  # each row another id
    goal = torch.randn(50, len(many), 16, generator=torch.Generator().manual_seed(0)) * 0.1
    optimizer = bitfold.optim.LazyAdam(module.parameters(), lr=0.02)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = (module(ids)[:, many] - goal).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3
    served = module.serving()
    assert sum(each.nbytes for each in served.state_dict().values()) == module.plan.bytes
    torch.testing.assert_close(served(ids), module.eval()(ids))
    again = EmbeddingCollection.from_plan(bitfold.Plan.from_json(module.plan.to_json()))
    again.load_state_dict(module.state_dict())
    assert torch.equal(again.eval()(ids), module(ids))


def test_one_field_of_narrow_rows_is_a_layer_and_a_bag():
    layer = bitfold.Embedding(5000, 16, budget="10x")
    assert layer.plan.groups[0].method == "mixed-dimensions"
    assert layer(torch.tensor([[3, 4999]])).shape == (1, 2, 16)
    bag = bitfold.EmbeddingBag(5000, 16, budget="10x", mode="mean")
    ids = torch.tensor([3, 4999, 7])
    torch.testing.assert_close(
        bag(ids, torch.tensor([0])), bag(ids, torch.arange(3)).mean(0, keepdim=True)
    )


@pytest.mark.parametrize(
    ("budget", "bits", "every"),
    [(1_200_000, 32, True), ("2x", 8, True), ("4x", 8, False), ("100x", 8, False)],
)
def test_living_ids_own_rows_while_they_come(budget, bits, every):
    made, method, kept = chosen(HASHED, budget, living=True)
    assert (method, kept) == ("managed-collision", {bits})
    (owned,) = {lookups[0].source.ids for lookups in made.program.fields}
    assert (owned >= sum(SIZES)) == every
    assert made.groups[0].options["evict"] == ("lru" if every else "lfu")
    assert made.groups[0].options["every"] == 20
    assert f"{owned:,} of them have rows of their own at {bits} bits" in made.why[0]
    assert not any(each.name.startswith("map_") for each in made.groups[0].stored)


def test_living_is_for_hashed_ids_that_there_is_room_to_note():
    assert chosen(DENSE, "10x", living=True)[0].groups == chosen(DENSE, "10x")[0].groups
    unknown = [Field("user"), Field("item")]
    made, _, _ = chosen(unknown, 10_000_000, living=True)
    assert made.groups[0].options["every"] == made.program.fields[0][0].source.ids // 1000 > 100
    assert chosen(unknown, 20_000, living=True)[1] == "managed-collision"
    with pytest.raises(bitfold.BudgetTooSmall) as error:
        bitfold.plan(unknown, 16, budget=10, living=True)
    assert chosen(unknown, error.value.minimum, living=True)[1] == "binary-code"
    assert chosen(HASHED, "100x", living=True, bits=2)[2] == {2}
    with pytest.raises(BitfoldError, match="floats while they are trained"):
        bitfold.plan(HASHED, 16, budget="10x", living=True, low_precision=True)
