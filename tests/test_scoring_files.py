"""Files to score: read otherwise than the log was, with the fields alone, carried along, piped."""

import gzip
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

import bitfold
from bitfold.data.formats import LAYOUTS
from bitfold.errors import BitfoldError
from bitfold.runs.predict import predict
from test_scoring import ROWS, WORDS, columns

BITFOLD = (sys.executable, "-m", "bitfold")


@pytest.fixture(scope="module")
def run():
    table = columns() | {"weight": [1.0] * ROWS}
    return bitfold.train(table, weight="weight", group="user", **WORDS)


@pytest.fixture(scope="module")
def expected(run):
    return run.predict(columns(1))


def lines(table, separator=",", header=True):
    texts = [separator.join(table)] if header else []
    rows = zip(*table.values(), strict=True)
    return "\n".join([*texts, *(separator.join(map(str, row)) for row in rows)]) + "\n"


FIELDS = ("user", "item", "tags", "when", "price")


def fields(seed=1):
    return {name: columns(seed)[name] for name in FIELDS}


@pytest.mark.parametrize("label", ["", "-1", "?", "NaN", "clicked"])
def test_what_is_no_field_does_not_matter(run, expected, label, tmp_path):
    table = {"other": ["x"] * ROWS} | dict(reversed(fields().items()))
    table |= {"clicked": [label] * ROWS, "weight": [label] * ROWS}
    path = tmp_path / "rows.csv"
    path.write_text(lines(table))
    np.testing.assert_allclose(run.predict(path), expected, rtol=1e-6)
    with pytest.raises(BitfoldError, match="label"):
        run.evaluate(path)
    path.write_text(lines(fields()))
    np.testing.assert_allclose(run.predict(path), expected, rtol=1e-6)
    with pytest.raises(BitfoldError, match="no labels"):
        run.evaluate(path)


@pytest.mark.parametrize(
    ("name", "separator", "header", "options"),
    [
        ("rows.txt", "\t", True, {"format": "tsv"}),
        ("rows.csv", ";", True, {"separator": ";"}),
        ("rows.csv", ",", False, {"columns": ",".join(FIELDS)}),
        ("rows.csv", ",", False, {"columns": list(FIELDS), "header": "no"}),
        ("rows.csv.gz", ",", True, {}),
    ],
)
def test_files_are_read_as_is_said(run, expected, name, separator, header, options, tmp_path):
    text = lines(fields(), separator, header).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    np.testing.assert_allclose(run.predict(path, **options), expected, rtol=1e-6)
    out = tmp_path / "scores.csv"
    assert predict(run, path, out, **options) == ROWS
    np.testing.assert_allclose(pl.read_csv(out)["score"].to_numpy(), expected, rtol=1e-6)


def test_texts_that_mean_missing(run, tmp_path):
    table = fields()
    table["item"] = ["-1", "?", *table["item"][2:]]
    path = tmp_path / "rows.csv"
    path.write_text(lines(table))
    missing = run.predict(path, missing="-1,?")
    none = fields() | {"item": [None, None, *table["item"][2:]]}
    np.testing.assert_allclose(missing, run.predict(none), rtol=1e-6)
    np.testing.assert_allclose(run.predict(table, missing=["-1", "?"]), missing, rtol=1e-6)
    one = [run.predict({k: v[i] for k, v in table.items()}, missing="-1,?")[0] for i in (0, 1)]
    np.testing.assert_allclose(one, missing[:2], rtol=1e-6)
    assert run.predict(path)[0] != missing[0]


def test_an_option_that_would_change_ids_is_none_of_reading(run):
    with pytest.raises(BitfoldError, match="option of reading 'fields'"):
        run.predict(fields(), fields="user")


@pytest.mark.parametrize("name", ["out.csv", "out.csv.gz", "out.parquet"])
def test_columns_are_carried_along_as_they_are(run, name, tmp_path):
    table = fields() | {"id": [f'007,"{i}"' for i in range(ROWS)], "empty": [""] * ROWS}
    table["item"][3] = "-1"
    rows = tmp_path / "rows.csv"
    pl.DataFrame(table).write_csv(rows)
    out = tmp_path / name
    options = {"missing": "-1"}
    assert predict(run, rows, out, keep=["id", "item", "empty"], batch_size=64, **options) == ROWS
    read = pl.read_parquet if name.endswith("parquet") else pl.read_csv
    found = read(out)
    assert found.columns == ["id", "item", "empty", "score"]
    assert found["id"].to_list() == table["id"]
    assert found["item"].to_list() == table["item"]
    scores = run.predict(rows, **options)
    np.testing.assert_allclose(found["score"].to_numpy(), scores, rtol=1e-6)
    parquet = tmp_path / "rows.parquet"
    pl.DataFrame(fields()).write_parquet(parquet)
    predict(run, parquet, out, keep=["price", "user"], force=True)
    assert read(out)["price"].to_list() == pytest.approx(table["price"])
    assert read(out)["user"].to_list() == table["user"]


def test_what_cannot_be_kept(run, tmp_path):
    with pytest.raises(BitfoldError, match="'usr'"):
        predict(run, fields(), tmp_path / "out.csv", keep=["usr"])
    with pytest.raises(BitfoldError, match="name of the scores"):
        predict(run, fields() | {"score": [1] * ROWS}, tmp_path / "out.csv", keep=["score"])
    lists = fields() | {"tags": [text.split("|") for text in fields()["tags"]]}
    with pytest.raises(BitfoldError, match="'tags' holds lists"):
        predict(run, lists, tmp_path / "out.csv", keep=["tags"])
    assert list(tmp_path.iterdir()) == []


def test_frames_are_scored_into_files(run, expected, tmp_path):
    assert predict(run, fields(), tmp_path / "out.parquet", keep=["tags"]) == ROWS
    found = pl.read_parquet(tmp_path / "out.parquet")
    assert found["tags"].to_list() == fields()["tags"]
    np.testing.assert_allclose(found["score"].to_numpy(), expected, rtol=1e-6)


def test_the_command_pipes(run, expected, tmp_path):
    folder = run.save(tmp_path / "run")
    text = lines(fields(), "\t")
    command = [*BITFOLD, "predict", folder, "-", "--format", "tsv", "--out", "-", "--keep", "item"]
    done = subprocess.run(
        list(map(str, command)), input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = pl.read_csv(done.stdout.encode())
    assert found["item"].to_list() == fields()["item"]
    np.testing.assert_allclose(found["score"].to_numpy(), expected, rtol=1e-6)


def test_the_command_evaluates_other_files(run, tmp_path):
    folder = run.save(tmp_path / "run")
    table = columns(1) | {"other": [""] * ROWS}
    path = tmp_path / "rows.txt"
    path.write_text(lines(table, ";"))
    command = [*BITFOLD, "evaluate", folder, path, "--format", "csv", "--separator", ";", "--json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '"rows": 300' in done.stdout


@pytest.mark.parametrize("kind", ["criteo", "avazu"])
def test_the_public_test_files_are_scored_as_they_are(kind, tmp_path):
    layout = LAYOUTS[kind]
    rng = np.random.default_rng(0)
    names = layout.columns or ("id", "click", "hour", *layout.fields)
    table = {name: rng.integers(0, 9, 200).tolist() for name in names}
    table[layout.label] = rng.integers(0, 2, 200).tolist()
    table |= {"hour": [14102100 + i % 24 for i in range(200)]} if "hour" in table else {}
    for name in layout.numeric[:3]:
        table[name][::7] = [""] * len(table[name][::7])
    header = layout.header == "yes"
    train, test = tmp_path / "train", tmp_path / "test"
    train.write_text(lines(table, layout.separator, header))
    asked = {name: column for name, column in table.items() if name != layout.label}
    test.write_text(lines(asked, layout.separator, header))
    words = {name: WORDS[name] for name in ("method", "budget", "width", "hidden", "epochs")}
    run = bitfold.train(train, format=kind, device="cpu", batch_size=64, **words)
    np.testing.assert_array_equal(run.predict(test), run.predict(train))
