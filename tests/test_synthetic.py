"""The synthetic log: the same rows however they are made, ids that say nothing, a true best AUC."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import polars as pl
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from bitfold.data.hashing import hash_values
from bitfold.data.synth import kernels
from bitfold.data.synth.log import Chunk, SynthConfig, generate, synthesize
from bitfold.data.synth.truth import id_words, zipf_tables
from bitfold.errors import BitfoldError

SMALL = SynthConfig(rows=5000, fields=4, ids=3000, bags=1, bag_ids=40, numeric=2, seed=7)


def joined(config: SynthConfig, chunk_rows: int | None = None) -> Chunk:
    """All rows of a log in one chunk, with the unset slots of bags emptied."""
    parts: dict[str, list[np.ndarray]] = {}
    for chunk in generate(config, chunk_rows=chunk_rows):
        unset = np.arange(kernels.MAX_BAG) >= chunk.bag_lengths[..., None]
        chunk.bag_ids[unset] = -1
        for name, values in vars(chunk).items():
            if name != "first":
                parts.setdefault(name, []).append(values)
    axis = {"bag_ids": 1, "bag_lengths": 1, "ids": 1, "numeric": 1}
    return Chunk(
        first=0, **{name: np.concatenate(p, axis=axis.get(name, 0)) for name, p in parts.items()}
    )


def assert_same(a: Chunk, b: Chunk, rows: int | None = None) -> None:
    for name, values in vars(a).items():
        if name != "first":
            other = getattr(b, name)
            axis = 1 if name in ("bag_ids", "bag_lengths", "ids", "numeric") else 0
            left = np.take(values, range(rows), axis) if rows else values
            right = np.take(other, range(rows), axis) if rows else other
            np.testing.assert_array_equal(left, right, err_msg=name)


def test_rows_do_not_depend_on_chunks_threads_or_the_log_length() -> None:
    whole = joined(SMALL)
    assert whole.rows == SMALL.rows
    assert_same(whole, joined(SMALL, chunk_rows=333))
    threads = torch.get_num_threads()
    try:
        for others in (1, 2):
            torch.set_num_threads(others)
            assert_same(whole, joined(SMALL, chunk_rows=4999))
            assert torch.get_num_threads() == others
            assert numba.get_num_threads() == min(others, numba.config.NUMBA_NUM_THREADS)
    finally:
        torch.set_num_threads(threads)
    assert_same(whole, joined(SynthConfig(**{**vars(SMALL), "rows": 6000})), rows=SMALL.rows)


@pytest.mark.parametrize("first", ["torch", "bitfold"])
def test_a_log_leaves_torch_its_number_of_threads(first: str) -> None:
    """Numba's loops set OpenMP's number, which is torch's: one thread said, one thread kept."""
    script = (
        f"import {first}\nfrom bitfold.data.synth.log import SynthConfig, generate\n"
        "chunks = list(generate(SynthConfig(rows=3000, fields=2, ids=50)))\n"
        "import numba, torch; print(torch.get_num_threads(), numba.get_num_threads())"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]


def test_another_seed_is_another_log() -> None:
    one, other = joined(SMALL), joined(SynthConfig(**{**vars(SMALL), "seed": 8}))
    assert (one.ids[0] == other.ids[0]).mean() < 0.05
    assert (one.label != other.label).mean() > 0.2


@settings(max_examples=30)
@given(size=st.integers(1, 3000), seed=st.integers(0, 2**32))
def test_an_ids_number_is_a_bijection_of_its_rank(size: int, seed: int) -> None:
    random = np.random.default_rng(seed).integers(0, 2**63, (1, kernels.WORDS)).astype(np.uint64)
    words = id_words(np.array([size]), random)
    numbers = [int(kernels.number(np.uint64(rank), 0, words)) for rank in range(size)]
    assert sorted(numbers) == list(range(size))


@pytest.mark.parametrize("power", [0.0, 0.7, 1.0, 1.3, 3.0])
@pytest.mark.parametrize("size", [2, 10, 1024, 1025, 1500, 3000, 100_000])
def test_ranks_have_zipf_shares(size: int, power: float) -> None:
    table, starts = zipf_tables(np.array([size]), power)
    keep = (table[0] & np.uint64(0xFFFFFFFF)).astype(float) / 2**kernels.KEEP_BITS
    mass = keep.copy()
    np.add.at(mass, (table[0] >> np.uint64(32)).astype(int), 1.0 - keep)
    mass /= kernels.SLOTS
    widths = np.diff(starts[0].astype(np.int64))
    assert widths.sum() == size
    assert not mass[widths == 0].any()
    exact = np.arange(1, size + 1, dtype=float) ** -power
    exact /= exact.sum()
    filled = widths > 0
    wanted = np.add.reduceat(exact, starts[0][:-1][filled].astype(int))
    # A share is a sum of at most a few thousand entries, each rounded to 2^-32.
    np.testing.assert_allclose(mass[filled], wanted, rtol=2e-3, atol=1e-7)


def test_ids_are_drawn_from_the_whole_field_by_their_shares() -> None:
    config = SynthConfig(rows=200_000, fields=1, ids=50, zipf=1.0, numeric=0)
    counts = np.bincount(joined(config).ids[0], minlength=50)
    shares = np.arange(1, 51) ** -1.0
    wanted = config.rows * shares / shares.sum()
    assert len(counts) == 50
    assert (((np.sort(counts)[::-1] - wanted) ** 2) / wanted).sum() < 110  # 49 degrees of freedom


def test_a_number_says_nothing_of_rank_cluster_or_hash() -> None:
    size = 4096
    config = SynthConfig(
        rows=400_000, fields=1, ids=size, zipf=0.5, numeric=0, noise=0, hidden=0, pairs=0
    )
    log = joined(config)
    counts = np.bincount(log.ids[0], minlength=size)
    ids, where = np.unique(log.ids[0], return_index=True)
    hidden = log.logit[where]  # one field, first-order part only: an id's own hidden number
    limit = 5 / np.sqrt(size)
    features = {f"bit {b} of the number": ids >> b & 1 for b in range(12)}
    features["the number"] = ids
    for seed in (0, 1):
        hashed = hash_values(ids, seed).view(np.uint64)
        features |= {
            f"bit {b} of the hash": (hashed >> np.uint64(b) & np.uint64(1)).astype(int)
            for b in range(0, 64, 3)
        }
    for name, feature in features.items():
        for what, values in (("count", np.log1p(counts[ids])), ("hidden", hidden)):
            correlation = np.corrcoef(feature, values)[0, 1]
            assert abs(correlation) < limit, f"{name} tells the {what}: {correlation}"
    assert abs(np.corrcoef(counts[ids], hidden)[0, 1]) < limit


def test_an_id_keeps_its_hidden_numbers() -> None:
    log = joined(SynthConfig(rows=20_000, fields=2, ids=60, numeric=0))
    pairs = log.ids[0] * 1000 + log.ids[1]
    _, which = np.unique(pairs, return_inverse=True)
    highest, lowest = np.full(which.max() + 1, -99.0), np.full(which.max() + 1, 99.0)
    np.maximum.at(highest, which, log.logit)
    np.minimum.at(lowest, which, log.logit)
    np.testing.assert_array_equal(highest, lowest)
    assert log.logit.std() == pytest.approx(np.sqrt(0.6**2 + 1.0 + 0.4**2), rel=0.35)


def test_clusters_share_what_the_word_says() -> None:
    only = {"rows": 30_000, "fields": 1, "ids": 3000, "numeric": 0, "noise": 0.0}
    assert len(np.unique(joined(SynthConfig(**only, cluster=1.0)).logit)) <= 64
    assert len(np.unique(joined(SynthConfig(**only, cluster=0.5)).logit)) > 1000


@pytest.mark.parametrize("part", ["linear", "pairs", "hidden"])
@pytest.mark.parametrize("kind", ["fields", "bags", "numeric"])
def test_every_kind_of_column_takes_part_in_every_part_of_the_logit(part: str, kind: str) -> None:
    parts = {"linear": 0.0, "pairs": 0.0, "hidden": 0.0, part: 1.0}
    counts = {"fields": 2, "bags": 2, "numeric": 2}
    log = joined(SynthConfig(rows=20_000, ids=20, bag_ids=20, zipf=0.0, **parts, **counts))
    given_ = {
        "fields": [log.ids[0] == value for value in range(20)],
        "bags": [(log.bag_ids[0] == value).any(axis=1) for value in range(20)],
        "numeric": [log.numeric[0], np.log(log.numeric[0]), np.log(log.numeric[0]) ** 2],
    }[kind]
    if part == "pairs":  # a pair's sign depends on the partner, so look at the spread
        seen = max(abs(np.corrcoef(x, np.abs(log.logit - log.logit.mean()))[0, 1]) for x in given_)
    else:
        seen = max(abs(np.corrcoef(x, log.logit)[0, 1]) for x in given_)
    assert seen > 0.04  # six standard errors


def test_labels_follow_the_words() -> None:
    log = joined(SynthConfig(rows=100_000, ids=1000, positive=0.1))
    assert log.label.mean() == pytest.approx(0.1, abs=0.01)
    assert (np.diff(log.time) >= 0).all()
    assert np.log(log.numeric).std() == pytest.approx(1.0, abs=0.2)
    noisy = np.log(log.probability / (1 - log.probability)) - log.logit
    assert noisy.std() == pytest.approx(0.3, abs=0.01)


def test_the_bayes_auc_is_the_expected_auc_of_the_true_logit(tmp_path: Path) -> None:
    config = SynthConfig(rows=3000, ids=1000, noise=1.0)
    report = synthesize(config, tmp_path / "log.parquet")
    log = joined(config)
    ahead = log.logit[:, None] > log.logit
    weight = log.probability[:, None] * (1 - log.probability)
    np.fill_diagonal(weight, 0)
    assert report.bayes_auc == pytest.approx((weight * ahead).sum() / weight.sum(), abs=1e-3)
    large = joined(SynthConfig(rows=200_000, ids=1000, noise=1.0))
    assert roc_auc_score(large.label, large.logit) == pytest.approx(report.bayes_auc, abs=0.015)


def test_the_bayes_auc_falls_with_noise_and_ends_at_chance(tmp_path: Path) -> None:
    def best(name: str, **words: float) -> float:
        return synthesize(SynthConfig(rows=20_000, ids=500, **words), tmp_path / name).bayes_auc  # type: ignore[arg-type]

    clean, noisy = best("a", noise=0.0), best("b", noise=2.0)
    assert clean > noisy + 0.03
    assert best("c", linear=0, pairs=0, hidden=0) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize("name", ["a.parquet", "shards", "a.csv", "a.csv.gz", "a.csv.zst"])
def test_what_is_written_is_what_was_generated(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitfold.data.synth.write.SHARD_ROWS", 1900)
    monkeypatch.setattr("bitfold.data.synth.log._CHUNK_ROWS", 1500)
    seen: list[tuple[int, int]] = []
    out = tmp_path / "new" / name
    report = synthesize(SMALL, out, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 5000) for n in (1500, 3000, 4500, 5000)]
    if name == "shards":
        assert len(list(out.iterdir())) == 4
        read = pl.read_parquet(sorted(out.glob("*.parquet")))
    else:
        read = pl.read_parquet(out) if name.endswith("parquet") else pl.read_csv(out)
    log = joined(SMALL)
    assert read.columns == [
        "label", "time", "field_0", "field_1", "field_2", "field_3", "bag_0", "numeric_0",
        "numeric_1",
    ]  # fmt: skip
    np.testing.assert_array_equal(read["label"], log.label)
    np.testing.assert_array_equal(read["time"], log.time)
    for f, ids in enumerate(log.ids):
        assert read[f"field_{f}"].dtype == pl.Int64
        np.testing.assert_array_equal(read[f"field_{f}"], ids)
    for n, values in enumerate(log.numeric):
        np.testing.assert_allclose(read[f"numeric_{n}"], values, rtol=1e-6)
    bags = ["|".join(map(str, row[row >= 0])) for row in log.bag_ids[0]]
    assert read["bag_0"].cast(pl.String).to_list() == bags
    beside = json.loads((tmp_path / "new" / f"{name}.json").read_text())
    assert beside["bayes_auc"] == report.bayes_auc
    assert beside["config"]["seed"] == 7
    assert report.distinct == {f"field_{f}": len(np.unique(ids)) for f, ids in enumerate(log.ids)}
    assert report.positive_rate == log.label.mean()


def test_a_billion_ids_need_no_room(tmp_path: Path) -> None:
    config = SynthConfig(rows=20_000, fields=2, ids=1_000_000_000, zipf=0.2, numeric=0)
    log = joined(config)
    assert log.ids[0].min() >= 0
    assert 9.9e8 < log.ids[0].max() < 1_000_000_000
    assert len(np.unique(log.ids[0])) > 19_000
    assert synthesize(config, tmp_path / "log").distinct["field_0"] == len(np.unique(log.ids[0]))


def test_the_default_has_a_million_rows_and_half_a_million_ids(tmp_path: Path) -> None:
    report = synthesize(SynthConfig(), tmp_path / "log.parquet")
    assert report.rows >= 1_000_000
    assert sum(report.distinct.values()) >= 500_000


@pytest.mark.parametrize(
    ("word", "value"),
    [("rows", 0), ("rows", 1.5), ("fields", 0), ("ids", 1), ("ids", 10**10), ("zipf", -0.1),
     ("zipf", float("nan")), ("bags", -1), ("positive", 0), ("cluster", 1.1), ("seed", -1)],
)  # fmt: skip
def test_a_word_out_of_range_is_named(word: str, value: float) -> None:
    with pytest.raises(BitfoldError, match=f"{word}(.|\n)*got: {word} (.|\n)*expected(.|\n)*fix"):
        SynthConfig(**{word: value})  # type: ignore[arg-type]


def test_what_exists_stays_without_force(tmp_path: Path) -> None:
    out = tmp_path / "log.csv"
    out.write_text("mine")
    with pytest.raises(BitfoldError, match=r"log\.csv exists"):
        synthesize(SMALL, out)
    assert out.read_text() == "mine"
    assert synthesize(SMALL, out, force=True).rows == 5000
    assert pl.read_csv(out).height == 5000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.csv", "log.csv.json"]


def test_force_replaces_shards_but_no_other_folder(tmp_path: Path) -> None:
    out = tmp_path / "log"
    synthesize(SMALL, out)
    synthesize(SynthConfig(rows=10, ids=20), out, force=True)
    assert pl.read_parquet(out / "*.parquet").height == 10
    (out / "thesis.tex").write_text("mine")
    with pytest.raises(BitfoldError, match=r"thesis.tex"):
        synthesize(SMALL, out, force=True)
    assert (out / "thesis.tex").read_text() == "mine"


@pytest.mark.parametrize("name", ["log.xlsx", "log.json", "."])
def test_an_unknown_format_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(BitfoldError, match=r"format(.|\n)*\.parquet, \.csv"):
        synthesize(SMALL, Path(name) if name == "." else tmp_path / name)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pyarrow.parquet.ParquetWriter, "write_table", full)
    for name in ("log.parquet", "log"):
        with pytest.raises(BitfoldError, match=r"No space left(.|\n)*free some space"):
            synthesize(SMALL, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BitfoldError, match="could not be written"):
        synthesize(SMALL, tmp_path / "file" / "log.parquet")


def test_an_interrupted_log_leaves_the_old_one(tmp_path: Path) -> None:
    out = tmp_path / "log.parquet"
    synthesize(SynthConfig(rows=10, ids=20), out)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize(SMALL, out, force=True, progress=interrupt)
    assert pl.read_parquet(out).height == 10
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.parquet", "log.parquet.json"]


def test_importing_it_loads_neither_numba_nor_arrow() -> None:
    code = (
        "import sys, bitfold, bitfold.data.synth.log as s; s.SynthConfig(rows=5).sizes;"
        "print([m for m in ('numba', 'pyarrow', 'polars', 'torch') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
