import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import bitfold
from bitfold.data.prepare import prepare
from bitfold.data.prepared import PreparedLog
from bitfold.errors import BitfoldError
from bitfold.records import sealed
from bitfold.runs.predict import predict
from bitfold.training import train
from click_log import DATA, TINY, columns, write


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write(tmp_path_factory.mktemp("raw") / "clicks.csv", columns())


@pytest.fixture(scope="module")
def run(raw, tmp_path_factory):
    words = replace(TINY, keep_log=True, epochs=3, budget="1x", lr=0.03)
    return train([raw], DATA, words, tmp_path_factory.mktemp("runs") / "run").path


@pytest.fixture
def copy(run, tmp_path):
    """The run in another place, to be spoilt."""
    return shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("log", "logs"))


def test_a_loaded_run_has_what_it_needs(run):
    loaded = bitfold.load(run)
    assert not loaded.model.training
    assert not any(weight.requires_grad for weight in loaded.model.parameters())
    assert loaded.config.train.width == 4
    assert loaded.config.data == loaded.schema.config
    assert loaded.metrics["auc"] > 0.6
    assert loaded.plan.method == "hash"


def test_evaluate_gives_the_metrics_of_training(run):
    figures = bitfold.load(run).evaluate(run / "log")
    for name in ("auc", "logloss", "gauc", "calibration", "ece"):
        assert figures[name] == pytest.approx(bitfold.load(run).metrics[name], rel=1e-6)
    assert figures["rows"] == PreparedLog(run / "log").rows["test"]
    assert bitfold.load(run).evaluate(run / "log", "train")["auc"] > figures["auc"]


def test_evaluate_reads_raw_rows_too(run, raw):
    parts = [bitfold.load(run).evaluate(run / "log", part) for part in ("train", "valid", "test")]
    whole = bitfold.load(run).evaluate([raw])
    assert whole["rows"] == sum(part["rows"] for part in parts) == 2000
    mean = sum(part["logloss"] * part["rows"] for part in parts) / 2000
    assert whole["logloss"] == pytest.approx(mean, rel=1e-5)


def test_evaluate_refuses_what_it_cannot_judge(run, raw, tmp_path):
    other = prepare([raw], tmp_path / "seed", replace(DATA, hash_seed=3))
    with pytest.raises(BitfoldError, match="another hash_seed"):
        bitfold.load(run).evaluate(other.path)
    fewer = prepare([raw], tmp_path / "split", replace(DATA, split="random:0.5,0.25,0.25"))
    with pytest.raises(BitfoldError, match="from other rows"):
        bitfold.load(run).evaluate(fewer.path)
    table = columns(20)
    del table["rating"]
    unlabelled = write(tmp_path / "rows.csv", table)
    with pytest.raises(BitfoldError, match="no labels"):
        bitfold.load(run).evaluate(unlabelled)
    with pytest.raises(BitfoldError, match="part"):
        bitfold.load(run).evaluate(run / "log", "tset")


def test_scores_come_in_the_order_of_the_rows(run, tmp_path):
    table = columns(1000, seed=5)
    del table["rating"]
    raw = write(tmp_path / "rows.csv", table)
    loaded = bitfold.load(run)
    expected = loaded.predict(raw)
    one_by_one = [
        loaded.predict({name: [column[row]] for name, column in table.items()})[0]
        for row in range(0, 1000, 199)
    ]
    np.testing.assert_allclose(expected[::199], one_by_one, atol=1e-6)
    for batch_size in (1, 7, 1000):
        np.testing.assert_allclose(loaded.predict(raw, batch_size), expected, atol=1e-6)
    assert predict(run, raw, tmp_path / "scores.parquet") == 1000
    scores = pl.read_parquet(tmp_path / "scores.parquet")
    assert scores.schema == {"score": pl.Float32}
    assert np.array_equal(scores["score"].to_numpy(), expected)
    for name in ("scores.csv", "scores.csv.gz"):
        predict(loaded, [raw], tmp_path / name)
        written = pl.read_csv(tmp_path / name)["score"].to_numpy().astype(np.float32)
        assert np.array_equal(written, expected)


def test_rows_may_be_given_as_they_are(run):
    table = columns(30, seed=6)
    loaded = bitfold.load(run)
    by_column = loaded.predict(table)
    dicts = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    assert np.array_equal(loaded.predict(dicts), by_column)
    numbers = table | {"price": [float(price) for price in table["price"]]}
    np.testing.assert_allclose(loaded.predict(numbers), by_column, atol=1e-6)
    assert loaded.predict([]).shape == (0,)


def test_unseen_and_missing_values_have_scores(run):
    table = columns(3)
    table["user"] = ["nobody", None, "u1"]
    table["item"] = ["☃", "i1", None]
    table["price"] = [None, "-5", "1e30"]
    scores = bitfold.load(run).predict(table)
    assert np.isfinite(scores).all()
    assert len(set(scores.tolist())) == 3


def test_a_copied_run_serves_in_a_fresh_process(copy, run, tmp_path):
    raw = write(tmp_path / "rows.csv", columns(200, seed=8))
    code = (
        "import sys; from bitfold.runs.predict import predict;"
        "predict('copy', 'rows.csv', 'scores.parquet');"
        "assert 'lightning_fabric' not in sys.modules and 'tensorboard' not in sys.modules"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    scores = pl.read_parquet(tmp_path / "scores.parquet")["score"].to_numpy()
    np.testing.assert_allclose(scores, bitfold.load(run).predict(raw), atol=1e-7)


def test_predict_refuses(run, raw, tmp_path):
    (tmp_path / "old.csv").write_text("mine")
    for out, match in (
        (tmp_path / "old.csv", "exists"),
        (tmp_path / "scores.xlsx", "does not tell its format"),
        (tmp_path / "nowhere" / "scores.csv", "does not exist"),
    ):
        with pytest.raises(BitfoldError, match=match):
            predict(run, raw, out)
    assert (tmp_path / "old.csv").read_text() == "mine"
    predict(run, raw, tmp_path / "old.csv", force=True)
    assert (tmp_path / "old.csv").read_text().startswith("score\n")


def test_a_mistake_in_the_rows_leaves_no_scores(run, tmp_path):
    table = columns(20)
    table["price"][11] = "cheap"
    raw = write(tmp_path / "rows.csv", table)
    with pytest.raises(BitfoldError, match="price"):
        predict(run, raw, tmp_path / "scores.parquet")
    del table["item"]
    with pytest.raises(BitfoldError, match="item"):
        predict(run, write(raw, table), tmp_path / "scores.parquet")
    assert [file.name for file in tmp_path.iterdir()] == ["rows.csv"]


def test_nothing_in_a_run_is_pickled(run):
    kinds = {file.suffix for file in run.iterdir() if file.is_file()}
    assert kinds == {".json", ".safetensors"}


@pytest.mark.parametrize("name", ["weights.safetensors", "schema.json", "plan.json", "config.json"])
def test_a_truncated_file_is_noticed(copy, name):
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(BitfoldError, match=r"is not what was saved[\s\S]*bytes"):
        bitfold.load(copy)


@pytest.mark.parametrize("name", ["weights.safetensors", "schema.json", "metrics.json"])
def test_a_changed_byte_is_noticed(copy, name):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BitfoldError, match=r"is not what was saved[\s\S]*SHA-256"):
        bitfold.load(copy)


def test_a_missing_file_is_named(copy):
    (copy / "weights.safetensors").unlink()
    with pytest.raises(BitfoldError, match=r"lacks weights\.safetensors"):
        bitfold.load(copy)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format": 99}, "newer format"),
        ({"kind": "cake"}, "is no bitfold run file"),
        ({"format": "one"}, "damaged"),
        ({"files": {}}, "damaged"),
        ({"files": {"weights.safetensors": 3}}, "damaged"),
        ({"more": 1}, "damaged"),
    ],
)
def test_another_manifest(copy, change, match):
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(sealed(manifest | change)))
    with pytest.raises(BitfoldError, match=match):
        bitfold.load(copy)
    (copy / "manifest.json").write_text(json.dumps(manifest | {"bitfold": "0.0"}))
    with pytest.raises(BitfoldError, match="not what was saved"):
        bitfold.load(copy)


def test_what_is_no_run(copy, tmp_path):
    (copy / "manifest.json").write_text("{")
    with pytest.raises(BitfoldError, match="damaged"):
        bitfold.load(copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(BitfoldError, match=r"not a finished run[\s\S]*--resume"):
        bitfold.load(copy)
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(BitfoldError, match="not a finished run"):
            bitfold.load(path)
