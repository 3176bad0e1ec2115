"""Splits: who is where, and that nothing of valid or test is learned from."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfold.data.config import DataConfig
from bitfold.data.prepare import prepare
from bitfold.data.prepared import PreparedLog
from bitfold.data.splits import last_parts, random_parts, time_bounds, time_parts
from bitfold.data.syntax import parse_cross, parse_label, parse_split, parse_transform
from bitfold.errors import BitfoldError

PARTS = ("train", "valid", "test")


def numbers(log: PreparedLog) -> dict[str, list[int]]:
    """The raw row numbers (kept as weights) of each part."""
    return {
        part: sorted(int(w) for b in log.batches(part, 100) for w in b.weights) for part in PARTS
    }


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "y": rng.integers(0, 2, 1000),
            "user": rng.integers(0, 60, 1000),
            "time": rng.integers(0, 500, 1000),
            "n": np.arange(1000),
            "part": ["Train"] * 600 + ["val"] * 300 + ["test"] * 100,
        }
    )
    frame.write_csv(tmp_path / "a.csv")
    return tmp_path / "a.csv"


def config(split: str, **words: object) -> DataConfig:
    return DataConfig(
        label="y", fields=("user",), weight="n", group="user", time="time", split=split, **words
    )


def test_random_parts_are_disjoint_whole_and_of_the_size_asked(raw, tmp_path):
    parts = numbers(prepare(raw, tmp_path / "out", config("random:0.7,0.2,0.1")))
    assert sorted(row for rows in parts.values() for row in rows) == list(range(1000))
    assert all(abs(len(parts[p]) - n) < 60 for p, n in zip(PARTS, (700, 200, 100), strict=True))
    again = numbers(prepare(raw, tmp_path / "two", config("random:0.7,0.2,0.1", split_seed=1)))
    assert again != parts


@pytest.mark.parametrize("fractions", [(1, 0, 0), (0.5, 0, 0.5), (0.5, 0.5, 0)])
def test_a_fraction_of_zero_gets_nothing(fractions):
    parts = random_parts(np.arange(100_000), fractions, seed=3)
    for part, fraction in enumerate(fractions):
        assert abs((parts == part).mean() - fraction) < 0.01
        assert fraction > 0 or not (parts == part).any()


def test_a_rows_part_does_not_depend_on_the_logs_length():
    shares = (0.8, 0.1, 0.1)
    long, short = (random_parts(np.arange(n), shares, seed=1) for n in (1000, 10))
    assert long[:10].tolist() == short.tolist()


def test_time_parts_are_in_order(raw, tmp_path):
    frame = pl.read_csv(raw)
    parts = numbers(prepare(raw, tmp_path / "out", config("time:0.8,0.1,0.1")))
    times = [frame["time"].to_numpy()[parts[part]] for part in PARTS]
    assert times[0].max() < times[1].min()
    assert times[1].max() < times[2].min()
    assert len(times[0]) == pytest.approx(800, abs=5)
    assert sum(map(len, times)) == 1000


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.integers(1, 9))
def test_time_never_leaks(times, tenths):
    values = np.array(times, float)
    shares = (tenths / 10, 0.0, 1 - tenths / 10)
    parts = time_parts(values, time_bounds(np.sort(values), shares))
    early, late = values[parts == 0], values[parts == 2]
    assert (parts != 1).all()
    assert not len(early) or not len(late) or early.max() < late.min()


def test_moments_as_text_and_as_dates_are_times(tmp_path):
    moments = pl.datetime_range(
        pl.datetime(2024, 1, 1), pl.datetime(2024, 1, 5), "1h", eager=True
    ).alias("t")
    count = len(moments)
    frame = pl.DataFrame({"y": [i % 2 for i in range(count)], "n": range(count), "t": moments})
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_csv(tmp_path / "b.csv", datetime_format="%Y-%m-%dT%H:%M:%S")
    frame.write_csv(tmp_path / "c.csv", datetime_format="%Y-%m-%d %H:%M:%S")
    words = DataConfig(label="y", fields=("n",), weight="n", time="t", split="time:0.5,0.2,0.3")
    found = [
        numbers(prepare(path, tmp_path / f"{path.name}.out", words))
        for path in sorted(tmp_path.iterdir())
        if path.is_file()
    ]
    assert found[0] == found[1] == found[2]
    assert found[0]["test"] == list(range(67, 97))


@pytest.mark.parametrize("timed", [True, False])
def test_last_rows_of_each_user(raw, tmp_path, timed, monkeypatch):
    monkeypatch.setattr("bitfold.data.dealing.BIN_BYTES", 8000)
    frame = pl.read_csv(raw)
    words = config("last:2,3") if timed else config("last:2,3").replace(time=None)
    parts = numbers(prepare(raw, tmp_path / "out", words))
    expected: dict[str, list[int]] = {part: [] for part in PARTS}
    for _, rows in frame.group_by("user"):
        order = rows.sort("time", "n")["n"].to_list() if timed else rows.sort("n")["n"].to_list()
        expected["test"] += order[-3:]
        expected["valid"] += order[-5:-3]
        expected["train"] += order[:-5]
    assert parts == {part: sorted(rows) for part, rows in expected.items()}


def test_a_user_with_few_rows_gives_them_to_test():
    parts = last_parts(np.zeros(2, np.int64), np.zeros(2), np.arange(2), (1, 5))
    assert parts.tolist() == [2, 2]


def test_a_column_says_the_part(raw, tmp_path):
    parts = numbers(prepare(raw, tmp_path / "out", config("column:part")))
    assert {part: len(rows) for part, rows in parts.items()} == {
        "train": 600,
        "valid": 300,
        "test": 100,
    }
    assert parts["valid"] == list(range(600, 900))


def test_nothing_is_learned_from_valid_and_test(tmp_path):
    """Changing every value outside the training part changes nothing that is fitted."""
    train = pl.DataFrame({"y": [0, 1] * 20, "f": range(40), "x": range(40), "part": "train"})
    schemas = []
    for name, values in (("one", (0, 1.0)), ("two", (10**9, -1e12))):
        rest = pl.DataFrame({"y": [1] * 9, "f": values[0], "x": values[1], "part": "test"})
        pl.concat([train, rest], how="vertical_relaxed").write_parquet(tmp_path / f"{name}.parquet")
        words = DataConfig(
            label="y", fields=("f",), numeric=("x",), ids="vocabulary", split="column:part"
        )
        log = prepare(tmp_path / f"{name}.parquet", tmp_path / name, words)
        schemas.append(log.schema.to_json())
        assert log.stats["fields"]["f"]["distinct"] == 40
    assert schemas[0] == schemas[1]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("random:0.8,0.1,0.2", "do not sum to 1"),
        ("time:0.5,0.1,0.1", "do not sum to 1"),
        ("random:0.8,0.2", "cannot be read"),
        ("random", "cannot be read"),
        ("random:a,b,c", "cannot be read"),
        ("random:nan,0.5,0.5", "cannot be read"),
        ("random:1.2,-0.1,-0.1", "cannot be read"),
        ("random:0,0.5,0.5", "nothing to train on"),
        ("last:1", "cannot be read"),
        ("last:-1,1", "cannot be read"),
        ("column:", "names no column"),
        ("randm:1,0,0", "did you mean 'random'"),
    ],
)
def test_splits_that_are_none(text, problem):
    with pytest.raises(BitfoldError, match=problem):
        parse_split(text)


def test_splits_that_lack_a_column():
    with pytest.raises(BitfoldError, match="--time"):
        DataConfig(split="time:0.8,0.1,0.1")
    with pytest.raises(BitfoldError, match="--group"):
        DataConfig(split="last:1,1")


@pytest.mark.parametrize("text", ["", ">=4", "a>=", "a>=b", "a<>4", "a!4"])
def test_labels_that_are_none(text):
    with pytest.raises(BitfoldError):
        parse_label(text)


@pytest.mark.parametrize("text", ["buckets:1", "buckets:x", "buckets", "logs", "log:2", ""])
def test_transforms_that_are_none(text):
    with pytest.raises(BitfoldError):
        parse_transform(text)


@pytest.mark.parametrize("text", ["a", "a*", "*b", "a*a", ""])
def test_crosses_that_are_none(text):
    with pytest.raises(BitfoldError):
        parse_cross(text)


@pytest.mark.parametrize(
    "words",
    [
        {"negative_rate": 0.0},
        {"negative_rate": 1.5},
        {"ids": "hash"},
        {"format": "cvs"},
        {"min_count": 0},
        {"hash_seed": -1},
        {"split_seed": -1},
        {"fields": ("a", "a")},
        {"fields": ("a",), "multi": {"b": "|"}},
        {"fields": ("a",), "multi": {"a": ""}},
        {"fields": ("a", "b"), "multi": {"a": "|"}, "cross": ("a*b",)},
    ],
)
def test_words_that_cannot_be_right(words):
    with pytest.raises(BitfoldError):
        DataConfig(**words)
