"""A field's most frequent values are named as text, wherever in the log they lie."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bitfold.data.config import DataConfig
from bitfold.data.frequent import SAMPLE, WHOLE, FrequentTexts
from bitfold.data.hashing import hash_series
from bitfold.data.prepare import prepare
from command import bitfold


def late(rows: int = 3000) -> pl.DataFrame:
    """A log whose frequent values come last, in lines after many rare ones."""
    users = [f"rare{i}" for i in range(rows)]
    users[-400:] = ["often"] * 300 + ["twice"] * 60 + [f"some{i % 4}" for i in range(40)]
    tags = ["|".join({f"t{i % 3}", "all"}) for i in range(rows)]
    return pl.DataFrame({"click": [i % 2 for i in range(rows)], "user": users, "tags": tags})


def heads(frame: pl.DataFrame, folder: Path, suffix: str, **words: Any) -> dict[str, list[Any]]:
    path = folder / f"log.{suffix}"
    frame.write_csv(path) if suffix == "csv" else frame.write_parquet(path)
    config = DataConfig(label="click", split="random:1,0,0", **words)
    log = prepare(path, folder / "out", config)
    fields = log.stats["fields"]
    return {name: [each["value"] for each in fields[name]["head"]] for name in fields}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("ids", ["hashed", "vocabulary"])
def test_values_that_come_late_are_named(tmp_path, suffix, ids):
    words: dict[str, Any] = {
        "fields": ("user", "tags"),
        "multi": {"tags": "|"},
        "cross": ("user*click2",),
        "ids": ids,
    }
    frame = late().with_columns(click2=pl.col("click").cast(pl.String))
    found = heads(frame, tmp_path, suffix, **words)
    assert found["user"][:2] == ["often", "twice"]
    assert set(found["user"][2:6]) == {"some0", "some1", "some2", "some3"}
    assert found["tags"][0] == "all"
    assert set(found["user*click2"][:2]) == {"often*0", "often*1"}
    done = bitfold("inspect", tmp_path / "out")
    assert "often" in done.out
    assert " id " not in done.out.split("Skew")[1]


def test_dense_ids_are_their_own_names(tmp_path):
    frame = pl.DataFrame({"click": [0, 1] * 50, "user": [254] * 60 + list(range(40))})
    assert heads(frame, tmp_path, "csv", fields=("user",), ids="dense")["user"][0] == "254"
    done = bitfold("inspect", tmp_path / "out")
    assert "254" in done.out


def test_missing_is_named_too(tmp_path):
    frame = pl.DataFrame({"click": [0, 1] * 50, "user": [None] * 60 + list(range(40))})
    assert heads(frame, tmp_path, "parquet", fields=("user",))["user"][0] is None
    words = ("--label", "click", "--fields", "user", "--out", tmp_path / "again")
    assert "(missing)" in bitfold("prepare", tmp_path / "log.parquet", *words).out


def test_texts_are_bounded_and_keep_the_frequent():
    known = FrequentTexts(kept=512)
    rng = np.random.default_rng(0)
    for chunk in range(40):
        rare = rng.integers(0, 10**9, 2000)
        often = np.repeat(np.arange(20) - 20, 20)  # each 1 % of the rows
        values = pl.Series(np.concatenate([rare, often]) if chunk % 2 else rare)
        known.add(hash_series(values).to_numpy(), values.cast(pl.String))
        assert len(known.texts()) <= 512
    assert {str(value) for value in range(-20, 0)} <= set(known.texts().values())


def test_runs_in_later_chunks_are_met():
    known = FrequentTexts()
    size = 1 << 16
    for chunk in range(WHOLE // size + 6):
        values = np.arange(chunk * size, (chunk + 1) * size)
        values[1000 : 1000 + 2 * size // SAMPLE] = -1 - chunk  # two strides of the sample
        known.add(values, pl.Series(values).cast(pl.String))
    assert {str(-1 - chunk) for chunk in range(WHOLE // size + 6)} <= set(known.texts().values())
