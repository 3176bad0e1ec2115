"""Every method: seeds, copies, files, devices and types."""

import copy
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from safetensors.torch import save_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from bitfold.embedding import Embedding, EmbeddingCollection
from bitfold.errors import BitfoldError
from bitfold.kernels.choice import plain_torch
from bitfold.planning.field import Field
from bitfold.planning.plan import Plan
from bitfold.testing.cases import DIM, Case, bags_by_field, plugins, random_bags
from bitfold.testing.checks import (
    coded,
    disturb,
    embedders,
    exact,
    rewrite,
    same_rows,
    state_bytes,
    steps,
)  # fmt: skip

AnyFace = TypeVar("AnyFace", bound=torch.nn.Module)


def test_the_same_seed_gives_the_same_vectors_and_another_seed_others(case: Case) -> None:
    ids = case.ids(9)
    one = case.collection(seed=3)
    torch.manual_seed(99)
    torch.rand(7)
    other = case.collection(seed=3)
    assert torch.equal(one(ids), other(ids))
    assert not torch.equal(one(ids), case.collection(seed=4)(ids))
    assert one.plan == other.plan


@pytest.mark.first_form
def test_building_leaves_the_global_generator_alone(case: Case) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    case.collection()(case.ids(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_fresh_vectors_have_the_deviation_that_is_said(case: Case) -> None:
    """But for ids with two terms in one row, where the terms go together."""
    fields = [Field("a", 2000), Field("b", 900), Field("c", 60)]
    made = case.plan(fields, 24)
    ids = torch.stack([torch.arange(300) * 6, torch.arange(300) * 3, torch.arange(300) % 60], 1)
    with torch.no_grad():
        drawn = torch.stack([case.planned(made, seed=seed)(ids) for seed in range(12)])
    for f in range(3):
        said = made.options["std"]
        found = drawn[:, _apart(made, f, ids[:, f].tolist()), f]
        if case.planned(made, seed=0).embedder.zeros:
            found = found[found != 0]
        assert float(found.pow(2).mean().sqrt()) == pytest.approx(said, rel=0.25)
        assert abs(float(found.mean())) < 0.1 * said


def _apart(made: Plan, field: int, values: list[int]) -> list[int]:
    """The places of the ids of a field whose terms read rows that differ."""
    if len(made.groups) > 1 or made.group.program is None or made.group.program.tables:
        return list(range(len(values)))
    cells = [made.program.cells_int(field, value) for value in values]
    return [place for place, each in enumerate(cells) if len(set(each)) == len(each)]


def test_the_default_dtype_changes_no_draw(case: Case) -> None:
    plan = case.plan()
    expected = case.planned(plan, seed=0).state_dict()
    torch.set_default_dtype(torch.float64)
    try:
        got = case.planned(plan, seed=0).state_dict()
    finally:
        torch.set_default_dtype(torch.float32)
    for name, value in expected.items():
        assert got[name].dtype == value.dtype
        assert torch.equal(got[name], value)


def test_reset_draws_the_same_again(case: Case) -> None:
    collection, ids = case.collection(seed=2), case.ids(4)
    fresh = collection(ids)
    disturb(collection)
    assert not torch.equal(collection(ids), fresh)
    collection.reset_parameters()
    assert torch.equal(collection(ids), fresh)


def pickled(collection: EmbeddingCollection) -> EmbeddingCollection:
    file = io.BytesIO()
    torch.save(collection, file)
    file.seek(0)
    twin = torch.load(file, weights_only=False)
    assert isinstance(twin, EmbeddingCollection)
    return twin


@pytest.mark.parametrize("make", [copy.deepcopy, pickled])
def test_a_copy_is_equal_and_apart(
    case: Case, make: Callable[[EmbeddingCollection], EmbeddingCollection]
) -> None:
    collection, ids = case.collection(), case.ids(4)
    twin = make(collection)
    assert torch.equal(twin(ids), collection(ids))
    disturb(twin)
    assert not torch.equal(twin(ids), collection(ids))


def changed(collection: AnyFace) -> AnyFace:
    """Weights that no seed draws."""
    rewrite(collection, lambda numbers: numbers * 1.5 + 0.01)
    return collection


AVERAGES: dict[str, dict[str, Any]] = {
    "ema": {"multi_avg_fn": get_ema_multi_avg_fn(0.999)},
    "ema by hand": {"avg_fn": lambda old, new, count: old * 0.9 + new * 0.1},
    "swa": {"multi_avg_fn": get_swa_multi_avg_fn()},
    "default": {},
}


@pytest.mark.first_form
@pytest.mark.parametrize("name", AVERAGES)
def test_an_average_of_equal_models_has_their_vectors(case: Case, name: str) -> None:
    collection = case.collection()
    # Of integers torch takes averages that are none. Left alone, it keeps them as the model's are.
    floating = all(each.is_floating_point() for each in collection.buffers())
    average = AveragedModel(collection, **AVERAGES[name], use_buffers=floating)
    for _ in range(5):
        average.update_parameters(collection)
    bags = bags_by_field(random_bags(case, 3))
    for plain in (False, True):
        with plain_torch() if plain else torch.no_grad():
            torch.testing.assert_close(average(case.ids(9)), collection(case.ids(9)))
            torch.testing.assert_close(average(*bags), collection(*bags))
    collection.load_state_dict(average.module.state_dict())


@pytest.mark.first_form
def test_an_average_written_into_the_state_dict(case: Case) -> None:
    """As averages are kept that know nothing of modules: value by value of the state dicts."""
    model, average = case.collection(), case.collection()
    for _ in range(3):
        for mean, new in zip(
            average.state_dict().values(), model.state_dict().values(), strict=True
        ):
            if mean.is_floating_point():
                mean.copy_(0.99 * mean + 0.01 * new)
    torch.testing.assert_close(average(case.ids(9)), model(case.ids(9)))
    model.load_state_dict(average.state_dict())


@pytest.mark.parametrize("how", ["device word", "device context"])
def test_from_the_meta_device_to_weights(case: Case, how: str) -> None:
    ids, original = case.ids(4), changed(case.collection(seed=1))
    bags = bags_by_field(random_bags(case, 2))

    def empty() -> EmbeddingCollection:
        if how == "device word":
            return case.collection(seed=1, device="meta")
        with torch.device("meta"):
            return case.collection(seed=1)

    drawn = empty()
    assert all(p.is_meta for p in drawn.parameters())
    drawn.to_empty(device="cpu")
    drawn.reset_parameters()
    assert torch.equal(case.ready(drawn)(ids), case.collection(seed=1)(ids))
    loaded = empty()
    loaded.load_state_dict(original.state_dict(), assign=True)
    assert torch.equal(loaded(ids), original(ids))
    assert torch.equal(loaded(*bags), original(*bags))
    filled = empty().to_empty(device="cpu")
    filled.load_state_dict(original.state_dict())
    assert torch.equal(filled(ids), original(ids))


@pytest.mark.parametrize("how", ["loaded", "reversed", "assigned"])
def test_weights_may_come_one_by_one(case: Case, how: str) -> None:
    """From files of parts, or as attributes; what follows from the plan is there all the same."""
    ids, original = case.ids(4), changed(case.collection(seed=1))
    bags = bags_by_field(random_bags(case, 2))
    came = case.collection(seed=1, device="meta")
    if how == "assigned":
        if coded(original):
            pytest.skip("its parameter has no numbers: they are codes")
        for key, value in [*original.named_parameters(), *original.named_buffers()]:
            owner, _, name = key.rpartition(".")
            setattr(came.get_submodule(owner), name, value)
        stored = {key: value for key, value in original.state_dict().items() if ".stored." in key}
        came.load_state_dict(stored, strict=False, assign=True)  # they are no attributes
    else:
        state = [*original.state_dict().items()]
        for key, value in reversed(state) if how == "reversed" else state:
            came.load_state_dict({key: value}, strict=False, assign=True)
    with plain_torch():
        torch.testing.assert_close(came(ids), original(ids))
        torch.testing.assert_close(came(*bags), original(*bags))
    assert torch.equal(came(ids), original(ids))


def test_the_state_is_strict(case: Case) -> None:
    collection = case.collection()
    state = collection.state_dict()
    for key in state:
        with pytest.raises(RuntimeError, match="Missing key"):
            collection.load_state_dict({k: v for k, v in state.items() if k != key})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        collection.load_state_dict({**state, "more": torch.zeros(1)})
    assert all(torch.isfinite(v.double()).all() for v in state.values())


def test_no_constant_is_a_floating_buffer(case: Case) -> None:
    """Casts and averages walk over buffers: what decides an id's rows would change."""
    collection = case.collection()
    floats = [name for name, b in collection.named_buffers() if b.is_floating_point()]
    # Centres and steps of few bits follow the weights, and so do averages of them.
    assert all(name.endswith((".centres", ".steps", ".moments")) for name in floats)
    ids, before = case.ids(5), case.collection()
    moved = copy.deepcopy(collection).type(torch.float64).type(torch.float32)
    assert torch.equal(moved(ids), before(ids))
    with plain_torch():
        torch.testing.assert_close(moved(ids), before(ids))


def test_weights_of_another_address_are_refused(case: Case) -> None:
    mine, other = case.collection(seed=1), case.collection(seed=1)
    mine.load_state_dict(other.state_dict())
    if "fingerprint" not in mine.plan.by_kind:
        pytest.skip("no address: ids are rows as they stand, or modules of its own tell")
    fields = [*case.fields[1:], case.fields[0]]
    others = [case.collection(fields, seed=1)]
    if mine.plan != (salted := case.collection(seed=2)).plan:
        others.append(salted)
    for stranger in others:
        with pytest.raises(BitfoldError, match="another address"):
            mine.load_state_dict(stranger.state_dict())
        with pytest.raises(BitfoldError, match="another address"):
            case.collection(seed=1, device="meta").load_state_dict(
                stranger.state_dict(), assign=True
            )


def test_fields_of_one_size_that_change_places_are_refused(case: Case) -> None:
    """Their shapes say nothing, nor does a program: it knows fields by their number."""
    fields = [Field("left", 200), Field("right", 200)]
    one, other = case.collection(fields), case.collection(fields[::-1])
    if "fingerprint" not in one.plan.by_kind:
        pytest.skip("no address: ids are rows as they stand, or modules of its own tell")
    with pytest.raises(BitfoldError, match="another address"):
        one.load_state_dict(other.state_dict())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes(case: Case, dtype: torch.dtype) -> None:
    collection, ids = case.collection(mode="mean"), case.ids(5)
    bags = bags_by_field(random_bags(case, 5))
    tolerance = 0 if dtype == torch.float64 else 2e-2
    near = 5e-4 if embedders(collection)[0].multiplies else 1e-4  # each layer rounds
    for inputs in ((ids,), bags):
        expected = collection(*inputs)
        moved = copy.deepcopy(collection).to(dtype)
        got = moved(*inputs)
        assert got.dtype == dtype
        if dtype == torch.float64 or not steps(collection):  # else another code may be nearer
            torch.testing.assert_close(got.float(), expected, rtol=tolerance, atol=near)
        got.float().pow(2).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in moved.parameters())
    assert copy.deepcopy(collection).half()(ids).dtype == torch.float16
    weight = case.embedding(50, dtype=dtype, budget=10**5).weight
    assert weight is not None
    assert weight.dtype == dtype


def test_a_serving_form_trains_on_or_says_why_not(case: Case) -> None:
    collection, ids = changed(case.collection()), case.ids(5)
    served = collection.serving()
    try:
        again = served.resume()
    except BitfoldError as error:
        again, refused = None, str(error)
    if again is None:
        assert repr(case.method) in refused
        return
    assert torch.equal(again(ids), served(ids))
    assert all(p.requires_grad for p in again.parameters())
    again(ids).pow(2).sum().backward()
    disturb(again)
    assert not torch.equal(again(ids), served(ids))
    assert [part.plan for part in embedders(again)] == [part.plan for part in embedders(served)]


def test_a_layer_serves_its_vectors_packed_and_goes_on(case: Case) -> None:
    ids = torch.tensor([[0, 49], [7, 48]])
    for module in (case.embedding(50, padding_idx=48), case.bag(50, padding_idx=48)):
        changed(module)
        served = module.serving()
        assert type(served) is type(module)
        assert served.padding_idx == 48
        assert state_bytes(served) == module.plan.bytes
        assert not served.training
        assert not any(p.requires_grad for p in served.parameters())
        if exact(module):
            assert torch.equal(served(ids), module.eval()(ids))
        assert served.weight.shape == (50, DIM)
        if isinstance(served, Embedding):
            same_rows(served, served.weight[ids[0]], served(ids[0]))
        with suppress(BitfoldError):  # as a collection says
            again = served.resume()
            assert torch.equal(again(ids), served(ids))
            assert all(p.requires_grad for p in again.parameters())


FRESH = """
import json, sys, torch
from pathlib import Path
from safetensors.torch import load_file
from bitfold import EmbeddingCollection, Plan, load_plugin
for file in sys.argv[2:]:
    load_plugin(file)
for folder in sorted(Path(sys.argv[1]).iterdir()):
    plan = Plan.from_json(json.loads((folder / "plan.json").read_text()))
    collection = EmbeddingCollection.from_plan(plan, seed=12345, mode="sum")
    collection.load_state_dict(load_file(folder / "weights.safetensors"))
    saved = load_file(folder / "vectors.safetensors")
    assert torch.equal(collection(saved["ids"]), saved["vectors"]), folder
    assert torch.equal(collection(saved["bags"], saved["offsets"]), saved["pooled"]), folder
    print("same")
"""


def test_saved_vectors_return_in_a_fresh_process(cases: list[Case], tmp_path: Path) -> None:
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
    command = [sys.executable, "-W", "ignore", "-c", FRESH, str(tmp_path), *map(str, plugins())]
    home = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["same"] * len(cases)
