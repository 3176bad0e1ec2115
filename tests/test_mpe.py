"""MPE by hand: who prefers which precision, which a budget buys, what is stored and handed on."""

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfold import BitfoldError, BudgetTooSmall, Embedding, EmbeddingCollection, Field, plan
from bitfold.embedder.precision_search import PrecisionSearch, liking
from bitfold.embedder.precisions import GroupClasses, Precisions, groups_of, harmonic, zipf
from bitfold.fitting import fit
from bitfold.method.base import Phase
from bitfold.method.knapsack import knapsack
from bitfold.planning.plan import Plan
from bitfold.planning.statistics import Counted
from bitfold.pool.rounding import rounded, scales_of
from bitfold.training.lifecycle import Lifecycle
from bitfold.training.phases import ended, next_collection, stages

FIELDS = [Field("user", 600), Field("item", 400)]
SEARCH = Phase("search", 0.3)
COUNTS = Counted(
    {
        "user": (np.arange(550), 1 + (np.arange(550) * 7) % 551),
        "item": (np.arange(400), 1 + 4000 // (1 + np.arange(400))),
    }
)


def collection(budget="12x", **options):
    options = {"groups_each": 8, **options}
    return EmbeddingCollection(FIELDS, 8, method="mpe", budget=budget, seed=3, **options)


def all_ids():
    return torch.stack([torch.arange(600), torch.arange(600) % 400], 1)


def searched(steps=40, **options):
    made = collection(**options)
    life = Lifecycle(made)
    life.prepare(COUNTS)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.05)
    target = torch.randn(600, 2, 8, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        optimizer.zero_grad()
        (made(all_ids()) - target).square().mean().backward()
        optimizer.step()
        life.step()
    return made


def bits_read(part, ids):
    """The bits of each id's own number, from the values that its pool can have."""
    number, _ = part.stored.at(ids)
    return torch.tensor([0, *(spec.bits for spec in part.lengths)])[number]


def test_groups_and_frequencies_by_hand():
    assert groups_of([100, 2], 4, 2.0) == [6, 19, 31, 44, 1, 1]
    assert groups_of([10], 5, 1.0) == [2, 2, 2, 2, 2]
    # 1 + 1/2 + 1/3 is 11/6: the first id has 6/11 of its field, the others 5/22 each
    found = zipf([3, 1], [1, 2, 1])
    np.testing.assert_allclose(found, [6 / 11, 5 / 22, 1], rtol=2e-3)
    for number in (1, 2, 7, 100):
        exact = sum(1 / each for each in range(1, number + 1))
        assert harmonic(number) == pytest.approx(exact, rel=2e-3)


def test_preferences_by_hand():
    """Frequencies 16 apart, alpha 1: two bits. The rarest would have half a bit above the last."""
    bits = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 8.0])
    found = liking(torch.tensor([16.0, 1.0]), bits, 1.0)
    torch.testing.assert_close(found[1], 8.5 * bits - bits.square() / 2)
    torch.testing.assert_close(found[0], 10.5 * bits - bits.square() / 2)
    for price, best in ((0.0, [5, 5]), (4.4, [5, 4]), (6.7, [4, 2]), (9.2, [1, 0])):
        assert (found - price * bits).argmax(1).tolist() == best


def test_knapsack_by_hand():
    """The first group's two steps are worth 3 and 1 an id of two bytes, the second's 1 and .5."""
    values = np.array([[0.0, 3.0, 4.0], [0.0, 1.0, 1.5]])
    costs, ids = np.array([0.0, 2.0, 4.0]), np.array([1.0, 2.0])
    for limit, choice in (
        (0, [0, 0]), (2, [1, 0]), (3, [1, 0]), (4, [2, 0]), (6, [1, 1]), (8, [2, 1]), (12, [2, 2]),
    ):  # fmt: skip
        found = knapsack(values, costs, ids, limit)
        assert found is not None
        assert found[0].tolist() == choice
    assert knapsack(values, costs + 1, ids, 2) is None


@given(st.integers(0, 10_000), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_a_knapsack_fits_and_is_within_a_group_of_the_best(seed, limit):
    drawn = np.random.default_rng(seed)
    costs = np.array([0.0, 1.0, 2.0, 4.0])
    slopes = np.sort(drawn.random((4, 3)), 1)[:, ::-1] * np.diff(costs)
    values = np.concatenate([np.zeros((4, 1)), slopes.cumsum(1)], 1)  # each byte worth less
    ids = drawn.integers(1, 6, 4).astype(float)
    found = knapsack(values, costs, ids, limit)
    assert found is not None
    choice, price = found

    def worth(chosen):
        return sum(values[g, c] * ids[g] for g, c in enumerate(chosen))

    def weight(chosen):
        return sum(costs[c] * ids[g] for g, c in enumerate(chosen))

    assert weight(choice) <= limit
    every = [each for each in itertools.product(range(4), repeat=4) if weight(each) <= limit]
    assert worth(choice) >= max(map(worth, every)) - price * 4 * ids.max() - 1e-9


def test_classes_and_places_by_hand():
    classes = GroupClasses([2, 3, 1, 2], 2, 2)
    classes.put("classes", torch.tensor([2 | 1 << 2 | 2 << 4 | 3 << 6], dtype=torch.uint8))
    number, place = classes.at(torch.arange(8))
    assert number.tolist() == [2, 2, 1, 1, 1, 2, 0, 0]  # there is no class 3
    assert place.tolist() == [0, 1, 0, 1, 2, 2, 0, 1]


def test_a_plan_in_bytes_by_hand():
    # groups 4 + 4 ids and 1 + 1: 8 * 8 bits, 4 * 1 bit, none, 4 bits
    made = plan(
        [Field("a", 16), Field("b", 2)], 8, method="mpe", budget=300, groups_each=2, spread=1.0,
        chosen="8140",
    )  # fmt: skip
    rows = {pool.name: (pool.rows, pool.numbers) for pool in made.group.pools}
    assert rows == {
        "bits_1": (8, "q1"), "bits_4": (1, "q4"), "bits_8": (8, "q8"), "rest": (2, "q8"),
    }  # fmt: skip
    steps = 2 * 8 * 2  # centres and steps, float16, of 8 columns
    assert made.by_kind == {
        "weights": 8 * 1 + 1 * 4 + 8 * 8 + 2 * 8,
        "steps": 4 * steps,
        "pointers": 1,  # four classes of 2 bits
        "fingerprint": 8,
    }
    by_counts = plan(
        [Field("a", 16), Field("b", 2)], 8, method="mpe", budget=300, groups_each=2, spread=1.0,
        chosen="8140", order="counts",
    )  # fmt: skip
    assert by_counts.by_kind["pointers"] == 5  # of 18 ids, 2 bits each
    zeros = plan(
        [Field("a", 16), Field("b", 2)], 8, method="mpe", budget=300, groups_each=2, spread=1.0,
        chosen="8140", rest="zeros",
    )  # fmt: skip
    assert made.bytes - zeros.bytes == 2 * 8 + steps


def test_a_budget_that_holds_floats_keeps_them_and_least_bytes_are_said():
    assert plan(FIELDS, 8, method="mpe", budget=32_000).group.pools[0].name == "pool"
    with pytest.raises(BudgetTooSmall) as error:
        plan(FIELDS, 8, method="mpe", budget=10)
    least = plan(FIELDS, 8, method="mpe", budget=error.value.minimum)
    assert least.bytes == error.value.minimum
    with pytest.raises(BudgetTooSmall):
        plan(FIELDS, 8, method="mpe", budget=error.value.minimum - 1)


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=4),
    st.integers(1, 9),
    st.floats(0.02, 1.2),
    st.sampled_from(["ids", "counts"]),
    st.sampled_from(["shared", "zeros"]),
)
@settings(max_examples=40, deadline=None)
def test_plans_fit_and_return_from_json(sizes, dim, part, order, rest):
    fields = [Field(f"f{number}", size) for number, size in enumerate(sizes)]
    budget = max(1, int(4 * dim * sum(sizes) * part))
    options = {"method": "mpe", "order": order, "rest": rest, "groups_each": 6}
    try:
        made = plan(fields, dim, budget=budget, **options)
    except BudgetTooSmall as error:
        budget = error.minimum
        made = plan(fields, dim, budget=budget, **options)
    assert made.bytes <= budget
    assert Plan.from_json(made.to_json()) == made


def test_frequent_ids_have_more_bits():
    made = plan([Field("a", 2000), Field("b", 3)], 16, method="mpe", budget="10x", alpha=1.0)
    bits = [int(each) for each in made.group.options["chosen"]]
    of_a = bits[:-3]
    assert of_a == sorted(of_a, reverse=True)
    assert of_a[0] > of_a[-1]
    assert min(bits[-3:]) >= of_a[0]  # one of three ids is more frequent


def test_ids_read_the_numbers_of_their_precision():
    made = EmbeddingCollection(
        [Field("a", 16)], 4, method="mpe", budget=150, groups_each=4, spread=1.0, search=0.0,
        chosen="8120", std=1.0, seed=1,
    )  # fmt: skip
    part = made.embedder
    assert isinstance(part, Precisions)
    assert bits_read(part, torch.arange(16)).tolist() == [8] * 4 + [1] * 4 + [2] * 4 + [0] * 4
    found = made(torch.arange(16).unsqueeze(1))[:, 0]
    for name, bits, here in (("bits_8", 8, slice(0, 4)), ("bits_1", 1, slice(4, 8))):
        rows = part.get_submodule(name).weight.detach()
        torch.testing.assert_close(found[here], rounded(rows, *scales_of(rows, bits), bits))
    assert torch.equal(found[12:], found[12].expand(4, -1))
    assert not torch.equal(found[12], found[0])
    assert torch.equal(made.serving()(torch.arange(16).unsqueeze(1))[:, 0], found)


def test_rows_that_are_read_alone_have_gradients():
    """Nothing moves the first row of a pool for ids of others: its gradient would decay it."""
    made = EmbeddingCollection(
        [Field("a", 16)], 4, method="mpe", budget=150, groups_each=4, spread=1.0, search=0.0,
        chosen="8120", sparse=True,
    )  # fmt: skip
    made(torch.tensor([[5], [9]])).sum().backward()
    grads = {name: getattr(made.embedder, name).weight.grad for name in made.embedder.pool_names}
    touched = {name: each.coalesce().indices().tolist()[0] for name, each in grads.items()}
    assert touched == {"bits_8": [], "bits_1": [1], "bits_2": [1], "rest": []}


def test_a_mixture_by_hand():
    """Two ids of one group: probabilities of a softmax, and what each precision makes of a row."""
    made = EmbeddingCollection(
        [Field("a", 8)], 4, method="mpe", budget=100, groups_each=1, lean=1.0, chosen="2", seed=2,
        std=1.0,
    )  # fmt: skip
    part = made.embedder
    assert isinstance(part, PrecisionSearch)
    assert part.widths == (1, 2, 3, 4, 8)  # nobody has 0 bits in the plan
    wishes = torch.tensor([0.3, -0.2, 0.5, 0.0, 0.1])
    with torch.no_grad():
        part.wishes[0] = wishes
    part.find_price()
    bits = torch.tensor([1.0, 2, 3, 4, 8])
    costs = torch.tensor([1.0, 1, 2, 2, 4])  # bytes of four numbers
    price = float(part.stored.named()["price"].view(torch.float32))
    logits = 8.5 * bits - bits.square() / 2 + wishes - price * costs
    share = torch.softmax(logits / 0.5, 0)
    assert float((share * costs).sum()) * 8 == pytest.approx(8, rel=1e-3)  # the plan's bytes
    row = part.numbers()[3]
    centre, deviation = part.stored.named()["scales"].view(torch.float32).reshape(2, 1, 4)[:, 0]
    expected = torch.zeros(4)
    for each, width in zip(share, part.widths, strict=True):
        step = deviation * {1: 1.596, 2: 0.996, 3: 0.586, 4: 0.335, 8: 0.0308}[width]
        expected += each * rounded(row, centre, step, width)
    torch.testing.assert_close(made(torch.tensor([[3]]))[0, 0], expected, atol=2e-3, rtol=2e-3)


def test_gradients_are_those_of_the_softmax_and_straight_through_the_rounding():
    made = EmbeddingCollection(
        [Field("a", 8)], 4, method="mpe", budget=100, groups_each=1, lean=0.5, chosen="2", std=1.0
    )
    part = made.embedder
    toward = torch.tensor([1.0, -2.0, 3.0, 0.5])
    (made(torch.tensor([[3]]))[0, 0] * toward).sum().backward()
    torch.testing.assert_close(part.get_submodule("rows").weight.grad[3], toward)
    exact = part.wishes.grad.clone()
    for number in range(5):  # the mixture is smooth in the wishes
        found = []
        for turn in (1e-2, -1e-2):
            with torch.no_grad():
                part.wishes[0, number] += turn
                found.append(float((made(torch.tensor([[3]]))[0, 0] * toward).sum()))
                part.wishes[0, number] -= turn
        slope = (found[0] - found[1]) / 2e-2
        assert float(exact[0, number]) == pytest.approx(slope, abs=2e-3)


def test_the_penalty_is_the_gradient_of_mean_bits():
    made = collection(penalty=0.7, lean=1.0, budget="20x")
    part = made.embedder
    made(all_ids()).sum().mul(0).backward()
    wishes = part.wishes.detach().clone().requires_grad_()
    share = torch.softmax(wishes / 0.5, 1)
    parts = torch.tensor(part.group_sizes) / part.total
    (0.7 * (share @ part.bits * parts).sum()).backward()
    torch.testing.assert_close(part.wishes.grad, wishes.grad)


def test_learned_steps_have_the_gradient_of_levels():
    made = EmbeddingCollection(
        [Field("a", 8)], 4, method="mpe", budget=100, groups_each=1, chosen="1", steps="learned",
        std=1.0,
    )  # fmt: skip
    part = made.embedder
    made(torch.tensor([[3]]))[0, 0].sum().backward()
    share = part.probabilities()[0, 0].detach()
    row = part.numbers()[3]
    centre, deviation = part.stored.named()["scales"].view(torch.float32).reshape(2, 1, 4)[:, 0]
    step = deviation * 1.596
    exact = (row - centre) / step
    level = torch.where(exact >= 0, 0.5, -0.5)
    expected = (share * step * (level - torch.where(exact.abs() <= 0.5, exact, 0.0))).sum()
    torch.testing.assert_close(part.stretch.grad[0], expected, atol=1e-3, rtol=1e-3)


def test_the_search_ends_in_a_plan_within_its_bytes_and_hands_rows_on():
    made = searched(lean=1.0)
    assert [stage.phase.name for stage in stages(made.plan, 10)] == ["search", "retrain"]
    found = ended(made, SEARCH)
    assert found.bytes <= made.plan.bytes
    assert found.group.options["chosen"] != made.plan.group.options["chosen"]
    retrain = Phase("retrain", 0.7)
    after = next_collection(made, found, retrain, seed=3)
    part, rows = after.embedder, made.embedder.numbers()
    assert isinstance(part, Precisions)
    number, place = part.stored.at(torch.arange(1000))
    for each, pool in enumerate(part.by_class(), 1):
        here = number == each
        torch.testing.assert_close(pool.weight.detach()[place[here]], rows[here])
    fresh = next_collection(collection(retrain="fresh", lean=1.0), found, retrain, seed=3)
    assert fresh.plan == found


def test_by_counts_frequent_ids_have_more_bits_wherever_they_stand():
    made = collection("4x", order="counts", search=0.0, chosen="8442211088442211")
    Lifecycle(made).prepare(COUNTS)
    bits = bits_read(made.embedder, torch.arange(600))  # of users
    counts = torch.from_numpy(COUNTS.counts("user", np.arange(600)))
    falling = bits[counts.argsort(descending=True, stable=True)].tolist()
    assert falling == sorted(falling, reverse=True)
    assert bits.tolist() != falling
    again = copy.deepcopy(made)
    again.train()(all_ids())  # a forward of training: rows have begun to move
    every = np.arange(600), 1 + np.arange(600)
    Lifecycle(again).prepare(Counted({"user": every, "item": every}))
    assert torch.equal(bits_read(again.embedder, torch.arange(600)), bits)


def test_the_order_of_a_search_is_handed_on():
    made = collection("4x", order="counts", chosen="8442211088442211")
    Lifecycle(made).prepare(COUNTS)
    plan = replace(made.plan, phase="search")
    after = next_collection(made, plan, Phase("retrain", 0.7), seed=3)
    ranks = made.embedder.ending_rows()[0]
    assert not torch.equal(ranks, torch.arange(1000))
    chosen = torch.tensor(after.embedder.chosen)[made.embedder.groups_at(ranks)]
    assert torch.equal(after.embedder.stored.all(), chosen)


def test_what_is_learned_counts_by_its_weight():
    made = collection(lean=0.25)
    before = made.embedder.preferences().detach()
    with torch.no_grad():
        made.embedder.wishes += 2.0
    torch.testing.assert_close(made.embedder.preferences() - before, torch.full_like(before, 0.5))


@pytest.mark.parametrize("budget", [1300, 1700, 2667, 4000, 6000])
def test_a_plan_leaves_little_of_its_budget(budget):
    made = plan(FIELDS, 8, method="mpe", budget=budget)
    assert budget - made.bytes < 100  # a pool's own bytes, or an id more of a late group


def test_serving_a_search_has_the_plans_bytes():
    made = searched()
    served = made.serving()
    size = sum(each.nbytes for each in served.state_dict().values())
    assert size == sum(made.embedder.bytes("serving").values()) == made.plan.bytes
    again = served.resume()
    torch.testing.assert_close(again(all_ids()), served(all_ids()))


def test_rows_of_unseen_ids_are_means():
    made = collection(search=0.0, budget="10x")
    life = Lifecycle(made, epochs=1)
    life.prepare(COUNTS)
    made.train()(all_ids())
    life.epoch_ended()
    part = made.embedder
    rows = [
        part.get_submodule(f"bits_{bits}").weight.detach()[int(place)]
        for bits, place in zip(
            bits_read(part, torch.arange(550, 600)), part.stored.at(torch.arange(550, 600))[1],
            strict=True,
        )
    ]  # fmt: skip
    with torch.no_grad():
        mean = made(all_ids())[:550, 0].double().mean(0).float()
    for row in rows:
        torch.testing.assert_close(row, mean, atol=2e-3, rtol=2e-2)


def test_a_trained_table_is_fitted():
    made = EmbeddingCollection([Field("a", 50)], 8, method="mpe", budget="5x", search=0.0)
    table = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    fit(made.embedder, [table])
    read = made(torch.arange(50).unsqueeze(1))[:, 0].detach()
    assert float((read - table).square().mean() / table.square().mean()) < 0.2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bits": 4}, "bits of its own"),
        ({"map": True}, "map"),
        ({"groups_each": 0}, "groups_each"),
        ({"spread": 0.0}, "spread"),
        ({"alpha": -0.1}, "alpha"),
        ({"temperature": 0.0}, "temperature"),
        ({"lean": -1.0}, "lean"),
        ({"penalty": -1.0}, "penalty"),
        ({"search": 1.0}, "search"),
        ({"chosen": "57"}, "chosen"),
        ({"chosen": "000"}, "chosen"),
        ({"chosen": "81"}, "chosen"),
        ({"order": "names"}, "order"),
        ({"low_precision": True}, "float"),
    ],
)
def test_mistakes_are_named(options, said):
    with pytest.raises(BitfoldError, match=said):
        plan(FIELDS, 8, method="mpe", budget="12x", **options)


def test_good_options_beside_the_bad():
    for options in ({"alpha": 0.0}, {"lean": 0.0}, {"penalty": 0.0}, {"search": 0.0}):
        assert plan(FIELDS, 8, method="mpe", budget="12x", **options).bytes <= 2667
    with pytest.raises(BitfoldError, match="hashed"):
        plan([Field("a", distinct=100)], 8, method="mpe", budget=300)


def test_one_field_alone():
    layer = Embedding(50, 8, method="mpe", budget="12x", search=0.0)
    assert layer(torch.tensor([1, 49])).shape == (2, 8)
