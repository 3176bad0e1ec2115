"""Every method: bytes, seeds, copies, files, devices and dtypes."""

import copy
import io
import json
import subprocess
import sys

import pytest
import torch
from contract_cases import DIM, all_cases, bags_by_field, random_bags
from safetensors.torch import save_file

import bitfold
from bitfold import BitfoldError, BudgetTooSmall, EmbeddingCollection, Plan


def state_bytes(module):
    return sum(tensor.nbytes for tensor in module.state_dict().values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_bytes_equal_the_serving_state_to_the_byte(case, dtype):
    plan = case.plan(dtype=dtype)
    collection = EmbeddingCollection.from_plan(plan)
    assert collection.bytes("serving") == plan.by_kind
    serving = collection.serving()
    assert plan.bytes == state_bytes(serving) == bitfold.memory(collection).total
    assert plan.budget is None or plan.bytes <= plan.budget
    assert not serving.training
    assert not any(p.requires_grad for p in serving.parameters())
    assert any(p.requires_grad for p in collection.parameters())
    ids = case.ids(3)
    assert serving(ids).dtype == dtype
    assert torch.equal(serving(ids), collection(ids))
    training = sum(collection.bytes("training").values())
    gradients = sum(p.nbytes for p in collection.parameters())
    assert training == plan.bytes + gradients
    with pytest.raises(BitfoldError, match="phase"):
        collection.bytes("resting")


def test_a_plan_keeps_its_bytes_in_json(case):
    plan = case.plan()
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan
    assert state_bytes(EmbeddingCollection.from_plan(again)) == plan.bytes


def test_the_same_seed_gives_the_same_vectors_and_another_seed_others(case):
    ids = case.ids(9)
    one = case.collection(seed=3)
    torch.manual_seed(99)
    torch.rand(7)
    other = case.collection(seed=3)
    assert torch.equal(one(ids), other(ids))
    assert not torch.equal(one(ids), case.collection(seed=4)(ids))
    assert one.plan.program == other.plan.program


def test_building_leaves_the_global_generator_alone(case):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    case.collection()(case.ids(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_default_dtype_changes_no_draw(case):
    plan = case.plan()
    expected = EmbeddingCollection.from_plan(plan, seed=0).state_dict()
    torch.set_default_dtype(torch.float64)
    try:
        got = EmbeddingCollection.from_plan(plan, seed=0).state_dict()
    finally:
        torch.set_default_dtype(torch.float32)
    for name, value in expected.items():
        assert got[name].dtype == value.dtype
        assert torch.equal(got[name], value)


def test_reset_draws_the_same_again(case):
    collection, ids = case.collection(seed=2), case.ids(4)
    fresh = collection(ids)
    with torch.no_grad():
        for parameter in collection.parameters():
            parameter.add_(1)
    assert not torch.equal(collection(ids), fresh)
    collection.reset_parameters()
    assert torch.equal(collection(ids), fresh)


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_a_copy_is_equal_and_apart(case, how):
    collection, ids = case.collection(), case.ids(4)
    if how == "deepcopy":
        twin = copy.deepcopy(collection)
    else:
        file = io.BytesIO()
        torch.save(collection, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    assert torch.equal(twin(ids), collection(ids))
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    assert not torch.equal(twin(ids), collection(ids))


def changed(collection):
    """Weights that no seed draws."""
    with torch.no_grad():
        for parameter in collection.parameters():
            parameter.mul_(1.5).add_(0.01)
    return collection


@pytest.mark.parametrize("how", ["device word", "device context"])
def test_from_the_meta_device_to_weights(case, how):
    ids, original = case.ids(4), changed(case.collection(seed=1))
    bags = bags_by_field(random_bags(case, 2))

    def empty():
        if how == "device word":
            return case.collection(seed=1, device="meta")
        with torch.device("meta"):
            return case.collection(seed=1)

    drawn = empty()
    assert all(p.is_meta for p in drawn.parameters())
    drawn.to_empty(device="cpu")
    drawn.reset_parameters()
    assert torch.equal(drawn(ids), case.collection(seed=1)(ids))
    loaded = empty()
    loaded.load_state_dict(original.state_dict(), assign=True)
    assert torch.equal(loaded(ids), original(ids))
    assert torch.equal(loaded(*bags), original(*bags))
    filled = empty().to_empty(device="cpu")
    filled.load_state_dict(original.state_dict())
    assert torch.equal(filled(ids), original(ids))


def test_the_state_is_strict(case):
    collection = case.collection()
    state = collection.state_dict()
    for key in state:
        with pytest.raises(RuntimeError, match="Missing key"):
            collection.load_state_dict({k: v for k, v in state.items() if k != key})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        collection.load_state_dict({**state, "more": torch.zeros(1)})
    assert all(torch.isfinite(v.double()).all() for v in state.values())


@pytest.mark.aspect("fingerprint")
def test_weights_of_another_address_are_refused(case):
    mine, other = case.collection(seed=1), case.collection(seed=1)
    mine.load_state_dict(other.state_dict())
    fields = [*case.fields[1:], case.fields[0]]
    others = [case.collection(fields, seed=1)]
    if mine.plan.program != (salted := case.collection(seed=2)).plan.program:
        others.append(salted)
    for stranger in others:
        with pytest.raises(BitfoldError, match="another address"):
            mine.load_state_dict(stranger.state_dict())
        with pytest.raises(BitfoldError, match="another address"):
            case.collection(seed=1, device="meta").load_state_dict(
                stranger.state_dict(), assign=True
            )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes(case, dtype):
    collection, ids = case.collection(mode="mean"), case.ids(5)
    bags = bags_by_field(random_bags(case, 5))
    tolerance = 0 if dtype == torch.float64 else 2e-2
    for inputs in ((ids,), bags):
        expected = collection(*inputs)
        moved = copy.deepcopy(collection).to(dtype)
        got = moved(*inputs)
        assert got.dtype == dtype
        torch.testing.assert_close(got.float(), expected, rtol=tolerance, atol=1e-4)
        got.float().pow(2).sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in moved.parameters())
    assert copy.deepcopy(collection).half()(ids).dtype == torch.float16
    assert case.embedding(50, dtype=dtype, budget=10**5).weight.dtype == dtype


def test_a_budget_below_the_least_names_it(case):
    words = {**case.said(case.fields), "budget": 1}
    with pytest.raises(BudgetTooSmall) as error:
        bitfold.plan(case.fields, DIM, **words)
    least = bitfold.plan(case.fields, DIM, **{**words, "budget": error.value.minimum})
    assert least.bytes <= error.value.minimum
    collection = EmbeddingCollection.from_plan(least)
    assert torch.isfinite(collection(case.ids(3))).all()


FRESH = """
import json, sys, torch
from pathlib import Path
from safetensors.torch import load_file
from bitfold import EmbeddingCollection, Plan
for folder in sorted(Path(sys.argv[1]).iterdir()):
    plan = Plan.from_json(json.loads((folder / "plan.json").read_text()))
    collection = EmbeddingCollection.from_plan(plan, seed=12345, mode="sum")
    collection.load_state_dict(load_file(folder / "weights.safetensors"))
    saved = load_file(folder / "vectors.safetensors")
    assert torch.equal(collection(saved["ids"]), saved["vectors"]), folder
    assert torch.equal(collection(saved["bags"], saved["offsets"]), saved["pooled"]), folder
    print("same")
"""


def test_saved_vectors_return_in_a_fresh_process(tmp_path):
    cases = all_cases()
    for number, case in enumerate(cases):
        folder = tmp_path / f"{number:03}"
        folder.mkdir()
        collection = changed(case.collection(mode="sum"))
        (folder / "plan.json").write_text(json.dumps(collection.plan.to_json()))
        save_file(collection.state_dict(), folder / "weights.safetensors")
        ids, (bags, offsets) = case.ids(20), bags_by_field(random_bags(case, 6))
        vectors = {
            "ids": ids,
            "vectors": collection(ids).detach(),
            "bags": bags,
            "offsets": offsets,
            "pooled": collection(bags, offsets).detach(),
        }
        save_file(vectors, folder / "vectors.safetensors")
    command = [sys.executable, "-c", FRESH, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["same"] * len(cases)
