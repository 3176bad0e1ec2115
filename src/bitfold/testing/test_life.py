"""Every method through the life of a training: prepared, observing, maintained, in phases."""

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from bitfold.config import from_json
from bitfold.embedding import EmbeddingCollection
from bitfold.method.registry import method_kind
from bitfold.optim.moves import carry
from bitfold.pool.moved import RowMove
from bitfold.testing.cases import DIM, Case, bags_by_field, counts, random_bags
from bitfold.testing.checks import embedders, exact, optimizer_named, state_bytes
from bitfold.training import lifecycle
from bitfold.training.lifecycle import Lifecycle

EPOCHS, STEPS = 3, 4


class Life(NamedTuple):
    """A collection, what trains it, and what drives its embedders."""

    collection: EmbeddingCollection
    optimizer: torch.optim.Optimizer
    cycle: Lifecycle


def begun(case: Case, kind: str) -> Life:
    torch.manual_seed(0)
    collection = case.collection(seed=1)
    optimizer = optimizer_named(kind, collection, lr=0.1)
    cycle = Lifecycle(collection, [optimizer], epochs=EPOCHS)
    cycle.prepare(counts(collection.fields))
    return Life(collection, optimizer, cycle)


def lived(case: Case, life: Life, epochs: int) -> Life:
    for epoch in range(life.cycle.epoch, epochs):
        for step in range(STEPS):
            ids = case.ids(64, seed=epoch * STEPS + step)
            life.optimizer.zero_grad()
            (life.collection(ids) - 0.1 * step).square().sum().backward()
            life.optimizer.step()
            life.cycle.step()
        life.cycle.epoch_ended()
    return life


def test_a_life_leaves_bytes_and_vectors_whole(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[RowMove] = []

    def seen(optimizers: list[torch.optim.Optimizer], moved: Sequence[RowMove]) -> None:
        moves.extend(moved)
        carry(optimizers, moved)

    monkeypatch.setattr(lifecycle, "carry", seen)
    life = lived(case, begun(case, "adagrad"), EPOCHS)
    collection, ids = life.collection, case.ids(9)
    vectors = collection(ids)
    assert torch.isfinite(vectors).all()
    serving = collection.serving()
    if exact(collection):
        assert torch.equal(serving(ids), vectors)
    assert state_bytes(serving) == collection.plan.bytes == sum(serving.bytes().values())
    tables = [table for part in embedders(collection) for table in part.tables()]
    weights = {id(table.weight): table.weight for table in tables}
    for move in moves:
        weight = weights[id(move.weight)]
        assert move.source.shape == move.target.shape
        assert move.source.lt(len(weight)).all()
        assert move.target.ge(0).all()
        assert move.target.lt(len(weight)).all()
        assert len(move.target.unique()) == len(move.target)


def test_a_resumed_life_ends_where_the_uninterrupted_one_does(case: Case) -> None:
    """What is not in the state dict is not there after a resume; statistics are told anew."""
    whole = lived(case, begun(case, "adagrad"), EPOCHS)
    first = lived(case, begun(case, "adagrad"), EPOCHS - 1)
    file, random = io.BytesIO(), torch.get_rng_state()
    torch.save([first.collection.state_dict(), first.optimizer.state_dict()], file)
    file.seek(0)
    second = begun(case, "adagrad")
    states: Any = torch.load(file)
    second.collection.load_state_dict(states[0])
    second.optimizer.load_state_dict(states[1])
    second.cycle.at(first.cycle.steps, first.cycle.epoch)
    torch.set_rng_state(random)
    lived(case, second, EPOCHS)
    ids = case.ids(20)
    assert torch.equal(second.collection(ids), whole.collection(ids))
    for name, value in whole.collection.state_dict().items():
        assert torch.equal(second.collection.state_dict()[name], value), name


def test_the_same_life_twice(case: Case) -> None:
    one, other = (lived(case, begun(case, "lazy-adam"), 2) for _ in range(2))
    for name, value in one.collection.state_dict().items():
        assert torch.equal(other.collection.state_dict()[name], value), name


@pytest.mark.first_form
def test_the_gradients_of_vectors_are_observed(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = case.collection(mode="sum")
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    embedder = collection.embedder
    monkeypatch.setattr(embedder, "observes", True)
    monkeypatch.setattr(embedder, "observe", lambda *given: seen.append(given))
    ids, fields = case.ids(5), len(case.fields)
    toward = torch.randn(5, fields, DIM)
    (collection(ids) * toward).sum().backward()
    ((got, field, grad),) = seen
    assert torch.equal(got, ids.reshape(-1))
    assert torch.equal(field, torch.arange(fields).repeat(5))
    assert torch.equal(grad, toward.reshape(-1, DIM))
    seen.clear()
    rows = random_bags(case, 3)
    flat, offsets = bags_by_field(rows)
    (collection(flat, offsets) * toward[:3]).sum().backward()
    ((got, field, grad),) = seen
    assert torch.equal(got, flat)
    at = 0
    for f in range(fields):
        for b in range(3):
            for _ in rows[b][f]:
                assert int(field[at]) == f
                assert torch.equal(grad[at], toward[b, f])
                at += 1
    seen.clear()
    with torch.no_grad():
        collection(ids)
    assert not seen


@pytest.mark.first_form
@pytest.mark.parametrize("padding_idx", [None, 7])
def test_a_layer_of_its_own_observes_too(
    case: Case, padding_idx: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one field: every id that is no padding, with the gradient of its vector."""
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    layer, bag = (
        case.embedding(padding_idx=padding_idx),
        case.bag(padding_idx=padding_idx, mode="sum"),
    )
    for each in (layer, bag):
        monkeypatch.setattr(each.embedder, "observes", True)
        monkeypatch.setattr(each.embedder, "observe", lambda *given: seen.append(given))
    ids = torch.tensor([[3, 7], [7, 49]])
    real = ids.reshape(-1) != (-1 if padding_idx is None else padding_idx)
    toward = torch.randn(2, 2, DIM)
    (layer(ids) * toward).sum().backward()
    (bag(ids) * toward[:, 0]).sum().backward()
    (bag(ids.reshape(-1), torch.tensor([0, 2])) * toward[:, 0]).sum().backward()
    grads = [toward.reshape(-1, DIM), *[toward[:, 0].repeat_interleave(2, 0)] * 2]
    assert len(seen) == 3
    for (got, field, grad), right in zip(seen, grads, strict=True):
        assert torch.equal(got, ids.reshape(-1)[real])
        assert torch.equal(field, torch.zeros_like(got))
        assert torch.equal(grad, right[real])
    seen.clear()
    with torch.no_grad():
        layer(ids)
        bag(ids)
    assert not seen


def test_phases_end_in_plans(case: Case) -> None:
    collection = case.collection(seed=1)
    kind = method_kind(case.method)
    for number, group in enumerate(collection.plan.groups):
        if group.method != case.method:
            continue
        recipe = from_json(kind, group.options)
        phases = recipe.phases(group)
        assert len({phase.name for phase in phases}) == len(phases)
        assert all(0 < phase.share <= 1 for phase in phases)
        assert sum(phase.share for phase in phases) <= 1 + 1e-9
        assert all(phase.start in ("carry", "fresh") for phase in phases)
        plan = collection.plan.part(number)
        begun = recipe.begin(plan)
        assert recipe.phases(begun) == phases
        plan = replace(plan, groups=(begun,))
        budget = collection.plan.budget
        assert budget is None or plan.bytes <= budget
        embedder = recipe.build(plan, seed=1, device=None, sparse=False)
        for phase in phases:
            advanced = recipe.advance(plan.group, embedder, phase)
            plan = replace(plan, groups=(advanced,), phase=phase.name)
            assert plan.budget is None or plan.bytes <= plan.budget
            before = embedder
            embedder = recipe.build(plan, seed=1, device=None, sparse=False)
            embedder.inherit(before)
            ids = case.ids(4)[:, list(group.fields)]
            assert torch.isfinite(embedder(ids)).all()
        if phases:
            assert embedder.exact
            serving = embedder.serving()
            assert torch.equal(serving(ids), embedder(ids))
            assert state_bytes(serving) == plan.bytes


@pytest.mark.first_form
def test_a_loop_without_a_life_works_too(case: Case) -> None:
    """Preparing and maintaining make a training better; nothing breaks without them."""
    torch.manual_seed(0)
    collection = case.collection()
    top = nn.Linear(len(case.fields) * DIM, 1)
    steps = torch.optim.Adam([*collection.parameters(), *top.parameters()], lr=0.05)
    ids, labels = case.ids(64), (torch.arange(64) % 2).float()
    losses = []
    for _ in range(60):
        steps.zero_grad()
        logits = top(collection(ids).flatten(1)).squeeze(1)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, labels)
        loss.backward()
        steps.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
