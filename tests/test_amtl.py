"""AMTL by hand: what twins score, which lengths a budget buys, what is stored and handed on."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfold import BitfoldError, BudgetTooSmall, Embedding, EmbeddingCollection, Field, plan
from bitfold.address.stored import pack_bits
from bitfold.embedder.prefixes import Classes, Prefixes
from bitfold.embedder.twins import PrefixSearch, fitting
from bitfold.fitting import fit
from bitfold.method.base import Phase
from bitfold.planning.statistics import Counted
from bitfold.training.lifecycle import Lifecycle
from bitfold.training.phases import ended, next_collection, stages

FIELDS = [Field("user", 60), Field("item", 40)]
SEARCH, TRAIN = Phase("search", 0.5), Phase("train", 0.5)
COUNTS = Counted(
    {
        "user": (np.arange(55), 1 + (np.arange(55) * 7) % 55),
        "item": (np.arange(40), 1 + 400 // (1 + np.arange(40))),
    }
)


def collection(budget="4x", **options):
    options = {"alpha": 1.0, **options}
    return EmbeddingCollection(FIELDS, 8, method="amtl", budget=budget, seed=3, **options)


def all_ids():
    return torch.stack([torch.arange(60), torch.arange(60) % 40], 1)


def searched(**options):
    """A collection whose twins have been trained for some steps to want odd ids."""
    made = collection(**options)
    life = Lifecycle(made)
    life.prepare(COUNTS)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.05)
    ids = all_ids()
    target = torch.randn(60, 2, 8, generator=torch.Generator().manual_seed(1))
    for _ in range(60):
        optimizer.zero_grad()
        (made(ids) - target).square().mean().backward()
        optimizer.step()
        life.step()
    return made


def test_lengths_masks_and_bytes_by_hand():
    """Prices at which ids shorten their rows: 2, 4, 12; .2, 2, 8; .2, .4, 4."""
    scores = torch.tensor(
        [[0, 3.0, 4.0, 5.0], [0, 2.0, 2.5, 2.6], [0, 1.0, 1.1, 1.2]], dtype=torch.float64
    )
    widths, costs = torch.tensor([0, 0.25, 0.5, 1]).double(), torch.tensor([0, 4, 8, 16])
    for limit, price, lengths in (
        (1000, None, [3, 3, 3]),  # 48 bytes
        (28, 0.4, [3, 2, 1]),
        (24, 2, [3, 1, 1]),  # at 2 two ids shorten: 16 bytes, and 8 for the first of them
        (23, 2, [2, 2, 1]),  # 8 bytes are no more left: 4 for the second
        (11, 4, [1, 1, 0]),
        (4, 8, [1, 0, 0]),
        (3, 12, [0, 0, 0]),
    ):
        found = fitting(scores, widths, costs, limit)
        assert found[1].tolist() == lengths
        assert price is None or found[0] == pytest.approx(price)
        assert limit == 1000 or int(costs[found[1]].sum()) <= limit


def test_classes_and_places_by_hand():
    classes = Classes(6, 2, 2)
    classes.put("classes", pack_bits(torch.tensor([2, 1, 0, 1, 2, 3]), 2))
    assert classes.state_dict()["classes"].tolist() == [2 | 1 << 2 | 1 << 6, 2 | 3 << 2]
    number, place = classes.at(torch.arange(6))
    assert number.tolist() == [2, 1, 0, 1, 2, 0]  # there is no class 3
    assert place.tolist() == [0, 0, 0, 1, 1, 0]


def test_scores_by_hand():
    """Two ids of one field, which occur 8 times and twice: log 4 apart, ranks 0 and 1."""
    made = EmbeddingCollection(
        [Field("a", 2)], 4, method="amtl", budget=31, rest="zeros", alpha=1.0
    )
    part = made.embedder
    assert isinstance(part, PrefixSearch)
    assert part.widths == (0, 1, 2, 4)
    part._tell(torch.tensor([8.0, 2.0]))
    torch.testing.assert_close(
        part.features, torch.tensor([[0, 1.0, 0], [-math.log(4), -1.0, 1.0]])
    )
    with torch.no_grad():
        part.twins.first.zero_()
        part.twins.first[0, 0] = torch.tensor([2.0, 1.0])  # frequent: relu(2 z + rank)
        part.twins.first[1, 1] = torch.tensor([-1.0, 3.0])  # rare: relu(-z + 3 rank)
        part.twins.last[0, 2, 0], part.twins.last[1, 3, 1] = 0.5, 0.25
        part.twins.shift[0, 1] = -1.0
    a = [1 / (1 + math.exp(-z)) for z in (1, -1)]
    prior = [[v * math.sqrt(x) for x in (0, 0.25, 0.5, 1)] for v in (1, 0.5)]
    twins = [
        [0, -a[0], a[0] * 0.5 * 2, 0],  # 2 * 1 + 0; relu(-1)
        [0, -a[1], 0, (1 - a[1]) * 0.25 * 4],  # relu(-2 + 1); 1 + 3
    ]
    expected = torch.tensor(prior) + torch.tensor(twins)
    torch.testing.assert_close(part.scores(part.features), expected)
    # .5 - .73, .71 + .73, 1 less the price; .25 - .27, .35, .5 + .73 less the price
    for price, lengths in ((0.0, [2, 4]), (1.3, [2, 0]), (1.6, [2, 0]), (3.0, [0, 0])):
        part.stored.put("price", torch.tensor([price]).view(torch.uint8))
        rows = part.get_submodule("rows").weight
        masks = torch.arange(4) < torch.tensor(lengths).unsqueeze(1)
        assert torch.equal(made(torch.tensor([[0], [1]])).squeeze(1), rows * masks)


def test_the_gradient_goes_straight_through_the_choice():
    made = EmbeddingCollection([Field("a", 5)], 4, method="amtl", budget="2x", rest="zeros")
    part = made.embedder
    ids = torch.tensor([[1]])
    toward = torch.tensor([1.0, -2.0, 3.0, 0.5])
    (made(ids)[0, 0] * toward).sum().backward()
    x = torch.tensor(part.widths) / 4
    soft = torch.softmax((part.scores(part.features[1]) - part.price * x) / 0.2, 0).detach()
    row = part.get_submodule("rows").weight[1].detach()
    gains = torch.tensor([float((row * toward)[:width].sum()) for width in part.widths])
    by_logit = soft * (gains - (soft * gains).sum()) / 0.2
    a = torch.sigmoid(part.features[1, 1])
    expected = torch.stack([a * by_logit, (1 - a) * by_logit])
    torch.testing.assert_close(part.twins.shift.grad, expected)


def test_a_plan_in_bytes_by_hand():
    made = plan(FIELDS, 8, method="amtl", budget="4x", alpha=1.0)
    rows = {pool.name: pool.rows for pool in made.group.pools}
    assert [*rows] == ["length_2", "length_4", "length_8", "rest"]
    numbers = 2 * rows["length_2"] + 4 * rows["length_4"] + 8 * rows["length_8"] + 2 * 8
    assert made.by_kind == {"weights": 4 * numbers, "pointers": 100 * 2 // 8, "fingerprint": 8}
    assert 800 - 8 < made.bytes <= 800  # an id more, of two numbers, does not fit
    assert plan(FIELDS, 8, method="amtl", budget=3200).group.pools[0].name == "pool"
    for options, least in (
        ({}, 8 + 13 + 4 * (2 + 16)),  # a bit an id
        ({"rest": "zeros"}, 8 + 13 + 4 * 2),
        ({"rest": "zeros", "lengths": "every"}, 8 + 13 + 4),
    ):
        with pytest.raises(BudgetTooSmall) as error:
            plan(FIELDS, 8, method="amtl", budget=1, **options)
        assert error.value.minimum == least
        assert plan(FIELDS, 8, method="amtl", budget=least, **options).bytes == least


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=4),
    dim=st.integers(1, 20),
    ratio=st.floats(1, 60),
    lengths=st.sampled_from(["halves", "every"]),
    rest=st.sampled_from(["shared", "zeros"]),
    alpha=st.floats(0.05, 2),
    bits=st.sampled_from([None, 8, 3]),
)
def test_no_plan_is_above_its_budget(sizes, dim, ratio, lengths, rest, alpha, bits):
    fields = [Field(f"f{number}", size) for number, size in enumerate(sizes)]
    budget = max(1, int(sum(sizes) * dim * 4 / ratio))
    options = {"lengths": lengths, "rest": rest, "alpha": alpha, "bits": bits}
    try:
        made = plan(fields, dim, method="amtl", budget=budget, **options)
    except BudgetTooSmall as error:
        budget = error.minimum
        made = plan(fields, dim, method="amtl", budget=budget, **options)
    assert made.bytes <= budget
    module = EmbeddingCollection.from_plan(made, seed=0)
    served = module.embedder.serving()
    assert sum(served.bytes("serving").values()) == made.bytes
    if made.group.fusion == "own":
        assert sum(each.nbytes for each in served.state_dict().values()) == made.bytes
    after = ended(module, SEARCH) if made.group.fusion == "own" else made
    assert after.bytes <= made.bytes


def test_frequent_ids_have_the_longer_rows():
    made = collection()
    made.embedder.prepare(COUNTS)
    classes = made.serving().embedder.stored.all()
    for field, found in zip(FIELDS, torch.split(classes, [60, 40]), strict=True):
        counts = torch.from_numpy(COUNTS.counts(field.name, np.arange(len(found))))
        order = counts.argsort(descending=True, stable=True)
        assert (found[order].diff() <= 0).all()
        assert found[order[0]] > found[order[-1]]
    assert classes[55:60].tolist() == [0] * 5  # never met


def test_what_is_found_is_trained_on():
    first = searched()
    part = first.embedder
    made = ended(first, SEARCH)
    assert made.phase == "search"
    assert first.plan.bytes - 16 <= made.bytes <= first.plan.bytes
    after = next_collection(first, made, TRAIN, seed=3)
    assert isinstance(after.embedder, Prefixes)
    lengths = torch.tensor(part.widths)[part.ending()]
    rows, rest = part.numbers(), part.shared_rows()
    masked = rows * (torch.arange(8) < lengths.unsqueeze(1))
    for field, (begin, size) in enumerate(((0, 60), (60, 40))):
        here = masked[begin : begin + size].clone()
        here[lengths[begin : begin + size] == 0] = rest[field]
        assert torch.equal(after(all_ids())[:size, field], here)
    served = after.serving()
    assert torch.equal(served(all_ids()), after(all_ids()))
    again = EmbeddingCollection.from_plan(made).serving()
    again.load_state_dict(served.state_dict())
    assert torch.equal(again(all_ids()), after(all_ids()))
    assert torch.equal(served.resume()(all_ids()), after(all_ids()))


def test_a_search_serves_what_its_plan_says():
    made = searched()
    assert not made.embedder.exact
    served = made.serving()
    classes = torch.bincount(served.embedder.stored.all(), minlength=4).tolist()
    assert classes[1:] == [pool.rows for pool in made.plan.group.pools[:3]]
    again = EmbeddingCollection.from_plan(made.plan).serving()
    again.load_state_dict(served.state_dict())
    assert torch.equal(again(all_ids()), served(all_ids()))


def test_the_lengths_found_follow_what_was_learned():
    """Twins that are told to want rare ids alone give them the rows."""
    made = collection("10x", rest="zeros")
    part = made.embedder
    part.prepare(COUNTS)
    with torch.no_grad():
        part.twins.first.zero_()
        part.twins.first[:, 0, 1] = 1.0  # the rank
        part.twins.last[:, 1:, 0] = 50.0
    part.maintain(None)
    items = part.ending()[60:]
    assert items[-1] > 0
    assert items[1] == 0


@pytest.mark.parametrize(
    "options", [{}, {"rest": "zeros", "lengths": "every"}, {"bits": 4, "budget": "12x"}]
)
def test_the_second_phase_is_an_embedder_as_others_are(options):
    first = searched(**options)
    made = next_collection(first, ended(first, SEARCH), TRAIN, seed=3)
    ids = all_ids()
    offsets = torch.arange(0, 121, 3)
    flat = torch.cat([ids[:, 0], ids[:, 1]])
    expected = made(ids)
    bags = made(flat, offsets)
    torch.testing.assert_close(bags[:, 0], expected[:, 0].reshape(20, 3, 8).mean(1))
    assert torch.equal(copy.deepcopy(made)(ids), expected)
    assert made.double()(ids).dtype == torch.float64
    made = made.float()
    one = EmbeddingCollection.from_plan(made.plan, seed=5, sparse=True)
    one.load_state_dict(made.state_dict())
    assert torch.equal(one(ids), expected)
    one(ids).square().sum().backward()
    made(ids).square().sum().backward()
    for mine, theirs in zip(one.parameters(), made.parameters(), strict=True):
        assert mine.grad.is_sparse
        torch.testing.assert_close(mine.grad.to_dense(), theirs.grad)
    empty = EmbeddingCollection.from_plan(made.plan, device="meta").to_empty(device="cpu")
    empty.load_state_dict(made.state_dict())
    assert torch.equal(empty(ids), expected)
    part = made.embedder.serving()
    sizes = [tensor.nbytes for tensor in part.state_dict().values()]
    assert sum(sizes) == sum(part.bytes("serving").values()) == made.plan.bytes


def test_its_gradients_are_derivatives():
    first = searched(rest="zeros")
    made = next_collection(first, ended(first, SEARCH), TRAIN, seed=3).double()
    names, values = zip(*made.named_parameters(), strict=True)
    drawn = [value.detach().clone().requires_grad_() for value in values]

    def vectors(*parameters):
        named = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(made, named, (all_ids(),))

    assert torch.autograd.gradcheck(vectors, drawn, fast_mode=True)


def test_shared_rows_that_nothing_reads_are_the_mean():
    """At a budget that buys every seen id a row."""
    first = collection("1.5x", alpha=0.1)
    first.embedder.prepare(COUNTS)
    made = next_collection(first, ended(first, SEARCH), TRAIN, seed=3)
    life = Lifecycle(made)
    life.prepare(COUNTS)
    life.epoch_ended()
    vectors = made(all_ids())[:, 0]
    torch.testing.assert_close(vectors[57], vectors[:55].mean(0))


def test_trained_rows_are_taken_as_far_as_their_lengths_reach():
    table = torch.randn(200, 8)
    counts = torch.arange(200)
    layer = Embedding.from_pretrained(
        table, method="amtl", budget="4x", counts=counts, freeze=False
    )
    rows = layer.serving()(torch.arange(200))
    classes = layer.serving().embedder.stored.all()
    for number, width in enumerate((2, 4, 8), 1):
        here = classes == number
        assert torch.equal(rows[here, :width], table[here, :width])
        assert not rows[here, width:].any()
    assert (classes[150:] > 0).all()
    first = searched()
    made = next_collection(first, ended(first, SEARCH), TRAIN, seed=3)
    tables = [torch.randn(60, 8), torch.randn(40, 8)]
    fit(made.embedder, tables)
    vectors, classes = made(all_ids()), made.embedder.stored.all()[:60]
    assert torch.equal(vectors[:, 0][classes == 3], tables[0][classes == 3])
    lost = tables[0][classes == 0].mean(0).expand(int((classes == 0).sum()), -1)
    torch.testing.assert_close(vectors[:, 0][classes == 0], lost)


def test_the_phases_share_the_epochs():
    made = plan(FIELDS, 8, method="amtl", budget="4x", search=0.25)
    assert [(each.phase.name, each.until) for each in stages(made, 8)] == [
        ("search", 2),
        ("train", 8),
    ]
    whole = plan(FIELDS, 8, method="amtl", budget="1x")
    assert [each.phase.name for each in stages(whole, 8)] == [""]


def test_twins_that_broke_leave_the_plan_as_it_was():
    made = collection()
    with torch.no_grad():
        made.embedder.twins.shift.fill_(float("nan"))
    made.embedder.maintain(None)
    found = ended(made, SEARCH)
    assert [pool.rows for pool in found.group.pools] == [p.rows for p in made.plan.group.pools]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search": 1.0}, "search is out of range"),
        ({"alpha": 0.0}, "alpha is out of range"),
        ({"temperature": 0.0}, "temperature is out of range"),
        ({"temperature": math.nan}, "temperature is out of range"),
        ({"lengths": "thirds"}, "lengths"),
        ({"rest": "ones"}, "rest"),
        ({"map": True}, "class for each dense id"),
        ({"low_precision": True, "bits": 4}, "floats while they are trained"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(BitfoldError, match=message):
        plan(FIELDS, 8, method="amtl", budget="4x", **options)


def test_fields_that_cannot_be():
    with pytest.raises(BitfoldError, match="cannot take hashed ids"):
        plan([Field("query", distinct=100)], 8, method="amtl", budget="4x")
    with pytest.raises(BitfoldError, match="needs a budget"):
        plan(FIELDS, 8, method="amtl")


def test_planning_takes_no_table():
    """Ids are added up by ranks: a billion of them are planned at once."""
    made = plan([Field("a", 10**9), Field("b", 3)], 16, method="amtl", budget="10x")
    assert 0.999 * made.budget < made.bytes <= made.budget
