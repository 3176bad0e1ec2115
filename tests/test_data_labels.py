"""Labels: what is missing is refused under every comparison, whatever its type."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from bitfold.data.labels import read_labels
from bitfold.data.rows import Rows
from bitfold.data.syntax import parse_label
from bitfold.errors import BitfoldError


def labels(values: Any, rule: str, dtype: Any = None, **words: Any) -> list[float]:
    column = pl.Series("y", values, dtype=dtype, strict=False)
    rows = Rows(column.to_frame(), Path("log.csv"), text=column.dtype == pl.String)
    return read_labels(rows, parse_label(rule), **words).to_list()


def refused(values: Any, rule: str, dtype: Any = None, **words: Any) -> str:
    with pytest.raises(BitfoldError) as caught:
        labels(values, rule, dtype, **words)
    return str(caught.value)


RULES = ["y==1", "y!=0", "y>0", "y>=1", "y"]
MISSING = [
    "NaN",
    "nan",
    r"\N",
    "None",
    "null",
    "NULL",
    "n/a",
    "NA",
    "<NA>",
    " ",
    "?",
    None,
    " nan ",
]


@pytest.mark.parametrize("rule", [*RULES, "y==yes", "y!=no", "y==true"])
@pytest.mark.parametrize("value", MISSING)
def test_missing_text_is_refused_under_every_comparison(rule, value):
    good = ["1", "0"] if "yes" not in rule and "no" not in rule else ["yes", "no"]
    message = refused([*good, value, *good], rule)
    assert "the label is missing" in message
    assert "row 3 of log.csv" in message
    assert sum(labels(good, rule)) == 1


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1.0, float("nan")], pl.Float64),
        ([1.0, float("nan")], pl.Float32),
        ([1, None], pl.Int8),
        ([True, None], pl.Boolean),
        ([None, None], pl.Null),
    ],
)
def test_missing_values_of_typed_columns_are_refused(rule, values, dtype):
    assert "the label is missing" in refused(values, rule, dtype)


@pytest.mark.parametrize("rule", ["y==1", "y!=0", "y>0", "y"])
def test_what_missing_names_is_refused_in_typed_columns_too(rule):
    assert "the label is missing" in refused([1, 0, -1], rule, missing=("-1",))


@pytest.mark.parametrize("rule", ["y==1", "y!=0", "y>0", "y"])
@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([True, False], pl.Boolean),
        (["true", "False"], pl.String),
        (["1", "0.0"], pl.String),
        (["1", "0"], pl.Categorical),
        ([1, 0], pl.UInt8),
        ([1.0, 0.0], pl.Float32),
    ],
)
def test_one_and_zero_in_every_type(rule, values, dtype):
    assert labels(values, rule, dtype) == [1.0, 0.0]


def test_comparisons_with_text_and_truth():
    assert labels(["click", " view", "click "], "y==click") == [1, 0, 1]
    assert labels(["click", "view"], "y!=view") == [1, 0]
    assert labels([True, False], "y==True") == [1, 0]
    assert labels(["True", "FALSE"], "y!=false") == [1, 0]
    # A comparison may name what would be missing, and digits may be text.
    assert labels(["none", "NONE", "some"], "y==NONE") == [0, 1, 0]
    assert labels(["1", "A", "1.0"], "y=='1'") == [1, 0, 0]


def test_text_under_a_number_is_refused_with_a_way_out():
    message = refused(["1", "A"], "y==1")
    assert "no number" in message
    assert "y=='1'" in message
    assert "no number" in refused(["4", "five"], "y>=4")


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        ([-1, 1, -1], "'y>0' or 'y==1'"),
        (["-1", "1"], "'y>0'"),
        ([1, 2], "'y>=2'"),
        ([1, 2, 3, 4, 5], "'y>=4'"),
    ],
)
def test_labels_that_are_not_0_and_1_get_advice_that_fits(values, advice):
    assert f"--label {advice}" in refused(values, "y")


def test_types_that_are_no_label():
    import datetime as dt

    for values in ([dt.timedelta(1)], [dt.time(1)], [dt.date(2024, 1, 1)]):
        for rule in RULES:
            assert "y" in refused(values, rule)
    for rule in ("y>nan", "y<inf", "y>=x"):
        with pytest.raises(BitfoldError, match="no number"):
            parse_label(rule)
