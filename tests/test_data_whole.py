"""A whole log: its parts, weights, numbers, names and seed, told before any training."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bitfold.data.config import LEAST_RATE, DataConfig
from bitfold.data.hashing import hash_text
from bitfold.data.prepare import prepare
from bitfold.data.prepared import PreparedLog
from bitfold.data.raw import read_batches
from bitfold.data.schema import Schema
from bitfold.data.standard import LARGEST
from bitfold.data.statistics import Moments
from bitfold.errors import BitfoldError
from bitfold.planning.field import Field
from bitfold.runs.folder import load
from bitfold.runs.scoring import correct, scores
from bitfold.settings import options_of, parse
from bitfold.training import TrainConfig, train
from bitfold.training.memory import available_bytes, check_memory
from command import bitfold

WORDS: dict[str, Any] = {"label": "click", "fields": ("user",)}
TINY = TrainConfig(
    budget="4KiB", width=4, hidden="8", epochs=1, batch_size=64, lr=0.01, network="deepfm"
)


def frame(rows: int = 240, **columns: Any) -> pl.DataFrame:
    made = {"click": [i % 2 for i in range(rows)], "user": [i % 7 for i in range(rows)]}
    return pl.DataFrame(made | columns)


def log_of(folder: Path, data: pl.DataFrame, **words: Any) -> PreparedLog:
    data.write_csv(folder / "log.csv")
    return prepare(folder / "log.csv", folder / "out", DataConfig(**(WORDS | words)), force=True)


def refused(folder: Path, data: pl.DataFrame, **words: Any) -> str:
    with pytest.raises(BitfoldError) as caught:
        log_of(folder, data, **words)
    return str(caught.value)


# Weights and parts


def test_weights_that_are_all_zero(tmp_path):
    assert "all weights are zero" in refused(tmp_path, frame(w=[0] * 240), weight="w")
    assert "all weights are zero" in refused(tmp_path, frame(w=[0.0] * 239 + [1e-60]), weight="w")
    one = [1 if i % 2 else 0 for i in range(240)]
    message = refused(tmp_path, frame(w=one), weight="w")
    assert "that weighs more than 0 has one class only" in message
    assert "no weight" in refused(tmp_path, frame(w=[1.0] * 239 + [1e39]), weight="w")


@pytest.mark.parametrize(
    ("options", "change", "said"),
    [
        (("--split", "random:0.9999,0.0001,0"), {}, "are empty"),
        (("--split", "column:part"), {}, ""),
        (("--split", "column:part"), {"click": "valid"}, "the validation part holds one class"),
        (("--split", "column:part"), {"click": "test"}, "the test part holds one class"),
        (("--split", "column:part", "--weight", "w"), {"w": "test"}, "all weights of the test"),
        (("--split", "column:part", "--weight", "w"), {"w": "valid"}, "of the validation part"),
    ],
)
def test_prepare_tells_of_parts_without_figures(tmp_path, caplog, options, change, said):
    caplog.set_level(logging.WARNING, "bitfold")
    data = frame(part=(["train"] * 4 + ["valid"] * 2 + ["test"] * 2) * 30, w=[1] * 240)
    for column, part in change.items():
        where = pl.when(pl.col("part") == part).then(0).otherwise(pl.col(column))
        data = data.with_columns(where.alias(column))
    data.write_csv(tmp_path / "log.csv")
    words = ("--label", "click", "--fields", "user", "--out", tmp_path / "out")
    done = bitfold("prepare", tmp_path / "log.csv", *words, *options)
    assert done.code == 0, done.err
    assert (said in caplog.text) if said else not caplog.text


# Numbers


@pytest.mark.parametrize("value", [0.1, 3, 14.62, 33.3, 100, 1e-9, -7.7, 1e15 + 0.3, 0, 1e300])
@pytest.mark.parametrize("transform", ["log", "standard"])
@pytest.mark.parametrize("rows", [1, 3, 240, 10_007])
def test_equal_numbers_have_a_deviation_of_one(value, transform, rows):
    from bitfold.data.standard import shape

    for cuts in (1, 7):
        moments = Moments()
        for part in np.array_split(np.full(rows, value, np.float64), cuts):
            moments.add(shape(part, transform))
        assert moments.deviation == 1.0


def test_numbers_that_differ_by_rounding_count_as_equal():
    for values in ([0.1 + 0.2, 0.3], [1e9, 1e9 * (1 + 2e-16)], [100.0, np.nextafter(100, 101)]):
        moments = Moments()
        moments.add(np.array(values * 50))
        assert moments.deviation == 1.0
    # A small spread about a large mean is a spread.
    for mean, spread in ((1.7e9, 1.0), (1.7e18, 1e9), (1e6, 1e-3)):
        moments = Moments()
        moments.add(mean + spread * np.tile([-1.0, 1.0], 500))
        assert moments.deviation == pytest.approx(spread, rel=1e-3)


@pytest.mark.parametrize("transform", ["log", "standard", "buckets:4"])
@pytest.mark.parametrize("outlier", [1e300, -1e300, 1e308, 1.7e308, 5e-324])
def test_an_outlier_in_training_leaves_finite_numbers(tmp_path, transform, outlier):
    prices = [1.0 + i % 9 for i in range(239)] + [outlier]
    log = log_of(tmp_path, frame(price=prices), numeric=("price",), numeric_transform=transform)
    for part in ("train", "valid", "test"):
        for batch in log.batches(part, 240):
            assert np.isfinite(batch.numeric.numpy()).all()
    json.dumps(log.schema.to_json(), allow_nan=False)


@pytest.mark.parametrize("transform", ["log", "standard"])
@pytest.mark.parametrize("constant", [True, False])
def test_prices_beyond_float32_have_finite_scores(tmp_path, transform, constant):
    prices = [3.0] * 240 if constant else [1.0 + i % 9 for i in range(240)]
    frame(price=prices).write_csv(tmp_path / "log.csv")
    config = DataConfig(**WORDS, numeric=("price",), numeric_transform=transform)
    train([tmp_path / "log.csv"], config, TINY, tmp_path / "run")
    run = load(tmp_path / "run")
    extreme = [1e39, -1e39, 1e300, 1.7e308, 3.4e38, 3.03, 3.0]
    rows = pl.DataFrame({"user": range(len(extreme)), "price": extreme})
    rows.write_csv(tmp_path / "rows.csv")
    (batch,) = read_batches(tmp_path / "rows.csv", run.schema)
    assert batch.numeric.abs().max() <= LARGEST
    found = np.concatenate(list(scores(run, tmp_path / "rows.csv")))
    assert np.isfinite(found).all()
    if constant:
        same = rows.with_columns(pl.lit(0).alias("user"))
        same.write_csv(tmp_path / "rows.csv")
        found = np.concatenate(list(scores(run, tmp_path / "rows.csv")))
        assert abs(found[-1] - found[-2]) < 0.01
    for rows_given in ([{"user": 1, "price": value}] for value in extreme):
        assert np.isfinite(run.predict(rows_given)).all()
        assert np.isfinite(run.predict(rows_given * 100)).all()
    for infinite in (float("inf"), "1e400", 10**400):
        for count in (1, 100):
            with pytest.raises(BitfoldError, match="no number"):
                run.predict([{"user": 1, "price": infinite}] * count)
    (tmp_path / "rows.csv").write_text("user,price\n1,inf\n")
    with pytest.raises(BitfoldError, match="no number"):
        list(scores(run, tmp_path / "rows.csv"))


@pytest.mark.parametrize("rate", [5e-324, 1e-300, 1e-10, 0, -1, 1.5, float("nan")])
def test_a_negative_rate_that_would_divide_by_zero(rate):
    with pytest.raises(BitfoldError, match="negative_rate"):
        DataConfig(**WORDS, negative_rate=rate)


def test_the_least_negative_rate_gives_finite_scores():
    config = DataConfig(**WORDS, negative_rate=LEAST_RATE)
    assert np.isfinite(correct(np.array([0.0, 1e-300, 0.5, 1.0]), config.negative_rate)).all()


# Dense ids


def test_a_dense_id_that_asks_for_more_than_the_memory(tmp_path):
    ids = [10**13 if i == 5 else i % 7 for i in range(240)]
    frame(item=ids).write_csv(tmp_path / "log.csv")
    config = DataConfig(label="click", fields=("user", "item"), ids="dense")
    words = TrainConfig(**(vars(TINY) | {"method": "full", "budget": None}))
    with pytest.raises(BitfoldError) as caught:
        train([tmp_path / "log.csv"], config, words, tmp_path / "run")
    for text in ("memory", "'item'", "10,000,000,000,000", "--ids hashed"):
        assert text in str(caught.value)
    train([tmp_path / "log.csv"], config, TINY, tmp_path / "run")


def test_memory_is_looked_at_before_it_is_taken(monkeypatch):
    from bitfold.method.planner import plan

    small = plan([Field("user", 100)], 4, method="full")
    check_memory(small)
    assert (available_bytes() or 1) > 0
    monkeypatch.setattr("bitfold.training.memory.available_bytes", lambda: 1000)
    with pytest.raises(BitfoldError, match="do not fit"):
        check_memory(small)
    monkeypatch.setattr("bitfold.training.memory.available_bytes", lambda: None)
    check_memory(small)


# Names

BAD = ["user\x07", "us\x1b[31mer", "a\nb", "a\tb", "a\x00", "\x9b", "a\u202eb", "a\ud800", "\x7f"]


@pytest.mark.parametrize("name", BAD)
def test_names_that_cannot_be_shown_are_refused_at_the_start(name):
    told: list[dict[str, Any]] = [
        {"label": name},
        {"label": f"{name}>=4"},
        {"fields": (name,)},
        {"numeric": (name,)},
        {"columns": (name, "user")},
        {"group": name},
        {"weight": name},
        {"time": name},
        {"cross": (f"{name}*item",)},
        {"split": f"column:{name}"},
        {"fields": (name,), "multi": {name: "|"}},
    ]
    for words in told:
        with pytest.raises(BitfoldError) as caught:
            DataConfig(**(WORDS | words))
        message = str(caught.value)
        assert message.replace("\n", "").isprintable()
    with pytest.raises(BitfoldError, match="cannot be shown"):
        Field(name, 5)


def test_other_alphabets_and_signs_are_names():
    for name in ("Größe", "用户", "пользователь", "user id", "a.b-c/d", "😀", "a&<b>"):
        assert DataConfig(label="y", fields=(name,)).fields == (name,)
        assert Field(name, 5).name == name


# The seed


def test_a_secret_seed_is_drawn_once_and_kept(tmp_path):
    config = DataConfig(**WORDS, hash_seed="secret")  # type: ignore[arg-type]
    assert config.hash_seed != DataConfig(**WORDS, hash_seed="secret").hash_seed  # type: ignore[arg-type]
    frame().write_csv(tmp_path / "log.csv")
    log = prepare(tmp_path / "log.csv", tmp_path / "out", config)
    seed = Schema.load(log.path).config.hash_seed
    assert seed == config.hash_seed
    assert seed > 2**32
    (batch,) = read_batches(tmp_path / "log.csv", log.schema)
    assert batch.ids[1, 0] == hash_text("1", seed)
    assert batch.ids[1, 0] != hash_text("1")


def test_seeds_of_64_bits_survive_the_command_and_json():
    word = options_of(DataConfig)["hash_seed"]
    assert parse(word, "secret") == "secret"
    for seed in (2**64 - 1, 2**63 + 1, 7):
        assert parse(word, seed) == parse(word, str(seed)) == seed
    with pytest.raises(BitfoldError):
        parse(word, "public")
    with pytest.raises(BitfoldError):
        DataConfig(**WORDS, hash_seed="public")  # type: ignore[arg-type]
