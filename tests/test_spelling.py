"""Values that are written otherwise than in training: known again, or told of."""

import datetime as dt
import logging

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bitfold
from bitfold.data import newness, types
from bitfold.data.canonical import text_of
from bitfold.data.raw import read_batches

ROWS = 240
WORDS = {"label": "clicked", "split": "random:0.6,0.2,0.2"}
DAYS = [dt.date(2024, 1, 1 + i % 20) for i in range(ROWS)]
COLUMNS = {
    "float": [float(i % 40) / 2 for i in range(ROWS)],
    "float32": np.array([i % 40 / 10 for i in range(ROWS)], np.float32),
    "int": [i % 30 for i in range(ROWS)],
    "gaps": [None if i % 7 == 0 else float(i % 30) for i in range(ROWS)],
    "bool": [i % 3 == 0 for i in range(ROWS)],
    "date": DAYS,
    "moment": [dt.datetime(2024, 1, 1 + i % 20) for i in range(ROWS)],
    "hour": [dt.datetime(2024, 1, 1 + i % 20, i % 24, 30) for i in range(ROWS)],
    "tick": [dt.datetime(2024, 1, 1, 5, 0, 0, 500_000 + i % 9) for i in range(ROWS)],
    "aware": [dt.datetime(2024, 1, 1 + i % 20, 7, tzinfo=dt.UTC) for i in range(ROWS)],
    "code": [f"{i % 50:03d}" for i in range(ROWS)],
    "text": [f"v{i % 50}" for i in range(ROWS)],
    "clicked": [i * 7919 % 5 > 2 for i in range(ROWS)],
}
FIELDS = [name for name in COLUMNS if name != "clicked"]


def ids(data, schema):
    [batch] = read_batches(data, schema, 10**6, fields_only=True)
    return batch.ids.numpy()


def known_again(log, data, fields):
    """Which of the fields have the ids of training in other data."""
    [batch] = log.batches("train", 10 * ROWS)
    trained = batch.ids.numpy()
    found = ids(data, log.schema)
    return [
        name
        for place, name in enumerate(fields)
        if set(trained[:, place].tolist()) <= set(found[:, place].tolist())
        and len(np.unique(found[:, place])) == len(np.unique(ids(COLUMNS, log.schema)[:, place]))
    ]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One table: by pandas and by Polars, as CSV and as Parquet."""
    folder = tmp_path_factory.mktemp("files")
    frame = pl.DataFrame(COLUMNS)
    pandas = frame.to_pandas()
    frame.write_parquet(folder / "rows.parquet")
    pandas.to_csv(folder / "pandas.csv", index=False)
    frame.write_csv(folder / "polars.csv")
    spelt = pandas.assign(
        bool=pandas["bool"].map(str).str.upper(),
        date=[f"{day} 00:00:00" for day in DAYS],
        moment=[str(moment.date()) for moment in COLUMNS["moment"]],
        int=[f"{value}.0" for value in COLUMNS["int"]],
        float=[f"{value:.3f}" for value in COLUMNS["float"]],
        hour=[moment.isoformat() for moment in COLUMNS["hour"]],
        aware=[moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in COLUMNS["aware"]],
    )
    spelt.to_csv(folder / "spelt.csv", index=False)
    return folder


@pytest.mark.parametrize("other", ["pandas.csv", "polars.csv", "spelt.csv", "rows.parquet"])
def test_what_parquet_typed_is_known_again_in_text(files, other):
    log = bitfold.prepare(files / "rows.parquet", fields=FIELDS, **WORDS)
    assert known_again(log, files / other, FIELDS) == FIELDS


def test_what_was_text_is_known_again_in_types(files):
    log = bitfold.prepare(files / "pandas.csv", fields=FIELDS, **WORDS)
    frame = pd.read_parquet(files / "rows.parquet")
    assert known_again(log, files / "rows.parquet", FIELDS) == FIELDS
    assert known_again(log, frame, FIELDS) == FIELDS
    # pandas' dictionaries have lost a float's width.
    kept = [name for name in FIELDS if name != "float32"]
    assert known_again(log, frame.to_dict("records"), FIELDS) == kept


def test_one_row_alone_is_spelt_as_a_column_is(files):
    for name in ("rows.parquet", "pandas.csv"):
        log = bitfold.prepare(files / name, fields=FIELDS, **WORDS)
        frame = pd.read_csv(files / "spelt.csv")
        together = ids(frame, log.schema)
        for index in (0, 7, 31):
            alone = ids([frame.iloc[index].to_dict()], log.schema)
            np.testing.assert_array_equal(alone[0], together[index])


def test_text_with_leading_zeros_stays_apart(files):
    log = bitfold.prepare(files / "pandas.csv", fields="code", **WORDS)
    found = ids({"code": ["007", "7", "7.0", 7, "07"]}, log.schema)[:, 0]
    assert len(np.unique(found)) == 4  # 7 and "7" are one value
    assert found[1] == found[3]


def test_an_empty_text_is_an_empty_cell(files):
    log = bitfold.prepare(files / "pandas.csv", fields="text,code", **WORDS)
    found = ids({"text": ["", None, " "], "code": ["", None, "1"]}, log.schema)
    assert (found[0] == found[1]).all()
    assert found[2, 0] != found[1, 0]


def test_the_schema_keeps_the_types(files, tmp_path):
    log = bitfold.prepare(files / "rows.parquet", tmp_path / "log", fields=FIELDS, **WORDS)
    expected = {
        **{"float": "float", "float32": "float32", "int": "int", "gaps": "float", "bool": "bool"},
        **{"date": "date", "moment": "datetime", "hour": "datetime", "tick": "datetime"},
        **{"aware": "datetime-utc", "code": "text", "text": "text"},
    }
    assert log.schema.types == expected
    text = bitfold.prepare(files / "pandas.csv", fields=FIELDS, **WORDS).schema.types
    assert text["float"] == "cells:float"
    assert text["bool"] == "cells:True"
    assert text["date"] == "cells:date"
    assert text["hour"] == "cells:datetime"
    assert text["aware"] == "cells:datetime+00:00"
    assert text["code"] == "cells"


@given(
    st.sampled_from(["int", "float", "bool", "date", "datetime", "cells:float", "cells:datetime"]),
    st.lists(
        st.one_of(
            st.floats(allow_nan=False, allow_infinity=False).map(repr),
            st.integers().map(str),
            st.datetimes().map(str),
            st.sampled_from(["True", "2024-01-22", "40.0", " 7", "x", "", "-0.0", "1e5", "NaN"]),
        ),
        min_size=1,
        max_size=8,
    ),
)
def test_columns_and_values_are_spelt_alike(kind, texts):
    spelt = types.respell(pl.Series(texts, dtype=pl.String), kind).to_list()
    assert spelt == [types.speller(kind)(text) for text in texts]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_has_one_spelling(value):
    for text in (repr(value), f"{value:.17g}", f"{value:.17e}"):
        assert types.speller("float")(text) == text_of(value)


@given(st.datetimes(), st.sampled_from(["T", " "]))
def test_a_moment_has_one_spelling(value, between):
    assert types.speller("datetime")(value.isoformat(between)) == text_of(value)


@pytest.fixture(scope="module")
def run():
    table = {
        "user": [f"u{i * 7 % 60}" for i in range(600)],
        "price": [f"price {i % 11}" for i in range(600)],
        "clicked": [i * 7919 % 5 > 2 for i in range(600)],
    }
    words = {"method": "hash", "budget": "4x", "width": 4, "hidden": [8], "epochs": 1}
    return bitfold.train(table, fields="user,price", **WORDS, **words)


def said(caplog):
    return [record.getMessage() for record in caplog.records if "are new" in record.getMessage()]


def test_far_more_new_values_are_told_with_an_example(run, caplog, tmp_path):
    rows = {"user": [f"u{i % 60}" for i in range(200)], "price": ["price_1"] * 200}
    run = bitfold.load(run.save(tmp_path / "run"))
    with caplog.at_level(logging.WARNING, "bitfold"):
        run.predict(rows | {"price": [f"price {i % 11}" for i in range(200)]})
        assert said(caplog) == []
        run.predict(rows)
        run.predict(rows)
    [line] = said(caplog)
    assert "100% of the values of 'price' are new (0% of the held-out" in line
    assert "'price_1'" in line


def test_evaluate_and_from_tell_too(run, caplog, tmp_path):
    table = {
        "user": [f"U{i}" for i in range(300)],
        "price": [f"price {i % 11}" for i in range(300)],
        "clicked": [i % 3 == 0 for i in range(300)],
    }
    kept = run.save(tmp_path / "run")
    with caplog.at_level(logging.WARNING, "bitfold"):
        bitfold.load(kept).evaluate(table)
        assert [("'user'" in line, "'U0'" in line) for line in said(caplog)] == [(True, True)]
        bitfold.train(table, from_run=kept, epochs=1)
        assert len(said(caplog)) == 2
        log = bitfold.prepare(table, fields="user,price", **WORDS)
        bitfold.load(kept).evaluate(log, "train")
        assert len(said(caplog)) == 3


def test_a_few_rows_and_usual_news_say_nothing(run, caplog):
    with caplog.at_level(logging.WARNING, "bitfold"):
        for count in (1, 40):
            run.predict({"user": ["new"] * count, "price": ["new"] * count})
        users = [f"u{i % 60}" if i % 10 else f"new {i}" for i in range(500)]
        run.predict({"user": users, "price": [None] * 500})
    assert said(caplog) == []


def test_what_is_known_is_bounded_and_whole(tmp_path):
    table = {
        "user": [f"u{i}" for i in range(20_000)],
        "clicked": [i % 2 for i in range(20_000)],
    }
    log = bitfold.prepare(table, tmp_path / "log", fields="user", **WORDS)
    known = log.schema.known
    assert 500 < len(known.keys[0]) <= newness.KEPT
    assert known.levels[0] == 3
    assert known.unseen[0] == 1.0
    watch = newness.Watch(log.schema)
    watch.see_ids(0, ids({"user": table["user"]}, log.schema)[:, 0])
    new, of = watch._counts[0]
    assert 0.3 < new / of < 0.5  # the held-out rows
    (tmp_path / "log" / newness.KNOWN_FILE).write_bytes(b"x")
    with pytest.raises(bitfold.BitfoldError):
        bitfold.inspect(tmp_path / "log")


def test_a_log_without_held_out_rows_knows_its_ids(tmp_path):
    table = {"user": [1, 2] * 30, "clicked": [0, 1] * 30, "part": ["train"] * 60}
    words = {"label": "clicked", "fields": "user", "split": "column:part"}
    log = bitfold.prepare(table, tmp_path / "log", **words)
    assert np.isnan(log.schema.known.unseen[0])
