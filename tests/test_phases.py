"""Trainings in phases: epochs shared out, plans at their ends, interrupted and gone on with."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from bitfold import BitfoldError, EmbeddingCollection, Field, Plan, plan
from bitfold.data.prepare import prepare
from bitfold.files import read_notes, read_tensors
from bitfold.method import registry
from bitfold.method.base import Phase
from bitfold.method.full import Full
from bitfold.planning.spec import StoredSpec
from bitfold.runs import folder as runs
from bitfold.training import train
from bitfold.training.phases import ended, next_collection, stages
from click_log import DATA, TINY, columns, write
from interrupting import stopped_after

FIELDS = [Field("user", 60), Field("item", 40)]
PEP = replace(TINY, method="pep", budget="3x", epochs=4, checkpoint_steps=5)


@pytest.mark.parametrize(
    ("share", "epochs", "until"),
    [(0.5, 4, [2, 4]), (0.5, 5, [2, 5]), (0.01, 5, [1, 5]), (0.99, 5, [4, 5]), (0.5, 2, [1, 2])],
)
def test_phases_share_the_epochs(share, epochs, until):
    made = plan(FIELDS, 4, method="pep", budget="4x", search=share)
    found = stages(made, epochs)
    assert [stage.until for stage in found] == until
    assert [stage.last for stage in found] == [False, True]
    assert [stage.phase.name for stage in found] == ["search", "retrain"]


def test_what_is_left_of_a_plan():
    made = plan(FIELDS, 4, method="pep", budget="4x")
    (rest,) = stages(replace(made, phase="search"), 3)
    assert (rest.phase.name, rest.until, rest.last) == ("retrain", 3, True)
    for whole in (replace(made, phase="retrain"), plan(FIELDS, 4, method="full")):
        (only,) = stages(whole, 3)
        assert (only.phase.name, only.until, only.last) == ("", 3, True)


def test_too_few_epochs_are_said():
    made = plan(FIELDS, 4, method="pep", budget="4x")
    with pytest.raises(BitfoldError, match=r"2 phases[\s\S]*search, retrain"):
        stages(made, 1)


@dataclass(frozen=True)
class Halves(Full):
    """Two phases that carry their weights, and a plan that may grow between them."""

    grows: bool = False
    name: ClassVar[str] = "halves"

    def phases(self, group):
        return Phase("one", 0.5), Phase("two", 0.5)

    def advance(self, group, embedder, phase):
        if not self.grows:
            return group
        return replace(group, stored=(StoredSpec("more", 10**6, 8, "sketch"),))


@pytest.fixture
def halves(monkeypatch):
    known = registry._registered() | {"halves": Halves}
    monkeypatch.setattr(registry, "_registered", lambda: known)


@pytest.mark.usefixtures("halves")
def test_a_phase_may_carry_its_weights():
    collection = EmbeddingCollection(FIELDS, 4, method="halves", seed=1)
    with torch.no_grad():
        collection.embedder.pool.weight.add_(1)
    (first, second) = stages(collection.plan, 2)
    made = ended(collection, first.phase)
    after = next_collection(collection, made, second.phase, seed=1)
    assert after.plan.phase == "one"
    assert torch.equal(after.embedder.pool.weight, collection.embedder.pool.weight)
    fresh = next_collection(collection, made, replace(second.phase, start="fresh"), seed=1)
    torch.testing.assert_close(fresh.embedder.pool.weight + 1, after.embedder.pool.weight)


@pytest.mark.usefixtures("halves")
def test_a_phase_holds_the_budget():
    collection = EmbeddingCollection(FIELDS, 4, method="halves", budget=2000, grows=True)
    with pytest.raises(BitfoldError, match="leaves its budget at the end of one"):
        ended(collection, Phase("one", 0.5))


@pytest.mark.usefixtures("halves")
def test_phases_of_other_groups_are_refused():
    parts = [plan([field], 4, method=name, budget="2x" if name == "pep" else None)
             for field, name in zip(FIELDS, ("pep", "halves"), strict=True)]  # fmt: skip
    groups = tuple(replace(each.group, fields=(i,)) for i, each in enumerate(parts))
    mixed = Plan(tuple(FIELDS), 4, None, "pep", {}, groups)
    with pytest.raises(BitfoldError, match="together"):
        stages(mixed, 4)


def test_groups_without_phases_go_along():
    parts = [plan([field], 4, method=name, budget="2x" if name == "pep" else None)
             for field, name in zip(FIELDS, ("full", "pep"), strict=True)]  # fmt: skip
    groups = tuple(replace(each.group, fields=(i,)) for i, each in enumerate(parts))
    mixed = Plan(tuple(FIELDS), 4, None, "pep", {}, groups)
    collection = EmbeddingCollection.from_plan(mixed, seed=0)
    assert not collection.embedder.exact
    first, second = stages(mixed, 4)
    made = ended(collection, first.phase)
    after = next_collection(collection, made, second.phase, seed=0)
    assert after.embedder.exact
    ids = torch.tensor([[3, 4], [59, 39]])
    assert torch.equal(after(ids)[:, 0], collection(ids)[:, 0])
    best = collection.embedder.parts[1].pool.best()
    assert after.embedder.parts[1].pool.places().tolist() == best.tolist()


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phases")
    return prepare([write(folder / "clicks.csv", columns())], folder / "log", DATA).path


@pytest.fixture(scope="module")
def whole(log, tmp_path_factory):
    return train([log], None, PEP, tmp_path_factory.mktemp("whole") / "run").path


def test_a_run_ends_with_the_pruned_table(whole):
    run = runs.load(whole)
    kept = run.plan.group.pools[0].kept
    assert run.plan.phase == "retrain"
    assert run.metrics["bytes"] == run.plan.bytes
    assert run.metrics["best_epoch"] in (3, 4)
    assert len(run.model.embeddings.embedder.pool.weight) == kept
    assert (run.model.embeddings.embedder.pool.weight != 0).float().mean() > 0.9
    assert run.metrics["auc"] > 0.7


@pytest.mark.parametrize("steps", [3, 8, 13, 17], ids="in step {}".format)
def test_an_interrupted_training_gives_the_same_bits(log, whole, tmp_path, steps):
    """There are 6 steps an epoch: one moment in each phase, and one before its first checkpoint."""
    run = tmp_path / "run"
    with stopped_after(steps):
        train([log], None, PEP, run)
    state = run / "checkpoint" / "state.safetensors"
    if state.exists():
        assert ("plan" in read_notes(state)) == (steps == 17)
    train(None, None, None, run, resume=True)
    expected = read_tensors(whole / "weights.safetensors")[0]
    found = read_tensors(run / "weights.safetensors")[0]
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert runs.load(run).plan == runs.load(whole).plan


def test_a_run_is_gone_on_from(log, whole, tmp_path):
    more = train([log], None, None, tmp_path / "more", from_run=whole)
    run = runs.load(more.path)
    assert run.plan.phase == "retrain"
    before, after = (read_tensors(each / "weights.safetensors")[0] for each in (whole, more.path))
    name = "embeddings.embedder.pool.index"
    assert torch.equal(before[name], after[name])
