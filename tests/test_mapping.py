"""Hashed ids with places of their own: a compact map in front of methods for dense ids."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

import bitfold
from bitfold import BitfoldError, EmbeddingCollection, Field, plan
from bitfold.errors import BudgetTooSmall
from bitfold.method.registry import method_kinds
from bitfold.planning.statistics import Counted
from bitfold.training.lifecycle import Lifecycle

SIZES = {"query": 700, "page": 90}
RANDOM = np.random.default_rng(0)
IDS = {name: RANDOM.integers(-(2**63), 2**63 - 1, size) for name, size in SIZES.items()}
STATS = Counted({name: (ids, np.arange(len(ids)) + 1) for name, ids in IDS.items()})
UNMAPPED = ("amtl", "dhe", "mpe", "optembed")
"""Methods that keep something for each dense id, or read hashed ids by themselves."""
FIELDS = [Field(name, distinct=size) for name, size in SIZES.items()]


def collection(**options: object) -> EmbeddingCollection:
    return EmbeddingCollection(FIELDS, 8, stats=STATS, seed=0, map=True, **options)  # type: ignore[arg-type]


def batch(number: int = 90) -> torch.Tensor:
    return torch.stack([torch.from_numpy(IDS[name][:number]) for name in SIZES], 1)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "full"},
        {"method": "binary-code", "budget": "3x"},
        {"method": "binary-code", "budget": "2x", "fusion": "concat"},
        {"method": "hash", "budget": 27_000},
    ],
    ids=str,
)
def test_ids_read_the_rows_of_their_places(options: dict[str, object]) -> None:
    made = collection(**options)
    kinds = made.plan.by_kind
    assert kinds["map"] == sum(each.bytes for each in made.plan.group.stored)
    assert kinds["map"] < 10.6 / 8 * sum(SIZES.values()) + 10
    if made.plan.budget is not None:
        assert made.plan.bytes <= made.plan.budget
    state = made.serving().state_dict()
    assert sum(each.nbytes for each in state.values()) == made.plan.bytes
    tables = {name: table.tolist() for name, table in made.embedder.stored.named().items()}  # type: ignore[operator, union-attr]
    program = made.plan.program
    for number, name in enumerate(SIZES):
        cells = {tuple(program.cells_int(number, int(each), tables)) for each in IDS[name]}
        assert len(cells) == len(IDS[name])  # no two ids have the same rows
    with bitfold.plain_torch():
        plain = made(batch())
    torch.testing.assert_close(made(batch()), plain)


def test_ids_without_a_place_read_the_mean_of_those_with_one() -> None:
    made = collection(method="full")
    Lifecycle(made).epoch_ended()
    new = torch.arange(2000).reshape(-1, 2)
    known = [
        made(torch.from_numpy(np.stack([ids, ids], 1)))[:, i] for i, ids in enumerate(IDS.values())
    ]
    found = made(new)
    for number, vectors in enumerate(known):
        missed = torch.isclose(found[:, number], vectors.mean(0), atol=1e-6).all(1)
        assert missed.float().mean() > 0.98  # one in 256 is taken for another id


def test_rows_are_not_read_before_the_map_is_there() -> None:
    made = EmbeddingCollection(FIELDS, 8, method="full", map=True)
    with pytest.raises(BitfoldError, match="not built yet"):
        made(batch())
    prepared = collection(method="full")
    made.load_state_dict(prepared.state_dict())
    torch.testing.assert_close(made(batch()), prepared(batch()))
    served = copy.deepcopy(prepared.serving())
    torch.testing.assert_close(served(batch()), prepared(batch()))
    with torch.device("meta"):
        empty = EmbeddingCollection.from_plan(prepared.plan)
    empty.load_state_dict(prepared.state_dict(), assign=True)
    torch.testing.assert_close(empty(batch()), prepared(batch()))


def test_the_most_frequent_ids_have_places_where_there_are_more_than_was_planned() -> None:
    fields = [Field("query", distinct=100)]
    made = EmbeddingCollection(fields, 8, method="full", map=True, stats=STATS)
    frequent = torch.from_numpy(IDS["query"][-100:]).unsqueeze(1)  # counts rise
    vectors = made(frequent)[:, 0]
    assert len(torch.unique(vectors, dim=0)) == 100


def test_what_cannot_have_a_map_says_so() -> None:
    with pytest.raises(BitfoldError, match="no map"):
        bitfold.plan([Field("query")], 8, method="full", map=True, budget=4096)
    with pytest.raises(BitfoldError, match="read as they stand"):
        bitfold.plan(FIELDS, 8, method="binary-code", map=True, mix=True, budget="3x")
    least = "budget"
    with pytest.raises(BitfoldError, match=least):
        bitfold.plan(FIELDS, 8, method="hash", map=True, budget=900)


def test_a_run_on_hashed_ids_has_its_map(tmp_path: Path) -> None:
    rows = {
        "user": [f"user {n % 40}" for n in range(600)],
        "item": [f"item {n * 7 % 60}" for n in range(600)],
        "clicked": [int(n % 40 < 20) for n in range(600)],
    }
    options = {"width": 4, "hidden": [8], "epochs": 2, "batch_size": 32, "lr": 0.02}
    run = bitfold.train(
        rows, label="clicked", fields="user,item", method="full", set={"map": "true"},
        out=tmp_path / "run", **options,
    )  # fmt: skip
    plan = run.plan
    assert plan.by_kind["map"] > 0
    assert plan.method == "full"
    again = bitfold.load(tmp_path / "run")
    scores = again.predict({name: values[:50] for name, values in rows.items()})
    assert np.allclose(np.asarray(scores), np.asarray(run.predict(rows))[:50])
    assert run.metrics["map_bytes"] == 0  # it is in the bytes, not beside them
    assert run.metrics["bytes"] == plan.bytes


@pytest.mark.parametrize("method", method_kinds())
def test_every_method_trains_whole_fields_behind_a_map(method: str) -> None:
    """A budget that holds all ids leaves nothing to fold: only the map is stored beside rows."""
    ids = np.arange(100) * 7919
    fields = [Field("query", distinct=100)]
    if method in UNMAPPED:
        with pytest.raises(BitfoldError, match="map=true"):
            bitfold.plan(fields, 8, method=method, map=True, budget=100_000)
        return
    made = bitfold.plan(fields, 8, method=method, map=True, budget=100_000)
    layer = EmbeddingCollection.from_plan(made, seed=0)
    life = Lifecycle(layer)
    life.prepare(Counted({"query": (ids, np.ones(100))}))
    for _ in range(2):
        layer(torch.from_numpy(ids[:4]).unsqueeze(1)).sum().backward()
        life.step()
        life.epoch_ended()
    assert made.bytes == sum(each.nbytes for each in layer.serving().state_dict().values())


@pytest.mark.parametrize("method", sorted(method_kinds()))
def test_the_least_bytes_are_those_of_maps_too(method: str) -> None:
    """What is named is enough, and a byte less is not."""
    fields = [Field("q", distinct=400), Field("d", 50)]
    with pytest.raises(BitfoldError) as raised:
        plan(fields, 8, method=method, budget=1, map=True)
    error = raised.value
    if not isinstance(error, BudgetTooSmall):
        assert "map" in str(error) or "by itself" in str(error) or "dense id" in str(error)
        return
    assert error.minimum > 526
    assert "got: 1 bytes, of which maps take 526" in str(error)
    assert plan(fields, 8, method=method, budget=error.minimum, map=True).bytes <= error.minimum
    # Of a method that has a map in front of whole tables alone, less is refused for that.
    with pytest.raises(BitfoldError, match=rf"{error.minimum:,} bytes or more|read as they stand"):
        plan(fields, 8, method=method, budget=error.minimum - 1, map=True)
