"""What a trained cell tells beyond its figures, on logs small enough to count by hand."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import bitfold
from bitfold import Field
from bitfold.comparison.diagnosis import (
    auc_by_frequency,
    bytes_by_field,
    curve,
    diagnose,
    frequency_groups,
    information_abundance,
)
from bitfold.comparison.survey import IdSample, Survey, largest_fields, survey
from bitfold.data.prepare import prepare
from bitfold.data.prepared import PreparedLog
from bitfold.method.planner import plan
from bitfold.runs.scoring import Scores
from bitfold.training import train
from click_log import DATA, TINY, columns, write


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> PreparedLog:
    folder = tmp_path_factory.mktemp("diagnosis")
    raw = write(folder / "clicks.csv", columns(rows=1500))
    prepare(
        [raw], folder / "log", replace(DATA, fields=(*DATA.fields, "tags"), multi={"tags": "|"})
    )
    return PreparedLog(folder / "log")


@pytest.fixture(scope="module")
def known(log: PreparedLog) -> Survey:
    return survey(log)


@pytest.fixture(scope="module")
def run(log: PreparedLog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("diagnosis") / "run"
    train([log.path], log.schema.config, TINY, out)
    return out


def train_ids(log: PreparedLog, field: int, part: str = "train") -> np.ndarray:
    return np.concatenate([ids[field] for ids in log.id_columns(part)])


def test_the_survey_counts_each_test_row_s_id_in_training(log: PreparedLog, known: Survey) -> None:
    assert known.part == "test"
    for field, counts in known.frequency.items():
        seen = train_ids(log, field)
        expected = [int((seen == one).sum()) for one in train_ids(log, field, "test")]
        assert counts.tolist() == expected


def test_the_largest_fields_are_counted_and_bags_are_not(log: PreparedLog, known: Survey) -> None:
    names = [log.schema.field_names[field] for field in largest_fields(log)]
    assert names == ["user", "item"]
    assert list(known.frequency) == largest_fields(log)
    assert "tags" in log.schema.field_names


def test_a_field_with_few_ids_is_sampled_whole(log: PreparedLog, known: Survey) -> None:
    for field, ids in enumerate(known.sampled):
        assert set(ids.tolist()) == set(train_ids(log, field).tolist())


def test_the_sample_ignores_how_often_an_id_comes_and_in_which_order() -> None:
    ids = np.arange(1000)
    one, other = IdSample(50), IdSample(50)
    one.add(np.repeat(ids, 3))
    for part in np.array_split(np.random.default_rng(0).permutation(ids), 7):
        other.add(part)
    assert one.ids.tolist() == other.ids.tolist()
    assert len(set(one.ids.tolist())) == 50
    assert 350 < one.ids.mean() < 650


def test_bytes_by_field_are_those_of_the_tables() -> None:
    fields = [Field("user", 30), Field("day", 7)]
    assert bytes_by_field(plan(fields, 4, method="full")) == [30 * 16, 7 * 16]


def test_shared_rows_are_shared_out_and_add_up_to_the_pool() -> None:
    fields = [Field("user", 3000), Field("item", 900), Field("day", 7)]
    for options in ({}, {"sharing": "fields"}):
        made = plan(fields, 8, method="binary-code", budget="10x", **options)
        shares = bytes_by_field(made)
        assert sum(shares) == pytest.approx(made.by_kind["weights"])
        assert min(shares) > 0
    lookups = [len(each) for each in made.program.fields]
    assert shares[0] / shares[1] == pytest.approx(lookups[0] / lookups[1])


def test_groups_are_tenths_of_the_rows_and_keep_ties_together() -> None:
    counts = np.repeat(np.arange(1, 11), 10)
    assert frequency_groups(counts).tolist() == counts.tolist()
    flat = np.array([0, 0, 4, 4, 4, 4])
    assert frequency_groups(flat).tolist() == [0, 0, 1, 1, 1, 1]
    assert frequency_groups(np.zeros(3, np.int64)).tolist() == [0, 0, 0]
    assert frequency_groups(np.zeros(0, np.int64)).tolist() == []


def test_auc_of_each_group_is_that_of_its_rows() -> None:
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 30, 800)
    labels = rng.integers(0, 2, 800).astype(np.float32)
    predictions = rng.random(800).astype(np.float32)
    weights = rng.random(800).astype(np.float32)
    scores = Scores(predictions, labels, weights, None)
    (found,) = auc_by_frequency(scores, {1: counts}, ["a", "b"])
    assert found["field"] == "b"
    assert sum(group["rows"] for group in found["groups"]) == 800
    for group in found["groups"]:
        rows = (counts >= group["least"]) & (counts <= group["most"])
        assert rows.sum() == group["rows"]
        expected = roc_auc_score(labels[rows], predictions[rows], sample_weight=weights[rows])
        assert group["auc"] == pytest.approx(expected)
    assert found["groups"][0] | {"group": 0, "least": 0, "most": 0} == found["groups"][0]


def test_a_group_of_one_class_has_no_auc() -> None:
    scores = Scores(np.float32([0.1, 0.9]), np.float32([0, 0]), None, None)
    (found,) = auc_by_frequency(scores, {0: np.array([3, 3])}, ["a"])
    assert math.isnan(found["groups"][0]["auc"])


def test_information_abundance_is_that_of_the_table(run: Path, known: Survey) -> None:
    loaded = bitfold.load(run)
    found = information_abundance(loaded, known)
    for field, ids in enumerate(known.sampled):
        batch = torch.zeros(len(ids), len(known.sampled), dtype=torch.int64)
        batch[:, field] = torch.from_numpy(ids)
        table = loaded.model.embeddings(batch)[:, field].double()
        singular = torch.linalg.svdvals(table)
        assert found[field] == pytest.approx(float(singular.sum() / singular.max()), rel=1e-5)


def test_vectors_that_are_one_direction_have_an_abundance_of_one(run: Path, known: Survey) -> None:
    loaded = bitfold.load(run)
    pool = next(iter(loaded.model.embeddings.parameters()))
    pool.copy_(torch.arange(1, len(pool) + 1)[:, None] * torch.ones(pool.shape[1]))
    assert information_abundance(loaded, known) == pytest.approx([1.0] * len(known.sampled))
    pool.zero_()
    assert information_abundance(loaded, known) == [None] * len(known.sampled)


def test_the_curve_has_each_epoch_with_its_own_speed(run: Path) -> None:
    epochs = curve(run)
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    assert all(epoch["rows_per_second"] > 0 for epoch in epochs)
    best = max(epoch["valid_auc"] for epoch in epochs)
    assert best == pytest.approx(bitfold.load(run).metrics["valid"]["auc"], abs=1e-6)


@pytest.mark.parametrize("method", ["full", "binary-code"])
def test_a_diagnosis_of_dense_and_hashed_ids(
    log: PreparedLog, known: Survey, tmp_path: Path, method: str
) -> None:
    words = replace(TINY, method=method, budget=None if method == "full" else "2x")
    result = train([log.path], log.schema.config, words, tmp_path / "run")
    found = diagnose(tmp_path / "run", log, known)
    assert sum(found["by_kind"].values()) == result.metrics["bytes"]
    assert [field["field"] for field in found["by_field"]] == log.schema.field_names
    total = sum(field["bytes"] for field in found["by_field"])
    assert total == pytest.approx(found["by_kind"]["weights"], abs=len(found["by_field"]))
    for field in found["by_field"]:
        assert 1 <= field["abundance"] <= 4
        assert field["sampled"] <= field["ids"]
    for field in found["by_frequency"]:
        assert sum(group["rows"] for group in field["groups"]) == log.rows["test"]
    assert found["environment"]["threads"] >= 1
