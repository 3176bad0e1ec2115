"""Floors and ceilings: logistic regression, popularity, and the truth of a synthetic log."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitfold import training
from bitfold.comparison.ceiling import bayes, clicked
from bitfold.comparison.floors import reference_lines
from bitfold.data.config import DataConfig
from bitfold.data.prepare import prepare
from bitfold.data.prepared import PreparedLog
from bitfold.data.stats import REPORT_FILE
from bitfold.data.synth.log import SynthConfig, generate, synthesize
from bitfold.runs.metrics import auc, logloss
from bitfold.runs.popularity import Rates, popularity
from command import READING, TRAINING, bitfold, write_ratings
from test_compare import board_of

SYNTH = SynthConfig(rows=20_000, ids=300, fields=3, numeric=1, noise=0.8)
COLUMNS = DataConfig(
    label="label", fields=("field_0", "field_1", "field_2"), numeric=("numeric_0",)
)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = tmp_path_factory.mktemp("floors") / "clicks.parquet"
    synthesize(SYNTH, raw)
    return raw


def write_log(folder: Path, rows: list[tuple[str, str, int, str]], **words: Any) -> PreparedLog:
    """A log of (item, tags, clicked, part)."""
    text = "\n".join(["item,tags,clicked,part", *(",".join(map(str, row)) for row in rows)])
    (folder / "raw.csv").write_text(text + "\n", encoding="utf-8")
    config = DataConfig(
        **({"label": "clicked", "fields": ("item",), "split": "column:part"} | words)
    )
    return prepare(folder / "raw.csv", folder / "log", config)


ROWS = [
    *[("a", "x", 1, "train")] * 3,
    *[("a", "y", 0, "train")] * 1,
    *[("b", "x|y", 0, "train")] * 4,
    *[("a", "x", 1, "valid"), ("b", "y", 0, "valid")],
    *[("a", "x", 1, "test"), ("new", "x|new", 0, "test"), ("b", "", 0, "test")],
]


def test_popularity_by_hand(tmp_path: Path) -> None:
    """3 of 8 rows are clicked. a: 3 of 4, b: 0 of 4, each with ten rows of the mean."""
    mean = 3 / 8
    expected = np.array([(3 + 10 * mean) / 14, mean, (0 + 10 * mean) / 14])
    found = popularity(write_log(tmp_path, ROWS), "test")
    assert found is not None
    assert found["field"] == "item"
    assert found["auc"] == 1.0
    assert found["logloss"] == pytest.approx(logloss([1, 0, 0], expected), rel=1e-6)


def test_popularity_of_bags_is_the_mean_of_their_rates(tmp_path: Path) -> None:
    """x: 3 of 7 rows, y: 0 of 5, as a row's values are counted each."""
    mean = 3 / 8
    x, y = (3 + 10 * mean) / 17, (0 + 10 * mean) / 15
    assert x > y
    log = write_log(tmp_path, ROWS, fields=("tags",), multi={"tags": "|"})
    found = popularity(log, "test")
    assert found is not None
    # x; x and an unseen value; nothing at all
    expected = logloss([1, 0, 0], np.array([x, (x + mean) / 2, mean]))
    assert found["logloss"] == pytest.approx(expected, rel=1e-6)


def test_the_field_is_chosen_on_the_validation_part(tmp_path: Path) -> None:
    """`noise` tells the test part's clicks, but not those of validation: it may not be chosen."""
    rows = [(item, item, int(item == "a"), "train") for item in "ab" for _ in range(9)]
    rows += [("a", "b", 1, "valid"), ("b", "a", 0, "valid")]
    rows += [("b", "a", 1, "test"), ("a", "b", 0, "test")]
    found = popularity(write_log(tmp_path, rows, fields=("tags", "item")), "test")
    assert found is not None
    assert (found["field"], found["auc"]) == ("item", 0.0)


def test_no_validation_part_no_popularity(tmp_path: Path) -> None:
    rows = [row for row in ROWS if row[3] != "valid"]
    assert popularity(write_log(tmp_path, rows), "test") is None


def test_rates_merge_like_one_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitfold.runs.popularity._ROWS", 8)
    draw = np.random.default_rng(0)
    ids = draw.integers(-(2**63), 2**63 - 1, 50)[draw.integers(0, 50, 2000)]
    labels, weights = draw.integers(0, 2, 2000).astype(float), draw.uniform(0.5, 2, 2000)
    rates = Rates()
    for start in range(0, 2000, 10):
        part = slice(start, start + 10)
        rates.add(ids[part], labels[part], weights[part])
    asked = np.unique(ids)
    expected = [
        ((weights * labels)[ids == one].sum() + 10 * 0.3) / (weights[ids == one].sum() + 10)
        for one in asked
    ]
    np.testing.assert_allclose(rates.of(asked, 0.3), expected)
    assert rates.of(np.array([3]), 0.3).tolist() == [0.3]


def test_bayes_is_the_truth_on_the_parts_own_labels(synthetic: Path, tmp_path: Path) -> None:
    log = prepare(synthetic, tmp_path / "log", COLUMNS)
    chunk = next(generate(SYNTH))
    found = bayes(log, "test")
    assert found is not None
    assert found["rows"] == "test"
    # The same rows, found by another way: by their number, which next to no other row has.
    batch = next(log.batches("test", log.rows["test"]))
    assert batch.labels is not None
    numbers = log.schema.numbers([chunk.numeric[0].astype(float)])[:, 0]
    order = np.argsort(numbers)
    place = order[np.searchsorted(numbers[order], batch.numeric[:, 0].numpy())]
    assert found["auc"] == pytest.approx(auc(batch.labels, chunk.logit[place]), abs=1e-3)
    whole = auc(chunk.label, chunk.logit)
    assert abs(found["auc"] - whole) < 0.03
    assert found["auc"] != pytest.approx(whole, abs=1e-9)
    parts = [bayes(log, part) for part in ("train", "valid", "test")]
    counts = [log.rows[part] for part in ("train", "valid", "test")]
    together = sum(p["logloss"] * n for p, n in zip(parts, counts, strict=True)) / sum(counts)  # type: ignore[index]
    everything = logloss(chunk.label, clicked(chunk.logit, SYNTH.noise))
    assert together == pytest.approx(everything, rel=1e-9)
    assert everything < logloss(chunk.label, 1 / (1 + np.exp(-chunk.logit)))  # noise is known of
    assert everything < logloss(chunk.label, np.full(chunk.rows, chunk.label.mean()))


def test_the_mean_over_noise_is_that_of_draws() -> None:
    draws = np.random.default_rng(0).normal(size=400_000)
    for logit in (-3.0, 0.5):
        drawn = (1 / (1 + np.exp(-(logit + 1.3 * draws)))).mean()
        assert clicked(np.array([logit]), 1.3)[0] == pytest.approx(drawn, abs=2e-3)


@pytest.mark.parametrize(
    "words",
    [
        {"label": "numeric_0>=1"},
        {"label": "label>=1"},
        {"weight": "numeric_0"},
        {"negative_rate": 0.5},
    ],
)
def test_no_truth_is_claimed_where_labels_are_others(
    synthetic: Path, tmp_path: Path, words: dict[str, Any]
) -> None:
    log = prepare(synthetic, tmp_path / "log", COLUMNS.replace(numeric=(), **words))
    assert bayes(log, "test") is None


def test_another_split_has_the_expected_auc_of_the_whole_log(
    synthetic: Path, tmp_path: Path
) -> None:
    words = COLUMNS.replace(split="time:0.8,0.1,0.1", time="time")
    found = bayes(prepare(synthetic, tmp_path / "log", words), "test")
    report = json.loads(synthetic.with_name("clicks.parquet.json").read_text())
    assert found == {"auc": report["bayes_auc"], "logloss": None, "rows": "all, expected"}


def test_a_json_beside_a_log_of_ones_own_is_no_report(tmp_path: Path) -> None:
    for number, text in enumerate(("{}", "[1", '{"format_version": 1}')):
        folder = tmp_path / f"log{number}"
        folder.mkdir()
        (folder / "raw.csv.json").write_text(text)
        log = write_log(folder, ROWS)
        assert not (log.path / REPORT_FILE).exists()
        assert bayes(log, "test") is None


def test_the_command_has_them_as_lines(synthetic: Path, tmp_path: Path) -> None:
    line = (
        *("compare", synthetic, "--label", "label", "--fields", "field_0,field_1,field_2"),
        *("--width", 4, "--hidden", "8", "--epochs", 1, "--batch-size", 512, "--lr", 0.01),
        *("--methods", "full,hash", "--budgets", "10x", "--seeds", 1, "--grid-lr", "0.001,0.02"),
    )
    got = bitfold(*line, "--out", tmp_path / "board")
    assert got.code == 0, got.err
    found: dict[str, Any] = board_of(tmp_path / "board")["references"]  # type: ignore[assignment]
    assert list(found) == ["logistic regression", "popularity", "bayes"]
    floor = found["logistic regression"]
    assert floor["lr"] in (0.001, 0.02)
    assert 0.5 < floor["auc"] < found["bayes"]["auc"]
    grid: dict[str, Any] = board_of(tmp_path / "board")["grid"]  # type: ignore[assignment]
    assert {cell["method"] for cell in grid["cells"]} == {"full", "hash", "logistic regression"}
    for name in ("logistic regression", f"popularity of {found['popularity']['field']}", "Bayes"):
        assert any(line.strip().startswith(name) for line in got.out.splitlines()), name
    rows = board_of(tmp_path / "board")["results"]
    assert {row["method"] for row in rows} == {"full", "hash"}


def test_logistic_regression_is_the_run_of_train_and_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ratings = write_ratings(tmp_path / "ratings.csv")
    words = ("--methods", "hash", "--budgets", "1KiB", "--seeds", 1)
    network = ("--network-set", "linear=false", "--set", "allocation=0.4")
    line = (*("compare", ratings, *READING, *TRAINING), *words, *network)
    assert bitfold(*line, "--out", tmp_path / "board").code == 0
    alone = ("--method", "full", "--network", "lr")
    got = bitfold("train", ratings, *READING, *TRAINING, *alone, "--out", tmp_path / "run")
    assert got.code == 0, got.err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    found: dict[str, Any] = board_of(tmp_path / "board")["references"]  # type: ignore[assignment]
    assert found["logistic regression"]["auc"] == metrics["auc"]
    assert "bayes" not in found
    monkeypatch.setattr(training, "train", None, raising=False)  # nothing is left to train
    assert bitfold(*line, "--out", tmp_path / "board", "--resume").code == 0
    assert board_of(tmp_path / "board")["references"] == found


def test_lines_of_references() -> None:
    found = {
        "logistic regression": {"auc": 0.6, "logloss": 0.5, "bytes": 100},
        "popularity": {"auc": 0.55, "logloss": 0.6, "field": "item"},
        "bayes": {"auc": 0.9, "logloss": None},
    }
    first, second, last = reference_lines(found, 0.8)
    assert (first.method, first.kept) == ("logistic regression", pytest.approx(0.75))
    assert second.method == "popularity of item"
    assert last.means == {"auc": 0.9}
    assert reference_lines(found, None)[0].kept is None
