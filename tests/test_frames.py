"""Rows in memory: frames, tables, columns and dictionaries through every public function."""

import datetime as dt
import decimal
import importlib
import io
import shutil
import sys
import types
import uuid

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import bitfold
from bitfold.data.config import DataConfig
from bitfold.data.frames import in_memory
from bitfold.errors import BitfoldError

ROWS = 400
TINY = {
    "label": "clicked",
    "fields": ["user", "item", "day"],
    "numeric": "price",
    "multi": {"item": "|"},
    "method": "hash",
    "budget": "4x",
    "width": 4,
    "hidden": [8],
    "epochs": 1,
    "batch_size": 128,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def columns():
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 40, ROWS), rng.integers(0, 20, ROWS)
    return {
        "user": user.tolist(),
        "item": [f"i{value}|i{value + 1}" for value in item],
        "day": [dt.date(2024, 1, 1 + int(value)) for value in item],
        "price": [None if value == 3 else float(value) / 4 for value in item],
        "clicked": (np.sin(user * 1.7) + rng.normal(size=ROWS) > 0).tolist(),
    }


def shapes(columns):
    """The same rows in every shape."""
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    frame = pl.DataFrame(columns)
    yield "columns", columns
    yield (
        "arrays",
        {
            name: np.array(values, object) if name in ("day", "price") else np.array(values)
            for name, values in columns.items()
        },
    )
    yield "polars", frame
    yield "lazy", frame.lazy()
    yield "pandas", pd.DataFrame(columns)
    yield "categories", pd.DataFrame(columns).astype({"user": "category", "item": "category"})
    yield "nullable", pd.DataFrame(columns).convert_dtypes()
    yield "arrow", frame.to_arrow()
    yield (
        "dictionary",
        frame.to_arrow().set_column(0, "user", frame["user"].to_arrow().dictionary_encode()),
    )
    yield (
        "batches",
        pa.RecordBatchReader.from_batches(
            frame.to_arrow().schema, frame.to_arrow().to_batches(max_chunksize=150)
        ),
    )
    yield "records", records
    yield "generator", (row for row in records)
    yield "structured", pd.DataFrame(columns).to_records(index=False)


@pytest.fixture(scope="module")
def run(columns):
    return bitfold.train(columns, **TINY)


def test_every_shape_is_the_same_log(columns):
    reading = {name: TINY[name] for name in ("label", "fields", "numeric", "multi")}
    found = {}
    for name, rows in shapes(columns):
        log = bitfold.prepare(rows, **reading)
        [found[name]] = log.batches("train", ROWS)
    first = found["columns"]
    for name, batch in found.items():
        for part in ("ids", "offsets", "numeric", "labels"):
            same = getattr(batch, part) == getattr(first, part)
            assert bool(same.all()), (name, part)


def test_every_shape_scores_the_same(columns, run):
    expected = run.predict(columns)
    assert len(np.unique(expected)) > 50
    for name, rows in shapes(columns):
        np.testing.assert_array_equal(run.predict(rows), expected, err_msg=name)


def test_a_frame_and_its_file_give_one_log(columns, tmp_path):
    pl.DataFrame(columns).write_parquet(tmp_path / "rows.parquet")
    reading = {name: TINY[name] for name in ("label", "fields", "numeric", "multi")}
    one = bitfold.prepare(columns, tmp_path / "one", **reading)
    other = bitfold.prepare(tmp_path / "rows.parquet", tmp_path / "other", **reading)
    assert one.rows == other.rows
    for a, b in zip(one.batches("train", 64), other.batches("train", 64), strict=True):
        assert bool((a.ids == b.ids).all())
        assert bool((a.labels == b.labels).all())


def test_a_run_is_kept_as_every_output_is_written(columns, tmp_path, monkeypatch):
    run = bitfold.train(columns, tmp_path / "run", **TINY)
    real = shutil.copytree

    def full(source, place, *more, **words):
        real(source, place, *more, **words)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(BitfoldError, match=r"No space left|disk is full"):
        run.save(tmp_path / "kept")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    monkeypatch.setattr(shutil, "copytree", real)
    with pytest.raises(BitfoldError):
        run.save(run.path / "inside")
    assert bitfold.load(run.save(tmp_path / "kept")).metrics == run.metrics


def test_a_frame_needs_no_files_and_leaves_none(columns, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run = bitfold.train(columns, **TINY)
    assert run.path.is_dir()
    scores = run.predict(columns)
    kept = bitfold.load(run.save(tmp_path / "deep" / "kept"))
    with pytest.raises(BitfoldError, match="exists"):
        run.save(kept.path)
    del run
    np.testing.assert_array_equal(kept.predict(columns), scores)
    shutil.rmtree(tmp_path / "deep")
    with pytest.raises(BitfoldError, match="label"):
        bitfold.train(columns, fields="user")
    assert list(tmp_path.iterdir()) == []


def test_resume_knows_the_frame(columns, tmp_path):
    bitfold.train(columns, tmp_path / "run", **TINY)
    again = bitfold.train(columns, tmp_path / "run", resume=True, **TINY)
    assert again.path == tmp_path / "run"
    other = columns | {"user": columns["user"][::-1]}
    with pytest.raises(BitfoldError, match="another paths"):
        bitfold.train(other, tmp_path / "run", resume=True, **TINY)


def test_from_run_takes_the_options_of_the_run(columns, run):
    more = bitfold.train(columns, from_run=run, epochs=1)
    assert more.config.train.width == 4
    assert more.config.data == run.config.data


def test_compare_and_inspect_take_frames(columns, tmp_path):
    words = TINY | {"methods": "full,hash", "budgets": "4x", "seeds": 1, "diagnosis": False}
    del words["method"], words["budget"]
    found = bitfold.compare(pd.DataFrame(columns), tmp_path / "board", floors=False, **words)
    assert [line.method for line in found.lines] == ["full", "hash"]
    seen = bitfold.inspect(columns, label="clicked", fields="user,day", quick=True)
    assert seen["fields"][0]["distinct"] == len(set(columns["user"]))


def test_functions_are_not_hidden_by_modules():
    importlib.import_module("bitfold.comparison.compare")
    importlib.import_module("bitfold.data.inspected")
    for name in ("prepare", "train", "compare", "inspect", "plan", "load", "methods"):
        assert callable(getattr(bitfold, name))
        assert not isinstance(getattr(bitfold, name), type(sys))


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ({"user": [1, 2], "clicked": [0]}, "not of one length"),
        ({"user": [{1}, {2}], "clicked": [0, 1]}, "cannot be read: column 'user'"),
        ({"user": [b"x", b"y"], "clicked": [0, 1]}, "cannot be (read|hashed)"),
        ({"user": ["\ud800", "x"], "clicked": [0, 1]}, "no Unicode text: column 'user'"),
        ([{"user": 1, "clicked": 0}, 7], "row 2 is no dictionary"),
        ([{"usr": 1, "clicked": 0}], "no column 'user'"),
        (pl.DataFrame({"usr": [1], "clicked": [0]}), "no column 'user'"),
        (pl.Series("user", [1]), "one column is no frame"),
        (17, "neither rows nor paths"),
        ([], "no rows"),
        ({"user": [], "clicked": []}, "no rows"),
        ({"user": [1, 2, 3], "clicked": [0, 1, None]}, "label is missing"),
    ],
)
def test_what_is_no_log(rows, match, tmp_path):
    with pytest.raises(BitfoldError, match=match):
        bitfold.prepare(rows, tmp_path / "log", label="clicked", fields="user")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_option_names_the_nearest(columns):
    with pytest.raises(BitfoldError, match="did you mean 'fields'"):
        bitfold.train(columns, label="clicked", feilds="user")


def test_foreign_values_have_a_text():
    config = DataConfig(fields=("v",))
    some = uuid.UUID(int=5)
    values = [
        *(some, decimal.Decimal("NaN"), decimal.Decimal("1.50"), np.float32(0.1), np.int64(7)),
        *(pd.NaT, pd.NA, pd.Timestamp("2024-01-02 03:04:05.5"), np.datetime64("2024-01-02")),
        *(2**63, -(2**70), dt.time(1, 2), np.datetime64("NaT"), np.str_("x"), np.array(3)),
    ]
    [rows] = in_memory([{"v": value} for value in values]).read(config, ["v"])
    assert rows.frame["v"].to_list() == [
        *(str(some), None, "1.5", "0.1", "7"),
        *(None, None, "2024-01-02T03:04:05.500000", "2024-01-02"),
        *("9223372036854775808", "-1180591620717411303424", "01:02:00", None, "x", "3"),
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_draws_where_it_can_be_seen(columns, monkeypatch):
    words = {"label": "clicked", "fields": "user"}
    drawn = Terminal()
    monkeypatch.setattr("sys.stderr", drawn)
    monkeypatch.setenv("TERM", "xterm")
    bitfold.prepare(columns, **words)
    assert "preparing" in drawn.getvalue()
    quiet = io.StringIO()
    monkeypatch.setattr("sys.stderr", quiet)
    bitfold.prepare(columns, **words)
    silent = Terminal()
    monkeypatch.setattr("sys.stderr", silent)
    bitfold.prepare(columns, progress=False, **words)
    assert (quiet.getvalue(), silent.getvalue()) == ("", "")
    told = []
    bitfold.prepare(columns, progress=lambda stage, *rest, **facts: told.append(stage), **words)
    assert "preparing: reading" in told


def test_progress_draws_in_a_notebook(columns, monkeypatch):
    shown = []

    class Handle:
        def update(self, made):
            shown.append(made)

    def display(made, display_id):
        shown.append(made)
        return Handle()

    shell = types.ModuleType("IPython")
    shell.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    screen = types.ModuleType("IPython.display")
    screen.HTML, screen.display = str, display
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", screen)
    quiet = io.StringIO()
    monkeypatch.setattr("sys.stderr", quiet)
    bitfold.prepare(columns, label="clicked", fields="user")
    assert len(shown) >= 2
    assert all(html.startswith("<pre") for html in shown)
    assert "preparing: writing" in shown[-1]
    assert "400 rows" in shown[-1]
    assert quiet.getvalue() == ""
