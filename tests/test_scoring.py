"""Rows that are scored: each by itself, alone or among others, in any process."""

import datetime as dt
import decimal
import multiprocessing
import os
import uuid
from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bitfold
from bitfold.data import single
from bitfold.data.frames import in_memory
from bitfold.data.raw import read_batches
from bitfold.errors import BitfoldError

ROWS = 300
WORDS = {
    "label": "clicked",
    "fields": "user,item,tags,when",
    "multi": {"tags": "|"},
    "numeric": "price",
    "cross": "user*item",
    "method": "hash",
    "budget": "4x",
    "width": 4,
    "hidden": [8],
    "epochs": 1,
    "batch_size": 128,
    "device": "cpu",
}


def columns(seed=0):
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 40, ROWS), rng.integers(0, 20, ROWS)
    return {
        "user": user.tolist(),
        "item": [f"i{value}" for value in item],
        "tags": ["|".join(f"t{k}" for k in range(value % 4)) for value in item],
        "when": [f"w{value}" for value in rng.integers(0, 9, ROWS)],
        "price": rng.lognormal(size=ROWS).tolist(),
        "clicked": (np.sin(user * 1.7) + rng.normal(size=ROWS) > 0).astype(int).tolist(),
    }


@pytest.fixture(scope="module", params=["hashed", "vocabulary", "missing", "buckets"])
def run(request):
    more = {
        "hashed": {},
        "vocabulary": {"ids": "vocabulary"},
        "missing": {"missing": "-1,none"},
        "buckets": {"numeric_transform": "buckets:4"},
    }[request.param]
    return bitfold.train(columns(), **WORDS, **more)


@pytest.fixture(scope="module")
def plain():
    return bitfold.train(columns(), **WORDS)


moments = st.datetimes(min_value=dt.datetime(1900, 1, 1), max_value=dt.datetime(2200, 1, 1))
zoned = st.datetimes(
    min_value=dt.datetime(1900, 1, 2),
    max_value=dt.datetime(2200, 1, 1),
    timezones=st.sampled_from([dt.UTC, dt.timezone(dt.timedelta(hours=5, minutes=30))]),
)
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.floats(width=32).map(np.float32),
    st.integers(-5, 45).map(np.int64),
    st.text(max_size=4),
    st.sampled_from(["i1", "i2", "007", "7", "7.0", "-1", "none", "", "3", "true"]),
    st.dates(),
    moments,
    zoned,
    moments.map(pd.Timestamp),
    st.sampled_from([pd.NA, pd.NaT, decimal.Decimal("NaN"), np.bool_(True), uuid.UUID(int=3)]),
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20),
)
texts = st.text(st.characters(codec="utf-8"), max_size=3)
prices = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(-1e30, 1e30),
    st.sampled_from(["1", " 2.50 ", "1e3", "-.5", "nan", "-1", "7.", "+4", "+.5e-3"]),
    st.sampled_from([np.float32(0.1), decimal.Decimal("0.30"), pd.NA, float("nan")]),
)
bags = st.one_of(
    st.none(), st.lists(texts, max_size=3), st.lists(texts, max_size=3).map("|".join), st.just(7)
)
rows = st.lists(
    st.fixed_dictionaries(
        {"price": prices, "tags": bags, "user": values},
        optional={"item": values, "when": values, "other": st.integers()},
    ),
    min_size=2,
    max_size=6,
)


def ids_of(batch):
    parts = (batch.ids, batch.offsets, batch.numeric)
    return [None if part is None else part.tolist() for part in parts]


@given(rows)
def test_a_row_has_the_score_that_it_has_alone(run, some):
    together = run.predict(some)
    alone = np.concatenate([run.predict([row]) for row in some])
    np.testing.assert_allclose(together, alone, rtol=1e-5)


@given(rows)
def test_value_by_value_or_by_columns_the_ids_are_the_same(run, some):
    encoder = single.RowEncoder(run.schema.rules())
    one = encoder.batch(some)
    frames = in_memory(iter(some))  # rows that are not counted go by columns
    [other] = read_batches(frames, run.schema, 100, fields_only=True)
    assert ids_of(one) == ids_of(other)


@pytest.mark.parametrize("filler", [1, "text", 2.5, True, dt.date(2024, 1, 1), None])
def test_the_first_hundred_rows_decide_nothing(plain, filler):
    base = {"item": "i1", "tags": "t1", "when": "w1", "price": 1}
    rows = [base | {"user": filler} for _ in range(150)]
    odd = [base | {"user": value} for value in (20.5, "x", 2**63, 2**64 + 1, -(2**63) - 1, 7.0)]
    expected = np.concatenate([plain.predict(row) for row in odd])
    np.testing.assert_allclose(plain.predict(rows + odd)[150:], expected, rtol=1e-6)
    np.testing.assert_allclose(plain.predict(iter(rows + odd))[150:], expected, rtol=1e-6)


def test_whole_and_broken_numbers_stay_what_they_are(plain):
    base = {"user": 1, "item": "i1", "tags": "t1", "when": "w1"}
    prices = [1, 20.5, 20, 3]
    rows = [base | {"price": price} for price in prices]
    [batch] = plain.batches(rows, fields_only=True)
    info = plain.schema.numeric[0]
    shaped = (np.log1p(prices) - info.mean) / info.deviation
    np.testing.assert_allclose(batch.numeric[:, 0].numpy(), shaped, rtol=1e-5)


def test_a_key_met_later_is_a_missing_value_before(plain):
    rows = [{"user": 1}, {"user": 1, "item": "i3", "price": 2, "tags": "t1"}]
    first, second = plain.predict(rows)
    assert first == plain.predict({"user": 1})
    assert second == plain.predict(rows[1])
    nothing = {"item": None, "tags": None, "price": None, "when": None}
    assert first == plain.predict({"user": 1} | nothing)


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ({"user": {1, 2}}, "column 'user'"),
        ({"user": b"x"}, "column 'user'"),
        ({"user": [1]}, "column 'user'"),
        ({"user": "\ud800"}, "no Unicode text: column 'user'"),
        ({"user": 1, "tags": "a|\udfff"}, "no Unicode text: column 'tags'"),
        ({"user": 1, "price": "cheap"}, "column 'price'"),
        ({"user": 1, "price": float("inf")}, "no number"),
        ({"user": 1, "price": dt.date(2024, 1, 1)}, "column 'price'"),
        ({"user": 1j}, "column 'user'"),
        ({"usr": 1}, "no column 'user'"),
        ({"usre": 1, "item": "i1"}, "did you mean 'usre'"),
        ({}, "no column|nothing"),
        ({"user": 10**5000}, "an integer of"),
        ({"user": decimal.Decimal("1e1000000")}, "column 'user'"),
    ],
)
@pytest.mark.parametrize("many", [1, 200])
def test_a_value_that_cannot_be_read_is_named(plain, row, match, many):
    base = {"user": 1, "price": 1.0, "item": "i1", "tags": "t1", "when": "w1"}
    with pytest.raises(BitfoldError, match=match):
        plain.predict([base] * (many - 1) + [row])


@pytest.mark.parametrize("many", [1, 60])
@pytest.mark.parametrize(
    ("some", "same"),
    [
        (np.ma.array([1, 2, 3], mask=[0, 1, 0]), [1, None, 3]),
        (pd.Categorical([1, None, 3]), [1, None, 3]),
        (pd.Series(pd.Categorical(["a", None, "b"])), ["a", None, "b"]),
        (pd.Index([1, 2, 3]), [1, 2, 3]),
        (pd.arrays.SparseArray([1, 0, 2]), [1, 0, 2]),
        (pd.array([1, None, 3], dtype="Int64"), [1, None, 3]),
        (pd.array([0.1, None, 3], dtype="Float32"), [np.float32(0.1), None, 3]),
        (np.array([0.1, 2, 3], np.float16), [np.float16(0.1), 2, 3]),
        (np.array(["a", "b", "c"]), ["a", "b", "c"]),
        (np.array([2**63, 2**64 - 1, 0], np.uint64), [2**63, 2**64 - 1, 0]),
        (np.array([1, 2, 3], ">i4"), [1, 2, 3]),
        (np.array(["2024-01-02", "NaT", "2024-01-03"], "M8[s]"), None),
        (pl.Series([0.1, None, 3], dtype=pl.Float32), [np.float32(0.1), None, 3]),
        (pl.Series(["a", None, "b"], dtype=pl.Categorical), ["a", None, "b"]),
        (range(3), [0, 1, 2]),
    ],
)
def test_columns_of_every_kind(plain, some, same, many):
    if same is None:
        same = ["2024-01-02T00:00:00", None, "2024-01-03T00:00:00"]
    column = some
    if many > 1:
        together = pl.concat if isinstance(some, pl.Series) else np.ma.concatenate
        if isinstance(some, np.ndarray | pl.Series):
            column = together([some] * many)
        elif not isinstance(some, range):
            column = pd.concat([pd.Series(some)] * many, ignore_index=True)
        else:
            return
    count = 3 * many
    filler = {"price": [1.0] * count, "item": ["i"] * count, "tags": [""] * count}
    found = plain.predict(filler | {"user": column, "when": column})
    one = {"price": 1.0, "item": "i", "tags": ""}
    alone = [plain.predict(one | {"user": value, "when": value})[0] for value in same]
    np.testing.assert_allclose(found, alone * many, rtol=1e-6)


@pytest.mark.parametrize("data", [b"rows", 3, None, pd.Series([1]), pl.Series([1]), [1], [[1]]])
def test_what_is_no_data(plain, data):
    with pytest.raises(BitfoldError, match=r"neither rows|no frame|no dictionary"):
        plain.predict(data)


def test_columns_of_unequal_length(plain):
    rows = columns() | {"price": [1.0]}
    with pytest.raises(BitfoldError, match="not of one length"):
        plain.predict(rows)


def test_in_memory_rows_need_no_disk(plain, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a temporary file")

    for name in ("TemporaryDirectory", "NamedTemporaryFile", "mkdtemp", "mkstemp"):
        monkeypatch.setattr(f"tempfile.{name}", refuse)
    assert plain.predict(columns()).shape == (ROWS,)


@pytest.mark.parametrize("kind", ["csv", "tsv", "criteo", "movielens"])
def test_a_run_of_any_format_scores_rows_in_memory(kind, tmp_path):
    rng = np.random.default_rng(0)
    words = {name: WORDS[name] for name in ("method", "budget", "width", "hidden", "epochs")}
    names = {
        "criteo": ["label", *(f"I{i}" for i in range(1, 14)), *(f"C{i}" for i in range(1, 27))]
    }
    names["movielens"] = ["user", "movie", "rating", "timestamp"]
    wanted = names.get(kind, ["label", "a", "b"])
    table = {name: rng.integers(0, 6, 200).tolist() for name in wanted}
    if "label" in table:
        table["label"] = rng.integers(0, 2, 200).tolist()
    separator = "," if kind in ("csv", "movielens") else "\t"
    lines = [separator.join(map(str, row)) for row in zip(*table.values(), strict=True)]
    if kind in ("csv", "tsv"):
        lines.insert(0, separator.join(wanted))
        words |= {"label": "label", "fields": "a,b"}
    path = tmp_path / "log.txt"
    path.write_text("\n".join(lines) + "\n")
    run = bitfold.train(path, format=kind, device="cpu", batch_size=64, **words)
    expected = run.predict(path)
    np.testing.assert_allclose(run.predict(table), expected, rtol=1e-6)
    np.testing.assert_allclose(run.predict(pd.DataFrame(table)), expected, rtol=1e-6)
    texts = {name: [str(value) for value in column] for name, column in table.items()}
    np.testing.assert_allclose(run.predict(texts), expected, rtol=1e-6)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_scores(plain, tmp_path):
    table = columns(1)
    frame = pl.DataFrame(table)
    frame.write_csv(tmp_path / "rows.csv")
    frame.write_parquet(tmp_path / "rows.parquet")
    sources = [table, frame, frame.to_pandas(), frame.to_arrow(), frame.to_dicts()]
    sources += [tmp_path / "rows.csv", tmp_path / "rows.parquet"]
    expected = plain.predict(table)

    def child(queue):
        queue.put([plain.predict(source) for source in sources])

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    try:
        found = queue.get(timeout=100)
    finally:
        process.join(5)
        process.kill()
    for source, scores in zip(sources, found, strict=True):
        np.testing.assert_allclose(scores, expected, rtol=1e-6, err_msg=str(type(source)))


def test_the_schema_of_an_older_run_knows_no_types(plain):
    older = replace(plain.schema, types={})
    rows = [{"user": "7.0", "price": 1}]
    [now] = read_batches(rows, plain.schema, fields_only=True)
    [before] = read_batches(rows, older, fields_only=True)
    assert ids_of(now) != ids_of(before)
