"""Every method: plans that hold their budget, know their bytes, and return from JSON."""

import json
from dataclasses import replace

import pytest
import torch

from bitfold.config import from_json, to_json
from bitfold.embedder.memory import memory
from bitfold.embedding import EmbeddingCollection
from bitfold.errors import BitfoldError, BudgetTooSmall
from bitfold.method.planner import plan
from bitfold.method.registry import method_kind
from bitfold.planning.field import Field
from bitfold.planning.plan import Plan
from bitfold.testing.cases import DIM, Case
from bitfold.testing.checks import exact, state_bytes

TYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


@pytest.mark.first_form
def test_a_method_says_what_it_is(case: Case) -> None:
    kind = method_kind(case.method)
    assert kind.name == case.method
    assert kind.summary
    assert kind.when
    assert kind.version >= 1
    assert kind.forms


def test_options_return_from_json(case: Case) -> None:
    kind = method_kind(case.method)
    for group in case.plan().groups:
        if group.method != case.method:
            continue
        again = from_json(kind, json.loads(json.dumps(dict(group.options))))
        assert to_json(again) == dict(group.options)
        for name, value in case.words.items():
            if name != "budget":
                assert group.options[name] == value


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_bytes_equal_the_serving_state_to_the_byte(case: Case, dtype: torch.dtype) -> None:
    made = case.plan(dtype=dtype)
    collection = case.planned(made)
    assert collection.bytes("serving") == made.by_kind
    serving = collection.serving()
    assert made.bytes == state_bytes(serving) == memory(collection).total
    assert made.budget is None or made.bytes <= made.budget
    assert not serving.training
    assert not any(p.requires_grad for p in serving.parameters())
    assert any(p.requires_grad for p in collection.parameters())
    ids = case.ids(3)
    assert serving(ids).dtype == dtype
    if exact(collection):
        assert torch.equal(serving(ids), collection(ids))


@pytest.mark.first_form
def test_training_has_its_bytes_too(case: Case) -> None:
    collection = case.collection()
    found = collection.bytes("training")
    parameters = sum(p.nbytes for p in collection.parameters())
    assert found["gradients"] == parameters
    assert sum(found.values()) >= parameters + found["gradients"]
    with pytest.raises(BitfoldError, match="phase"):
        collection.bytes("resting")


def test_a_plan_keeps_its_bytes_in_json(case: Case) -> None:
    made = case.plan()
    again = Plan.from_json(json.loads(json.dumps(made.to_json())))
    assert again == made
    assert state_bytes(case.planned(again).serving()) == made.bytes


def test_the_same_question_has_the_same_answer(case: Case) -> None:
    assert case.plan(seed=5) == case.plan(seed=5)


def least(case: Case) -> int:
    """The smallest budget, as the refusal of a smaller one names it."""
    with pytest.raises(BudgetTooSmall) as error:
        asked(case, 1)
    assert error.value.minimum is not None
    return error.value.minimum


def asked(case: Case, budget: int) -> Plan:
    return plan(case.fields, DIM, **{**case.said(case.fields), "budget": budget})


def test_a_budget_is_held_and_a_larger_one_never_refused(case: Case) -> None:
    minimum = least(case)
    for budget in (minimum, minimum + 1, minimum + 30, 2 * minimum, 5 * minimum, 10**6):
        assert asked(case, budget).bytes <= budget


def test_a_budget_below_the_least_names_it(case: Case) -> None:
    minimum = least(case)
    with pytest.raises(BudgetTooSmall):
        asked(case, minimum - 1)
    made = asked(case, minimum)
    assert torch.isfinite(case.planned(made)(case.ids(3))).all()
    drawn = case.ready(EmbeddingCollection.from_plan(made))
    assert torch.isfinite(drawn(case.ids(3))).all()


@pytest.mark.first_form
def test_one_id_and_few_bytes(case: Case) -> None:
    """The smallest fields that can be: the plan holds, or says what is the least."""
    for size in (1, 2, 3):
        fields = [Field("only", size)]
        made = plan(fields, DIM, **case.said(fields))
        assert made.fields == (replace(fields[0]),)
        assert case.planned(made)(torch.zeros(2, 1, dtype=torch.int64)).shape == (2, 1, DIM)
