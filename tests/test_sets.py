"""Several embedding sets: planned within one budget, each with its own interaction."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bitfold
from bitfold import Field
from bitfold.comparison import folder
from bitfold.comparison.diagnosis import abundances, diagnose, information_abundance
from bitfold.comparison.grid import GRID_WORDS
from bitfold.comparison.survey import survey
from bitfold.data.prepare import prepare
from bitfold.data.prepared import PreparedLog
from bitfold.embedding import EmbeddingCollection
from bitfold.errors import BitfoldError, BudgetTooSmall
from bitfold.files import read_tensors
from bitfold.method.planner import plan
from bitfold.method.sets import plan_sets
from bitfold.nets.building import NETWORKS, build_network
from bitfold.nets.model import ClickModel
from bitfold.planning.budget import full_bytes
from bitfold.planning.plan import Plan
from bitfold.training import train
from click_log import DATA, TINY, columns, write
from command import bitfold as command
from interrupting import stopped_after

NAMES = sorted(NETWORKS)
FIELDS = [Field("user", 500), Field("item", 300), Field("query", distinct=200)]
SETS = replace(TINY, method="auto", embedding_sets=3, hidden=(8, 4))


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> PreparedLog:
    folder = tmp_path_factory.mktemp("sets")
    reading = replace(DATA, fields=(*DATA.fields, "tags"), multi={"tags": "|"})
    prepare([write(folder / "clicks.csv", columns())], folder / "log", reading)
    return PreparedLog(folder / "log")


@pytest.fixture(scope="module")
def run(log: PreparedLog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sets") / "run"
    train([log.path], log.schema.config, SETS, out)
    return out


@given(
    sets=st.integers(1, 5),
    method=st.sampled_from(["auto", "hash", "binary-code", "robe", "mixed-dimensions"]),
    dim=st.sampled_from([4, 8, 16]),
    size=st.integers(2_000, 200_000),
)
@settings(max_examples=40, deadline=None)
def test_all_sets_together_stay_within_the_budget(sets, method, dim, size):
    fields, least = FIELDS[:2], 0
    try:
        made = plan_sets(fields, dim, sets, method=method, budget=size)
    except BudgetTooSmall as error:
        least = error.minimum
    if least:
        assert least > size
        size = least
        made = plan_sets(fields, dim, sets, method=method, budget=size)
    assert made.bytes <= size == made.budget
    parts = [made.part(number) for number in range(len(made.groups))]
    assert sum(part.bytes for part in parts) == made.bytes
    assert [field.name for field in made.fields] == ["user", "item"] * sets


def test_one_set_is_the_plan_of_before():
    asked = {"method": "binary-code", "budget": "10x", "seed": 3}
    assert plan_sets(FIELDS, 8, 1, **asked) == plan(FIELDS, 8, **asked)
    assert "sets" not in plan(FIELDS, 8, **asked).to_json()


def test_a_ratio_is_one_to_a_single_full_table():
    made = plan_sets(FIELDS, 8, 4, budget="10x")
    whole = full_bytes(FIELDS, 8)
    assert made.budget == whole // 10
    assert made.ratio == whole / made.bytes >= 10
    full = plan_sets(FIELDS[:2], 8, 4, method="full")
    assert full.bytes == 4 * full_bytes(FIELDS[:2], 8)
    assert full.ratio == 0.25


def test_sets_have_salts_of_their_own():
    made = plan_sets(FIELDS, 8, 3, method="hash", budget="4x")
    ids = torch.arange(200).unsqueeze(1).repeat(1, 9)
    embedder = EmbeddingCollection.from_plan(made, seed=0).embedder
    cells = [part.address.cells(ids[:, :3]) for part in embedder.parts]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (cells[one] == cells[other]).float().mean() < 0.2


def test_a_plan_of_sets_goes_through_json():
    made = plan_sets(FIELDS, 8, 2, budget="4x")
    assert Plan.from_json(json.loads(json.dumps(made.to_json()))) == made
    rows = made.rows()
    assert [(row["set"], row["field"]) for row in rows] == [
        (number, field.name) for number in (1, 2) for field in FIELDS
    ]
    assert "2 sets of width 8" in str(made)


@pytest.mark.parametrize("sets", [0, -1, True, 1.5, "2"])
def test_a_number_of_sets_that_is_none_is_refused(sets):
    with pytest.raises(BitfoldError, match="embedding sets"):
        plan_sets(FIELDS, 8, sets, budget="4x")


def test_a_plan_whose_sets_differ_is_refused():
    values = plan_sets(FIELDS, 8, 2, budget="4x").to_json()
    with pytest.raises(BitfoldError, match="same fields"):
        Plan.from_json(values | {"sets": 3})
    with pytest.raises(BitfoldError, match="same fields"):
        Plan.from_json(values | {"fields": [*values["fields"][:-1], values["fields"][0]]})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("numeric", [0, 2])
@pytest.mark.parametrize("rows", [0, 5])
def test_logits_of_sets_have_one_value_a_row(name, numeric, rows):
    network = build_network(name, 3, 4, numeric, sets=3)
    logits = network(torch.randn(rows, 9, 4), torch.randn(rows, numeric))
    assert logits.shape == (rows,)


@pytest.mark.parametrize("name", NAMES)
def test_the_head_is_shared_and_reads_the_mean(name):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(6, 9, 4, generator=generator)
    numeric = torch.randn(6, 2, generator=generator)
    network = (
        build_network(name, 3, 4, 2, sets=3, hidden=(8, 4))
        if name != "lr"
        else (build_network(name, 3, 4, 2, sets=3))
    )
    first, second, third = network.sets
    found = [
        each.interact(vectors[:, 3 * k : 3 * k + 3], numeric)
        for k, each in enumerate((first, second, third))
    ]
    means = [sum(parts) / 3 for parts in zip(*found, strict=True)]
    torch.testing.assert_close(network(vectors, numeric), first.decide(means))
    alone = sum(weight.numel() for weight in build_network(name, 3, 4, 2).parameters())
    assert sum(weight.numel() for weight in second.parameters()) < alone


@pytest.mark.parametrize("name", NAMES)
def test_equal_sets_with_equal_interactions_are_one_set(name):
    one, three = build_network(name, 3, 4, 2, seed=5), build_network(name, 3, 4, 2, seed=5, sets=3)
    shared = three.sets[0].state_dict()
    assert all(torch.equal(shared[key], value) for key, value in one.state_dict().items())
    for each in three.sets[1:]:
        each.load_state_dict({key: shared[key] for key in each.state_dict()})
    vectors, numeric = torch.randn(6, 3, 4), torch.randn(6, 2)
    torch.testing.assert_close(three(vectors.repeat(1, 3, 1), numeric), one(vectors, numeric))


@pytest.mark.parametrize("name", NAMES)
def test_sets_of_a_network_start_apart(name):
    first, second = build_network(name, 3, 4, sets=2).sets
    weights = dict(first.named_parameters())
    for key, weight in second.named_parameters():
        if weight.dim() > 1:  # biases and numeric weights start as zeros
            assert not torch.equal(weight, weights[key]), key


def test_bags_read_in_each_set_what_single_ids_read():
    made = plan_sets(FIELDS, 4, 2, budget="2x")
    model = ClickModel(
        EmbeddingCollection.from_plan(made, seed=0), build_network("deepfm", 3, 4, sets=2), 2
    )
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    bags, offsets = ids.T.reshape(-1), torch.arange(7)
    torch.testing.assert_close(model.vectors(bags, offsets), model.vectors(ids))
    assert model.vectors(ids).shape == (2, 6, 4)


def test_sets_differ_and_are_trained_apart(run: Path, log: PreparedLog):
    loaded = bitfold.load(run)
    fields = len(log.schema.fields)
    ids = torch.from_numpy(np.stack([each[:5] for each in survey(log).sampled[:1]] * fields, 1))
    vectors = loaded.model.vectors(ids[:, :fields]).view(5, 3, fields, 4)
    assert not torch.allclose(vectors[:, 0], vectors[:, 1])
    assert not torch.allclose(vectors[:, 1], vectors[:, 2])
    fresh = EmbeddingCollection.from_plan(loaded.plan, seed=SETS.seed, mode=SETS.bags).serving()
    trained = read_tensors(run / "weights.safetensors")[0]
    for number in range(len(loaded.plan.groups)):
        for key, value in fresh.state_dict().items():
            if key.startswith(f"embedder.parts.{number}.pool"):
                assert not torch.equal(value, trained[f"embeddings.{key}"]), key


def test_a_run_counts_all_sets(run: Path, log: PreparedLog):
    loaded = bitfold.load(run)
    whole = full_bytes(log.schema.embedding_fields(), 4)
    assert loaded.plan.sets == 3
    assert loaded.plan.budget == whole // 2
    assert loaded.metrics["bytes"] == loaded.plan.bytes <= whole // 2
    assert loaded.metrics["ratio"] == whole / loaded.plan.bytes
    rows = [
        {"user": "u1", "item": "i1", "city": "c1", "tags": "t0|t1", "price": 1.0},
        {"user": "u2", "item": "new", "city": None, "tags": "", "price": None},
    ]
    assert loaded.predict(rows).shape == (2,)


def test_abundance_of_each_set_and_of_all(run: Path, log: PreparedLog):
    known, loaded = survey(log), bitfold.load(run)
    found = diagnose(run, log, known)["by_field"]
    assert information_abundance(loaded, known) == [field["abundance"] for field in found]
    count = len(log.schema.fields)
    assert sum(field["bytes"] for field in found) == pytest.approx(
        loaded.plan.by_kind["weights"], abs=count
    )
    for number, (field, ids) in enumerate(zip(found, known.sampled, strict=True)):
        batch = torch.zeros(len(ids), count, dtype=torch.int64)
        batch[:, number] = torch.from_numpy(ids)
        every = loaded.model.vectors(batch).view(len(ids), 3, count, 4)[:, :, number].double()
        for one, value in zip(every.unbind(1), field["abundance_by_set"], strict=True):
            singular = torch.linalg.svdvals(one)
            assert value == pytest.approx(float(singular.sum() / singular.max()), rel=1e-5)
        singular = torch.linalg.svdvals(every.flatten(1))
        assert field["abundance"] == pytest.approx(float(singular.sum() / singular.max()), rel=1e-5)


def test_no_vectors_have_no_abundance():
    assert abundances(torch.zeros(2, 3, 3)) == [None, None]


@pytest.mark.parametrize("method", ["auto", "pep"])
def test_a_training_that_was_stopped_goes_on_bit_for_bit(log, tmp_path, method):
    words = replace(SETS, method=method, checkpoint_steps=2, epochs=2)
    train([log.path], None, words, tmp_path / "whole")
    with stopped_after(4):
        train([log.path], None, words, tmp_path / "run")
    train([log.path], None, words, tmp_path / "run", resume=True)
    one, other = (
        read_tensors(tmp_path / name / "weights.safetensors")[0] for name in ("whole", "run")
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_run_goes_on_from_one_of_as_many_sets(run: Path, log: PreparedLog, tmp_path: Path):
    train([log.path], None, replace(SETS, epochs=1), tmp_path / "more", from_run=run)
    assert bitfold.load(tmp_path / "more").plan == bitfold.load(run).plan
    with pytest.raises(BitfoldError, match="another embedding_sets"):
        train([log.path], None, replace(SETS, embedding_sets=2), tmp_path / "no", from_run=run)


def test_a_run_whose_options_say_other_sets_is_refused(run: Path, tmp_path: Path, monkeypatch):
    from bitfold.runs import folder as runs
    from bitfold.runs.config import RunConfig

    config = RunConfig.load(run / "config.json")
    other = replace(config, train=replace(config.train, embedding_sets=2))
    monkeypatch.setattr(runs.RunConfig, "load", lambda path: other)
    with pytest.raises(BitfoldError, match="sets"):
        bitfold.load(run)


def test_the_command_end_to_end(tmp_path: Path):
    raw = write(tmp_path / "clicks.csv", columns(rows=600))
    said = (
        *("--label", "rating>=4", "--fields", "user,item,city", "--width", 4, "--hidden", "8"),
        *("--epochs", 1, "--batch-size", 128, "--device", "cpu", "--log", "none"),
    )
    out = tmp_path / "run"
    done = command("train", raw, *said, "--budget", "2x", "--embedding-sets", 2, "--out", out)
    assert done.code == 0, done.err
    shown = command("inspect", out)
    assert shown.code == 0
    assert "2 sets of width 4" in shown.out
    assert "one full table of that width is" in shown.out
    assert json.loads(command("inspect", out, "--json").out)["plan"]["sets"] == 2
    measured = command("evaluate", out, raw, "--json")
    assert json.loads(measured.out)["rows"] == 600
    assert command("predict", out, raw, "--out", tmp_path / "scores.csv").code == 0
    with (tmp_path / "scores.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 601
    for more, expected in (
        (("--embedding-sets", 0), "embedding_sets is out of range"),
        (("--embedding-sets", "two"), "embedding-sets"),
        (("--embedding-sets", 3, "--budget", "60B"), "each of 3 embedding sets has 20 bytes"),
        (("--embedding-sets", 2, "--budget", "1x", "--method", "full"), "embedding sets"),
    ):
        refused = command("train", raw, *said, *more, "--out", tmp_path / "none")
        assert (refused.code, refused.out) == (2, "")
        assert refused.err.count("bitfold: ") == 1
        assert expected in refused.err
        assert "Traceback" not in refused.err
        assert not (tmp_path / "none").exists()


def test_plan_and_quotes_count_all_sets():
    said = ("--fields", "user=6040,movie=3706", "--embedding-sets", 2, "--json")
    one = json.loads(command("plan", *said, "--budget", "10x").out)
    assert one["sets"] == 2
    assert sum(one["by_kind"].values()) <= 62_374
    many = json.loads(command("plan", *said, "--methods", "full,hash", "--budgets", "10x").out)
    full, hashed = many["quotes"]
    assert full["bytes"] == 2 * 623_744
    assert hashed["bytes"] <= 62_374


def test_a_comparison_of_before_goes_on(monkeypatch):
    sections = {"paths": [], "data": {}, "compare": dict.fromkeys(GRID_WORDS)}
    begun = sections | {"train": {"width": 4}}
    monkeypatch.setattr(folder, "read_options", lambda path: begun)
    folder._check_same(
        Path("compare.json"), sections | {"train": {"width": 4, "embedding_sets": 1}}
    )
    with pytest.raises(BitfoldError, match="embedding-sets is not what"):
        folder._check_same(
            Path("compare.json"), sections | {"train": {"width": 4, "embedding_sets": 2}}
        )


def test_a_comparison_trains_sets_and_its_page_tells_of_each(tmp_path: Path):
    raw = write(tmp_path / "clicks.csv", columns(rows=600))
    done = command(
        *("compare", raw, "--label", "rating>=4", "--fields", "user,item", "--width", 4),
        *("--hidden", "8", "--epochs", 1, "--batch-size", 128, "--device", "cpu"),
        *("--log", "none", "--methods", "hash", "--budgets", "2x", "--seeds", 1),
        *("--embedding-sets", 2, "--out", tmp_path / "board"),
    )
    assert done.code == 0, done.err
    results = json.loads((tmp_path / "board" / "results.json").read_text())
    said = json.loads((tmp_path / "board" / "compare.json").read_text())["train"]
    assert said["embedding_sets"] == 2
    (row,) = results["results"]
    assert row["embedding_sets"] == 2
    assert all(len(field["abundance_by_set"]) == 2 for field in row["by_field"])
    assert results["references"]["logistic regression"]["bytes"] == 4 * 100 + 4 * 4
    page = tmp_path / "board" / "board.html"
    if page.is_file():
        text = page.read_text()
        assert "of each set" in text
        assert "2 embedding sets of width 4" in text
