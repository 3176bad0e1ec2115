"""Magnitude pruning by hand: the schedule, what goes and comes back, what is handed on."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitfold import BitfoldError, BudgetTooSmall, EmbeddingCollection, Field, plan
from bitfold.embedder.contract import Progress
from bitfold.embedder.gradual import GradualPool, ends_at, shared_out
from bitfold.method.base import Phase
from bitfold.planning.kept import index_of
from bitfold.planning.statistics import Counted
from bitfold.pool.pruned import MaskedPool, PrunedPool
from bitfold.training.lifecycle import Lifecycle
from bitfold.training.phases import ended, next_collection, stages

FIELDS = [Field("user", 60), Field("item", 40)]
PRUNE, TUNE = Phase("prune", 0.5), Phase("tune", 0.5)
NUMBERS = 400


def collection(**options):
    options = {"budget": 600, "seed": 3, **options}
    return EmbeddingCollection(FIELDS, 4, method="magnitude-pruning", **options)


def all_ids():
    return torch.stack([torch.arange(60), torch.arange(60) % 40], 1)


def test_the_largest_numbers_are_kept_and_pruned_ones_come_back():
    pool = GradualPool(3, 2, 2, bounds=[3])
    cells = torch.arange(3)
    with torch.no_grad():
        pool.weight.copy_(torch.tensor([[0.5, -0.5], [0.1, -4.0], [-2.0, 0.2]]))
    assert torch.equal(pool(cells), pool.weight)
    pool.prune(3)  # 4, 2, and the first .5
    assert pool(cells).tolist() == [[0.5, 0.0], [0.0, -4.0], [-2.0, 0.0]]
    pool(cells).sum().backward()
    assert pool.weight.grad.tolist() == [[1, 0], [0, 1], [1, 0]]
    assert pool.best().tolist() == [3, 4]
    with torch.no_grad():
        pool.weight[0, 0], pool.weight[1, 1] = 0.3, 0.4
    assert pool.best().tolist() == [3, 4]  # -0.5 does not count
    assert pool.serving().weight.tolist() == pytest.approx([0.4, -2.0])
    pool.prune(2)
    assert pool(cells).tolist() == [[0, -0.5], [0, 0], [-2, 0]]


def test_each_field_keeps_one_share():
    pool = GradualPool(4, 2, 4, bounds=[1, 4])
    with torch.no_grad():
        pool.weight.copy_(torch.tensor([[9.0, 8.0], [1, 2], [3, 4], [5, 6]]))
    pool.prune(4)
    assert pool.mask.int().tolist() == [[1, 0], [0, 0], [0, 1], [1, 1]]
    assert pool.best().tolist() == [0, 5, 6, 7]
    assert collection(scope="field").embedder.pool.parts == [240, 160]
    assert collection().embedder.pool.parts == [400]


@given(st.lists(st.integers(0, 50), min_size=1).filter(any), st.floats(0, 1))
def test_shares_add_up_and_are_near(sizes, share):
    count = int(share * sum(sizes))
    found = shared_out(count, sizes)
    assert sum(found) == count
    for got, size in zip(found, sizes, strict=True):
        assert got <= size
        assert abs(got - count * size / sum(sizes)) < 1


def test_the_schedule_by_hand():
    """8 epochs of 10 steps, 4 of them to prune, 1 of them dense: 30 steps from 400 numbers."""
    part = collection(every=5).embedder
    kept, gone = part.pool.kept, NUMBERS - part.pool.kept
    for step, share in ((0, 0), (10, 0), (20, 1 - (2 / 3) ** 3), (25, 0.875), (40, 1), (70, 1)):
        assert part.wanted(Progress(step, step // 10, 8, 10)) == NUMBERS - round(gone * share)
    # Nobody says how many steps there are: by epochs.
    assert part.wanted(Progress(25, 2, 8)) == NUMBERS - round(gone * (1 - (2 / 3) ** 3))
    assert part.wanted(Progress(25)) == NUMBERS
    once = collection(schedule="once").embedder
    assert [once.wanted(Progress(step, step // 10, 8, 10)) for step in (39, 40)] == [NUMBERS, kept]
    assert (part.every, once.every) == (5, 0)


@pytest.mark.parametrize("share", [0.01, 0.2, 0.25, 0.5, 0.7, 0.99])
def test_it_is_pruned_when_the_phase_ends(share):
    made = plan(FIELDS, 4, method="magnitude-pruning", budget=600, prune=share)
    for epochs in range(2, 20):
        assert stages(made, epochs)[0].until == ends_at(share, epochs)


def test_a_training_prunes_to_the_count_and_stays_there():
    made = collection(every=2, dense=0.0)
    life = Lifecycle(made, epochs=4, epoch_steps=4)
    counts = Counted({"user": (np.arange(50), np.ones(50)), "item": (np.arange(40), np.ones(40))})
    life.prepare(counts)
    pool, left = made.embedder.pool, []
    with torch.no_grad():
        pool.weight[:50] += 1.0  # of ids that training has
        pool.weight[50:60] += 9.0  # of users that it lacks
    for step in range(1, 17):
        life.step()
        if step % 4 == 0:
            life.epoch_ended()
        left.append(int(pool.mask.sum()))
    gone = NUMBERS - pool.kept
    assert left[1] == left[2] == NUMBERS - round(gone * (1 - 0.75**3))
    assert left[5] == NUMBERS - round(gone * (1 - 0.25**3))
    assert left[7:] == [pool.kept] * 9
    assert not pool.weight[50:60].any()
    assert not pool.mask[50:60].any()
    assert sorted(left, reverse=True) == left


@pytest.mark.parametrize("after", ["tune", "retrain"])
def test_what_is_left_is_trained_on_or_anew(after):
    first = collection(after=after)
    initial = first.embedder.pool.weight.detach().clone()
    with torch.no_grad():
        first.embedder.pool.weight.add_(torch.randn(100, 4))
    trained = first.embedder.pool.weight.detach().clone()
    best = trained.abs().flatten().argsort(descending=True)[: first.embedder.pool.kept].sort()[0]
    prune, then = stages(first.plan, 4)
    made = ended(first, prune.phase)
    second = next_collection(first, made, then.phase, seed=3)
    assert (made.phase, made.bytes, second.embedder.exact) == ("prune", first.plan.bytes, True)
    values = (trained if after == "tune" else initial).flatten()
    expected = torch.zeros(400).index_copy(0, best, values[best]).reshape(100, 4)
    ids = all_ids()
    rows = torch.stack([ids[:, 0], ids[:, 1] + 60], 1)
    assert torch.equal(second(ids), expected[rows])
    second(ids).sum().backward()
    assert torch.equal((second.embedder.pool.weight.grad != 0), second.embedder.pool.mask)
    served = second.serving()
    assert isinstance(served.embedder.pool, PrunedPool)
    assert torch.equal(served(ids), expected[rows])
    assert isinstance(served.resume().embedder.pool, MaskedPool)
    assert not first.embedder.exact
    # What the pruning would serve now is the same: there is nothing that lies between.
    if after == "tune":
        assert torch.equal(first.serving()(ids), expected[rows])


def test_the_budget_buys_what_it_buys_pep():
    for budget in (200, 600, 1500):
        made, pep = (
            plan(FIELDS, 4, method=name, budget=budget) for name in ("magnitude-pruning", "pep")
        )
        kept = made.group.pools[0].kept
        assert kept == pep.group.pools[0].kept
        assert made.bytes == 4 * kept + index_of(400, kept).bytes <= budget
    assert plan(FIELDS, 4, method="magnitude-pruning", budget=1600).group.pools[0].kept is None
    with pytest.raises(BudgetTooSmall) as error:
        plan(FIELDS, 4, method="magnitude-pruning", budget=1)
    least = error.value.minimum
    assert plan(FIELDS, 4, method="magnitude-pruning", budget=least).bytes == least


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"prune": 0.0}, "prune is out of range"),
        ({"prune": 1.0}, "prune is out of range"),
        ({"dense": 1.0}, "dense is out of range"),
        ({"dense": -0.1}, "dense is out of range"),
        ({"every": 0}, "every of method 'magnitude-pruning' is too small"),
        ({"schedule": "linear"}, "schedule"),
        ({"scope": "row"}, "scope"),
        ({"after": "stop"}, "after"),
        ({"bits": 4}, "few bits"),
        ({"budget": None}, "needs a budget"),
    ],
)
def test_options_that_cannot_be(options, complaint):
    with pytest.raises(BitfoldError, match=complaint):
        collection(**options)


def test_hashed_ids_are_refused_by_name():
    with pytest.raises(BitfoldError, match="field 'query' without num_embeddings"):
        plan([Field("query", distinct=100)], 4, method="magnitude-pruning", budget="4x")
