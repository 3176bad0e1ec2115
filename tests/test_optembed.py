"""OptEmbed by hand: who is above a threshold, what a budget buys, how widths are found."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfold import BitfoldError, BudgetTooSmall, EmbeddingCollection, Field, plan
from bitfold.embedder.contract import Progress
from bitfold.embedder.evolving import evolved
from bitfold.embedder.kept_rows import KeptRows, RowPools
from bitfold.embedder.row_search import Raised, kept_or_not
from bitfold.planning.kept import index_of
from bitfold.planning.statistics import Counted
from bitfold.training.phases import ended, next_collection, stages

FIELDS = [Field("user", 60), Field("item", 40)]
COUNTS = Counted({"user": (np.arange(55), np.ones(55)), "item": (np.arange(40), np.ones(40))})


def collection(fields=FIELDS, dim=4, **options):
    options = {"budget": 700, "seed": 3, **options}
    return EmbeddingCollection(fields, dim, method="optembed", **options)


def all_ids():
    return torch.stack([torch.arange(60), torch.arange(60) % 40], 1)


def by_hand(ids=2, **options):
    """Two fields, width 2; norms 3, .5 and 1, 2, then 0; thresholds 1 and 1.5."""
    options = {"budget": 29, **options}
    made = collection([Field("a", 2), Field("b", ids)], 2, **options)
    part = made.embedder
    with torch.no_grad():
        part.rows.weight.zero_()
        part.rows.weight[:4] = torch.tensor([[1.0, -2], [0.5, 0], [0, 1], [1, 1]])
        part.thresholds.copy_(torch.tensor([1.0, 1.5]))
    return made


def test_rows_below_their_threshold_are_not_read():
    ids = torch.tensor([[0, 0], [1, 1]])
    zeros = by_hand(rest="zeros")
    assert zeros(ids).tolist() == [[[1, -2], [0, 0]], [[0, 0], [1, 1]]]
    # 3 - 1, .5 - 1, 1 - 1.5, 2 - 1.5
    assert zeros.embedder.order().tolist() == [0, 3, 1, 2]
    served = zeros.serving()
    assert served.embedder.kept_rows.weight.tolist() == [[1, -2], [1, 1]]
    assert served.state_dict()["embedder.stored.index"].tolist() == [0b1001]
    assert torch.equal(served(ids), zeros(ids))
    # 8 bytes of fingerprint, 16 of shared rows, 3 of index, 8 a row.
    shared = by_hand(20, budget=43)
    assert torch.equal(shared(ids), zeros(ids))
    means = torch.tensor([[0.5, 0], [0, 1 / 19]])
    expected = torch.stack([torch.tensor([[1.0, -2], means[1].tolist()]), torch.ones(2, 2)])
    expected[1, 0] = means[0]
    torch.testing.assert_close(shared.serving()(ids), expected)


def test_who_comes_first_by_use():
    """Margins 2, -.5, -.5, .5; the last occurs five times, and 2 * 1 is less than .5 * 5."""
    counts = Counted({"a": ([0, 1], [1, 9]), "b": ([0, 1], [0, 5])})
    for rank, order in (("use", [3, 0, 1, 2]), ("margin", [0, 3, 1, 2])):
        part = by_hand(rest="zeros", rank=rank).embedder
        part.prepare(counts)
        assert part.order().tolist() == order


def test_the_gradient_goes_to_rows_and_thresholds_near_the_border():
    made = by_hand(rest="zeros")
    made(torch.tensor([[1, 1]])).sum().backward()
    # id 1 of a: -.5 above, slope .4, and its row's sum .5; id 1 of b: .5 above, .4 * 2
    part = made.embedder
    torch.testing.assert_close(part.thresholds.grad, torch.tensor([-0.4 * 0.5, -0.4 * 2]))
    rows = part.rows.weight.grad
    # the gate's slope times the sign of each number; a row that is read has its own 1 beside
    torch.testing.assert_close(rows[1], torch.tensor([0.4 * 0.5, 0.0]))
    torch.testing.assert_close(rows[3], 1 + torch.tensor([0.8, 0.8]))
    assert not rows[[0, 2]].any()


@given(st.floats(-3, 3))
def test_the_slope_is_that_of_the_paper(x):
    number = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    kept_or_not(number).backward()
    a = abs(x)
    slope = 2 - 4 * a if a <= 0.4 else 0.4 if a <= 1 else 0.0
    assert kept_or_not(number).item() == float(x > 0)
    assert number.grad.item() == pytest.approx(slope, abs=1e-6)


def test_the_penalty_joins_once_a_training_is_prepared():
    limits = torch.tensor([0.0, 1.0], requires_grad=True)
    found = Raised.apply(limits, 0.5)
    assert torch.equal(found, limits)
    (2 * found).sum().backward()
    torch.testing.assert_close(limits.grad, 2 - 0.5 * torch.tensor([1.0, 1 / np.e]).float())
    made = collection(alpha=0.5)
    ids = torch.tensor([[0, 0]])
    made(ids).sum().backward()
    before = made.embedder.thresholds.grad.clone()
    made.zero_grad()
    made.embedder.prepare(COUNTS)
    made(ids).sum().backward()
    torch.testing.assert_close(made.embedder.thresholds.grad, before - 0.5)


@given(st.data())
def test_an_index_tells_who_has_a_row(data):
    sizes = data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=4))
    kept = [sorted(data.draw(st.sets(st.integers(0, size - 1)))) for size in sizes]
    if not any(kept):
        kept[0] = [0]
    numbers, pools = [], 0
    for each in kept:
        pools += bool(each)
        numbers.append(pools if each else 0)
    classes = torch.cat(
        [
            torch.zeros(size, dtype=torch.int64).index_fill(0, torch.tensor(each).long(), number)
            for size, each, number in zip(sizes, kept, numbers, strict=True)
        ]
    )
    rows = KeptRows(sizes, numbers, sum(map(len, kept)))
    rows.write(classes)
    assert torch.equal(rows.all(), classes)
    number, place = rows.at(torch.arange(sum(sizes)))
    assert torch.equal(number, classes)
    for each in set(numbers) - {0}:
        assert place[number == each].tolist() == list(range(int((number == each).sum())))
    again = KeptRows(sizes, numbers, sum(map(len, kept)))
    again.load_state_dict(rows.state_dict())
    assert torch.equal(again.all(), classes)


def test_a_damaged_index_is_refused():
    made = collection(widths="one").serving()
    state = made.state_dict()
    state["embedder.stored.index"] = torch.zeros_like(state["embedder.stored.index"])
    with pytest.raises(BitfoldError, match="damaged"):
        made.load_state_dict(state)


def test_the_budget_buys_rows_and_their_index():
    for rest, shared in (("zeros", 0), ("shared", 32)):
        for budget in (200, 700, 1300):
            made = plan(FIELDS, 4, method="optembed", budget=budget, rest=rest)
            rows = made.group.pools[0].rows
            assert made.bytes == 16 * rows + index_of(100, rows).bytes + shared + 8 <= budget
            assert 16 * (rows + 1) + index_of(100, rows + 1).bytes + shared + 8 > budget
    assert plan(FIELDS, 4, method="optembed", budget=1600).group.pools[0].name == "pool"
    with pytest.raises(BudgetTooSmall) as error:
        plan(FIELDS, 4, method="optembed", budget=1)
    least = error.value.minimum
    assert plan(FIELDS, 4, method="optembed", budget=least).bytes == least


def test_what_was_found_is_trained_from_its_initial_values():
    first = collection(rank="margin")
    part = first.embedder
    initial = part.rows.weight.detach().clone()
    part.prepare(COUNTS)
    with torch.no_grad():
        part.rows.weight.add_(torch.randn(100, 4))
        part.rows.weight[55:60] = 99.0  # of users that training lacks
        part.thresholds.copy_(torch.tensor([1.0, 0.5]))
    above = part.rows.weight.detach().abs().sum(1)
    above[:60] -= 1.0
    above[60:] -= 0.5
    above[55:60] = -100
    rows = part.lengths[0].rows
    best = above.argsort(descending=True)[:rows].sort().values
    search, retrain = stages(first.plan, 4)
    made = ended(first, search.phase)
    assert made.bytes == first.plan.bytes
    second = next_collection(first, made, retrain.phase, seed=3)
    after = second.embedder
    assert isinstance(after, RowPools)
    assert torch.equal(after.kept_rows.weight, initial[best])
    has = torch.zeros(100, dtype=torch.bool)
    has[best] = True
    vectors = second(all_ids())
    for column, base, size in ((0, 0, 60), (1, 60, 40)):
        for number in range(size):
            expected = initial[base + number] if has[base + number] else after.rest.weight[column]
            assert torch.equal(vectors[number, column], expected)
    assert torch.equal(second.serving()(all_ids()), vectors)
    assert torch.equal(second.serving().resume()(all_ids()), vectors)


def test_fewer_ids_than_rows_leave_bytes():
    first = collection(budget=1300)
    few = Counted({"user": (np.arange(9), np.ones(9)), "item": (np.arange(4), np.ones(4))})
    first.embedder.prepare(few)
    made = ended(first, stages(first.plan, 4)[0].phase)
    assert made.group.pools[0].rows == 13
    assert made.bytes < first.plan.bytes


@pytest.mark.parametrize("options", [{}, {"bits": 4, "budget": 150}, {"rest": "zeros"}])
def test_widths_are_found_within_the_budget(options):
    first = collection(widths="search", candidates=20, **options)
    part = first.embedder
    with torch.no_grad():
        part.rows.weight.add_(torch.randn(100, 4))
    judged = []

    def judge():
        """Best at widths 2 and 3, and the more rows the better."""
        widths, kept, _ = part.trial
        judged.append(tuple(widths.tolist()))
        vectors = first(all_ids())
        here = kept[:60]
        assert torch.equal(vectors[here, 0, : widths[0]], part.numbers()[:60][here, : widths[0]])
        assert not vectors[here, 0, widths[0] :].any()
        return -float((widths - torch.tensor([2, 3])).abs().sum()) + int(kept.sum()) / 1000

    part.decide(judge)
    assert judged[0] == (4, 4)
    assert len(set(judged)) == len(judged) <= 20
    assert part.trial is None
    assert part.chosen == (2, 3)
    search, retrain = stages(first.plan, 4)
    made = ended(first, search.phase)
    assert made.bytes <= first.plan.bytes
    pools = {spec.name: (spec.rows, spec.width) for spec in made.group.pools}
    assert pools["field_0"][1] == 2
    assert pools["field_1"][1] == 3
    kept = pools["field_0"][0] + pools["field_1"][0]
    assert kept > first.plan.group.pools[0].rows
    second = next_collection(first, made, retrain.phase, seed=3)
    vectors = second(all_ids())
    bags = second(all_ids().T.flatten(), torch.arange(121))
    torch.testing.assert_close(bags, vectors)
    known, _ = second.embedder.stored.at(torch.arange(100))
    assert int((known > 0).sum()) == kept
    here = known[:60] > 0
    assert not vectors[here, 0, 2:].any()
    assert torch.equal(second.serving()(all_ids()), second.eval()(all_ids()))
    assert sum(second.serving().bytes().values()) == made.bytes


def test_fields_are_trained_at_widths_that_are_drawn():
    made = collection(widths="search", rest="zeros")
    part, ids = made.embedder, all_ids()
    assert torch.equal(made(ids), made.eval()(ids))  # nobody has drawn yet
    seen = set()
    for step in range(100):
        part.maintain(Progress(step))
        widths = part.stored.named()["widths"].view(torch.int32).tolist()
        seen.add(tuple(widths))
        made.train()
        vectors = made(ids)
        for column, width in enumerate(widths):
            assert vectors[:, column, :width].all()
            assert not vectors[:, column, width:].any()
    assert seen == {(a, b) for a in range(1, 5) for b in range(1, 5)}
    assert made.eval()(ids).all()
    assert (part.every, collection().embedder.every) == (1, 0)


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(1, 8), st.integers(1, 40), st.integers(0, 99))
def test_evolution_judges_each_once_and_keeps_the_best(fields, dim, candidates, seed):
    worth = {}

    def judge(widths):
        assert widths not in worth
        assert len(widths) == fields
        assert all(1 <= width <= dim for width in widths)
        worth[widths] = sum(width * (field - 1.5) for field, width in enumerate(widths))
        return worth[widths]

    found = evolved(judge, fields, dim, candidates, torch.Generator().manual_seed(seed))
    assert worth[found] == max(worth.values())
    assert (dim,) * fields in worth
    assert len(worth) <= candidates


def test_many_ids_are_planned_without_them():
    made = plan([Field("a", 10**9), Field("b", 3)], 16, method="optembed", budget="10x")
    assert made.bytes <= made.budget
    assert made.group.pools[0].rows > 9 * 10**7


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"search": 0.0}, "search is out of range"),
        ({"search": 1.0}, "search is out of range"),
        ({"alpha": -1.0}, "alpha is out of range"),
        ({"candidates": 0}, "candidates of method 'optembed' is too small"),
        ({"rest": "mean"}, "rest"),
        ({"threshold": "row"}, "threshold"),
        ({"rank": "norm"}, "rank"),
        ({"widths": "all"}, "widths"),
        ({"map": True}, "index of dense ids"),
        ({"bits": 4, "low_precision": True}, "in floats while they are trained"),
        ({"budget": None}, "needs a budget"),
    ],
)
def test_options_that_cannot_be(options, complaint):
    with pytest.raises(BitfoldError, match=complaint):
        collection(**options)


def test_hashed_ids_are_refused_by_name():
    with pytest.raises(BitfoldError, match="field 'query' without num_embeddings"):
        plan([Field("query", distinct=100)], 4, method="optembed", budget="4x")
