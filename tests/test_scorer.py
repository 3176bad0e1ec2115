"""`run.scorer()`: the same scores as `predict`, to the bit, from one row and from many threads."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given

import bitfold
from bitfold.errors import BitfoldError
from bitfold.files import sha256
from bitfold.runs import manifest
from bitfold.runs.run import Run
from test_scoring import WORDS, columns, rows

FORMS = {
    "hashed": {},
    "vocabulary": {"ids": "vocabulary"},
    "missing": {"missing": "-1,none", "negative_rate": 0.25},
    "buckets": {"numeric_transform": "buckets:4"},
    "mapped": {"method": "full", "budget": None},  # a full table needs a dense map of its own
    "plain": {"multi": {}, "fields": "user,item,when", "numeric_transform": "standard"},
}


@pytest.fixture(scope="module", params=list(FORMS))
def run(request: pytest.FixtureRequest) -> Run:
    run = bitfold.train(columns(), **WORDS | FORMS[request.param])
    assert (run.dense is not None) == (request.param == "mapped")
    return run


@pytest.fixture(scope="module")
def plain() -> Run:
    return bitfold.train(columns(), **WORDS)


def same(found: Any, expected: Any) -> None:
    assert found.dtype == expected.dtype == np.float32
    np.testing.assert_array_equal(found.view(np.int32), expected.view(np.int32))


@given(rows)
def test_the_scores_are_those_of_predict(run: Run, some: list[dict[str, Any]]) -> None:
    scorer = run.scorer()
    same(scorer.scores(some), run.predict(some))
    for row in some:
        assert scorer.score(row) == float(run.predict([row])[0])


@pytest.mark.parametrize("many", [0, 1, 17, 65, 300])
def test_batches_of_any_size(run: Run, many: int) -> None:
    table = {name: values[:many] for name, values in columns(3).items()}
    listed = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    scorer, expected = run.scorer(), run.predict(table)
    assert len(expected) == many
    same(scorer.scores(listed), expected)
    same(scorer.scores(tuple(iter(listed))), expected)
    frame = pl.DataFrame(table)
    for data in (table, listed, frame, frame.to_arrow(), frame.to_pandas(), iter(listed)):
        same(scorer.scores_of(data), expected)


def test_more_rows_than_a_batch(plain: Run) -> None:
    table = {name: values * 40 for name, values in columns(4).items()}
    listed = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    expected = plain.predict(listed)
    same(plain.scorer().scores(listed), expected)
    same(plain.scorer().scores_of(pd.DataFrame(table)), expected)


def test_many_threads_get_their_own_scores(run: Run) -> None:
    scorer = run.scorer()
    tables = [columns(seed) for seed in range(8)]
    parts = [
        [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
        for table in tables
    ]
    expected = [(run.predict(part), run.predict(part[:1])[0]) for part in parts]

    def work(turn: int) -> bool:
        part, (many, one) = parts[turn % 8], expected[turn % 8]
        found = scorer.scores(part)
        return bool((found == many).all()) and scorer.score(part[0]) == float(one)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(160)))


def test_a_scorer_outlives_the_folder(plain: Run, tmp_path: Path) -> None:
    run = bitfold.load(plain.save(tmp_path / "run"))
    scorer = run.scorer()
    assert scorer.digest == run.digest == sha256(tmp_path / "run" / "manifest.json")
    assert scorer.columns == ("user", "item", "tags", "when", "price")
    expected = run.predict({"user": 3, "item": "i3"})
    shutil.rmtree(tmp_path / "run")
    assert scorer.score({"user": 3, "item": "i3"}) == float(expected[0])
    assert run.scorer().digest == scorer.digest


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ({"user": b"x"}, "column 'user', row 3"),
        ({"user": "\ud800"}, "no Unicode text: column 'user', row 3"),
        ({"user": 1, "tags": "a|\udfff"}, "no Unicode text: column 'tags', row 3"),
        ({"user": 1, "tags": [[1]]}, "column 'tags', row 3"),
        ({"user": 1, "price": "cheap"}, "column 'price', row 3"),
        ({"user": 1, "price": float("-inf")}, "no number: column 'price', row 3"),
        ({"user": 10**5000}, "column 'user', row 3"),
        ({"usre": 1, "item": "i1"}, "row 3 has no column 'user'"),
        ({}, "row 3 has no column"),
        ([1], "row 3 is no dictionary"),
    ],
)
@pytest.mark.parametrize("many", [3, 100])
def test_an_error_names_the_row_and_the_column(plain: Run, row: Any, match: str, many: int) -> None:
    base = {"user": 1, "price": 1.0, "item": "i1", "tags": "t1", "when": "w1"}
    some = [base, base, row, *[base] * (many - 3)]
    scorer = plain.scorer()
    with pytest.raises(BitfoldError, match=match):
        scorer.scores(some)
    with pytest.raises(BitfoldError, match="row 1"):
        scorer.score(row)


def test_a_table_with_a_wrong_cell_names_its_row(plain: Run) -> None:
    table = columns() | {"price": ["1"] * 250 + ["cheap"] * 50}
    for data in (table, pd.DataFrame(table), pl.DataFrame(table)):
        with pytest.raises(BitfoldError, match=r"column 'price'.*row 251"):
            plain.scorer().scores_of(data)


@pytest.mark.parametrize("rows", [{"user": 1}, "rows", b"rows", 7, None])
def test_what_is_no_list_of_rows(plain: Run, rows: Any) -> None:
    with pytest.raises(BitfoldError, match="these are no rows"):
        plain.scorer().scores(rows)


@pytest.mark.parametrize("data", ["rows.csv", ["a.csv", "b.csv"], Path("rows.csv")])
def test_a_scorer_reads_no_files(plain: Run, data: Any) -> None:
    with pytest.raises(BitfoldError, match=r"reads no files|neither rows|no dictionary"):
        plain.scorer().scores_of(data)


def test_a_run_that_was_replaced_while_it_was_read(
    plain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = plain.save(tmp_path / "run")
    digests = iter(["one", "another"])
    monkeypatch.setattr(manifest, "_digest", lambda path: next(digests))
    with pytest.raises(BitfoldError, match="meanwhile"):
        bitfold.load(folder)


def test_rows_of_very_many_names(plain: Run) -> None:
    scorer = plain.scorer()
    junk = {f"junk-{index}": index for index in range(3000)}
    one = {"user": 3, "item": "i3"}
    assert scorer.score(one | junk) == scorer.score(one)
    with pytest.raises(BitfoldError, match="row 1 has no column 'user'") as told:
        scorer.score(junk | {"x" * 10_000: 1})
    assert len(str(told.value)) < 1000
    with pytest.raises(BitfoldError, match="did you mean 'pricee'"):
        scorer.score(one | {"pricee": 1} | junk)
    for _ in range(2):  # what was looked at once is not forgotten
        with pytest.raises(BitfoldError, match="did you mean 'prices'"):
            scorer.score(one | {"pric": 0, "prices": 1})


LONG = {
    "integer": 10**20_000,
    "list": ["x" * 100_000, b""],
    "bytes": b"y" * 100_000,
    "halves": "\ud800" * 9999,
    "object": {"z" * 9999: b""},
}


@pytest.mark.parametrize("kind", list(LONG))
@pytest.mark.parametrize("column", ["user", "price", "tags"])
def test_a_very_long_value_is_told_of_in_short(plain: Run, column: str, kind: str) -> None:
    row = {"user": 1, "item": "i1"} | {column: LONG[kind]}
    with pytest.raises(BitfoldError, match=f"column '{column}', row 1") as told:
        plain.scorer().score(row)
    assert len(str(told.value)) < 1000


def test_a_very_long_text_is_a_text_and_no_number(plain: Run) -> None:
    scorer, text = plain.scorer(), "9" * 100_000
    assert scorer.score({"user": text, "tags": text}) == scorer.score(
        {"user": text, "tags": [text]}
    )
    with pytest.raises(BitfoldError, match="no number: column 'price', row 1") as told:
        scorer.score({"user": 1, "price": text})
    assert len(str(told.value)) < 1000
