"""Times: one unit over all chunks and files, or one error that names both."""

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bitfold.data.config import DataConfig
from bitfold.data.prepare import prepare
from bitfold.data.rows import Rows
from bitfold.data.times import Times, parse_moments
from bitfold.errors import BitfoldError

JANUARY = dt.datetime(2024, 1, 5, 10)
FEBRUARY = dt.datetime(2024, 2, 5, 10)


def epoch(day: dt.datetime) -> float:
    return day.replace(tzinfo=dt.UTC).timestamp()


def typed(unit: Any, zone: str | None = None) -> Any:
    return lambda days: pl.Series("t", days, dtype=pl.Datetime(unit, zone))


FORMS: dict[str, Any] = {
    "seconds": lambda days: pl.Series("t", [str(int(epoch(day))) for day in days]),
    "fractions": lambda days: pl.Series("t", [epoch(day) + 0.5 for day in days]),
    "milliseconds": lambda days: pl.Series("t", [str(int(epoch(d) * 1e3)) for d in days]),
    "microseconds": lambda days: pl.Series("t", [int(epoch(day) * 1e6) for day in days]),
    "nanoseconds": lambda days: pl.Series("t", [str(int(epoch(d) * 1e9)) for d in days]),
    "iso": lambda days: pl.Series("t", [day.isoformat() for day in days]),
    "zulu": lambda days: pl.Series("t", [f"{day.isoformat()}Z" for day in days]),
    "slashes": lambda days: pl.Series("t", [f"{day:%Y/%m/%d %H:%M}" for day in days]),
    "offset": lambda days: pl.Series("t", [f"{day:%Y-%m-%d} 15:30:00+05:30" for day in days]),
    "dates": lambda days: pl.Series("t", [f"{day:%Y-%m-%d}" for day in days]),
    "Date": lambda days: pl.Series("t", [day.date() for day in days]),
    "ms": typed("ms"),
    "us": typed("us"),
    "ns": typed("ns"),
    "utc": typed("us", "UTC"),
    "category": lambda days: pl.Series("t", [str(d) for d in days], dtype=pl.Categorical),
}


def read(*chunks: pl.Series) -> list[list[float]]:
    times = Times("t")
    return [
        times.read(Rows(chunk.to_frame(), Path(f"{index}.csv"))).to_list()
        for index, chunk in enumerate(chunks)
    ]


@pytest.mark.parametrize("early", FORMS)
@pytest.mark.parametrize("late", FORMS)
def test_moments_of_every_form_are_ordered(early, late):
    early_times, late_times = FORMS[early]([JANUARY] * 2), FORMS[late]([FEBRUARY] * 2)
    for chunks in ((early_times, late_times), (late_times, early_times)):
        first, second = read(*chunks)
        low, high = (first, second) if chunks[0] is early_times else (second, first)
        assert max(low) < min(high)
        assert low[0] == pytest.approx(epoch(JANUARY), abs=86_400)


def test_text_that_mixes_forms_in_one_chunk():
    column = pl.concat([FORMS[name]([JANUARY]) for name in ("seconds", "iso", "milliseconds")])
    assert read(column) == [[epoch(JANUARY)] * 3]


NUMBERS = {
    "YYYYMMDD": [20240131, 20240201],
    "YYMMDDHH": [14102100, 14102123],
    "YYYYMMDDHH": [2024013110, 2024020110],
    "YYYYMMDDHHMMSS": [20240131100000, 20240201100000],
    "counter": [1, 2, 3],
}


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("other", ["iso", "milliseconds", "ns", "seconds"])
def test_numbers_without_a_unit_beside_moments_are_refused(kind, other):
    plain = pl.Series("t", NUMBERS[kind])
    for text in (False, True):
        column = plain.cast(pl.String) if text else plain
        assert read(column) == [[float(value) for value in NUMBERS[kind]]]
        if (kind, other) in (("YYYYMMDDHHMMSS", "seconds"), ("YYYYMMDDHH", "seconds")):
            continue
        for chunks in ((column, FORMS[other]([JANUARY])), (FORMS[other]([JANUARY]), column)):
            with pytest.raises(BitfoldError) as caught:
                read(*chunks)
            assert "several units" in str(caught.value)
            assert "0.csv" in str(caught.value)
            assert "1.csv" in str(caught.value)


def test_counters_and_seconds_stay_as_they_are():
    assert read(pl.Series("t", [0, 5, -1]), pl.Series("t", [7.5]))[1] == [7.5]
    growing = [np.arange(start, start + 10) for start in (631_151_900, 631_151_995, 631_152_300)]
    assert read(*(pl.Series("t", part) for part in growing)) == [part.tolist() for part in growing]
    # A clock that was not set, and a mark for "never", beside true seconds.
    assert read(pl.Series("t", [86_400, 1_700_000_000, 9_999_999_999]))[0][0] == 86_400


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02", 86_400),
        ("1970/01/02", 86_400),
        ("1970-1-2 0:30", 88_200),
        ("1970-01-01T05:30:00+05:30", 0),
        ("1970-01-01 05:30:00 +0530", 0),
        ("1969-12-31T20:30:00-03:30", 0),
        ("1970-01-01T01:00:00.25+01", 0.25),
        ("1970-01-01T00:00:00,123456789Z", 0.123456789),
        ("1970-01-01 00:00:01 UTC", 1),
        ("2024-02-29T00:00:00Z", 1_709_164_800),
    ],
)
def test_moments_in_text(text, seconds):
    assert parse_moments(pl.Series([text])).to_list() == [pytest.approx(seconds)]


@pytest.mark.parametrize(
    "text",
    [
        *("01/22/2024", "22/01/2024", "22.01.2024", "2023-02-29", "2024-13-01", "Jan 22 2024"),
        *("2024-01-01 25:00", "2024-01-01 10:61", "2024-01-22T", "10:00:00", "x", ""),
        "2024-01-22 10:00+5",
    ],
)
def test_text_that_is_no_moment_is_refused(text):
    assert parse_moments(pl.Series([text])).to_list() == [None]
    for values in ([text, "2024-01-22"], [text, "1700000000"], [text]):
        with pytest.raises(BitfoldError, match=r"row 1 of 0\.csv"):
            read(pl.Series("t", values))


@pytest.mark.parametrize(
    "values",
    [
        [dt.timedelta(1)],
        [dt.time(10)],
        [True],
        [[1]],
        [None, 1],
        [float("nan")],
        [float("inf")],
        ["nan"],
        ["1e400"],
        [dt.date(2024, 1, 1), None],
    ],
)
def test_columns_that_hold_no_times_give_one_message(values):
    with pytest.raises(BitfoldError, match="expected"):
        read(pl.Series("t", values))


def test_the_split_goes_by_the_moment_over_files(tmp_path):
    rows = range(40)
    for name, days, form in (("a", FEBRUARY, "iso"), ("b", JANUARY, "milliseconds")):
        times = FORMS[form]([days + dt.timedelta(minutes=i) for i in rows])
        frame = pl.DataFrame({"click": [i % 2 for i in rows], "month": [name] * 40, "t": times})
        frame.write_csv(tmp_path / f"{name}.csv")
    config = DataConfig(label="click", fields=("month",), time="t", split="time:0.5,0.25,0.25")
    log = prepare(str(tmp_path / "*.csv"), tmp_path / "out", config)
    assert [each["value"] for each in log.stats["fields"]["month"]["head"]] == ["b"]
    assert log.rows == {"train": 40, "valid": 20, "test": 20}
