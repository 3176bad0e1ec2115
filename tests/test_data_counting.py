"""Counts of ids, moments, samples and the vocabulary made of them."""

import collections

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfold.data.batch import Batch
from bitfold.data.config import DataConfig
from bitfold.data.field_map import MISSING, UNSEEN, FieldMap
from bitfold.data.hashing import hash_values, missing_id, mix
from bitfold.data.prepare import prepare
from bitfold.data.raw import read_batches
from bitfold.data.schema import Schema
from bitfold.data.statistics import IdCounter, Moments, Sample, hold_to
from bitfold.data.vocabulary import Vocabulary
from bitfold.errors import BitfoldError

IDS = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 9), max_size=50)


@settings(max_examples=60, deadline=None)
@given(st.lists(IDS, max_size=6))
def test_small_counts_are_exact(chunks):
    counter = IdCounter()
    for chunk in chunks:
        counter.add(np.array(chunk, np.int64))
    truth = collections.Counter(number for chunk in chunks for number in chunk)
    keys, counts = counter.counts()
    assert dict(zip(keys.tolist(), counts.tolist(), strict=True)) == dict(truth)
    assert keys.tolist() == sorted(truth)
    assert (counter.distinct, counter.exact, counter.standard_error) == (len(truth), True, 0.0)
    top = sorted(truth.items(), key=lambda item: (-item[1], item[0]))[:5]
    assert counter.head(5) == top


@pytest.mark.parametrize("distinct", [30_000, 300_000])
def test_many_ids_are_estimated_within_their_error(distinct):
    rng = np.random.default_rng(0)
    counter = IdCounter(cap=4096)
    ids = mix(np.arange(distinct)).view(np.int64)
    order = rng.permutation(np.concatenate([ids, ids[: distinct // 2], np.repeat(ids[:5], 9000)]))
    for chunk in np.array_split(order, 37):
        counter.add(chunk)
    assert not counter.exact
    assert len(counter.counts()[0]) <= 4096
    assert abs(counter.distinct - distinct) < 4 * counter.standard_error
    assert counter.standard_error < 0.03 * distinct
    head = dict(counter.head(5))
    assert set(head) == set(ids[:5].tolist())
    assert set(head.values()) == {9002}


def test_counters_share_a_bound():
    counters = [IdCounter() for _ in range(3)]
    for counter, distinct in zip(counters, (100, 40_000, 90_000), strict=True):
        counter.add(mix(np.arange(distinct)).view(np.int64))
    hold_to(counters, 60_000)
    assert sum(counter.kept for counter in counters) <= 60_000
    assert counters[0].exact
    assert not counters[2].exact
    for counter, distinct in zip(counters, (100, 40_000, 90_000), strict=True):
        assert abs(counter.distinct - distinct) <= 4 * counter.standard_error
    vocabulary = IdCounter(cap=None)
    vocabulary.add(np.arange(50_000))
    hold_to([vocabulary], 10)
    assert vocabulary.exact


def test_moments_equal_numpys():
    values = np.random.default_rng(1).normal(1e6, 3.0, 10_000)
    moments = Moments()
    for chunk in np.array_split(values, 7):
        moments.add(chunk)
    moments.add(np.empty(0))
    assert moments.mean == pytest.approx(values.mean(), rel=1e-12)
    assert moments.deviation == pytest.approx(values.std(), rel=1e-6)
    constant = Moments()
    constant.add(np.full(9, 4.0))
    assert constant.deviation == 1.0


def test_a_sample_is_exact_until_it_is_full_and_fair_afterwards():
    sample = Sample(cap=2000)
    values = np.arange(1000.0)
    sample.add(values, mix(np.arange(1000)))
    assert sample.sorted().tolist() == values.tolist()
    sample = Sample(cap=2000)
    for start in range(0, 100_000, 5000):
        rows = np.arange(start, start + 5000)
        sample.add(rows.astype(float), mix(rows))
    kept = sample.sorted()
    assert 900 < len(kept) <= 2000
    assert np.quantile(kept, 0.5) == pytest.approx(50_000, rel=0.1)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.integers(-(2**63), 2**63 - 1), st.integers(1, 9), max_size=40),
    st.integers(1, 4),
)
def test_a_map_is_dense_and_falls_in_frequency(counted, least):
    keys = np.array(sorted(counted), np.int64)
    counts = np.array([counted[key] for key in sorted(counted)], np.int64)
    fmap = FieldMap.fit(keys, counts, missing=12345, min_count=least)
    kept = {key: n for key, n in counted.items() if n >= least and key != 12345}
    dense = fmap.apply(keys)
    assert fmap.num_embeddings == len(kept) + 2
    by_id = dict(zip(dense.tolist(), keys.tolist(), strict=True))
    ranked = [counted[by_id[i]] for i in range(2, fmap.num_embeddings)]
    assert ranked == sorted(kept.values(), reverse=True)
    for key, place in zip(keys.tolist(), dense.tolist(), strict=True):
        assert (place >= 2) == (key in kept)
    assert fmap.apply(np.array([12345])).tolist() == [MISSING]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary")
    train = {"y": [0, 1] * 6, "f": ["a"] * 6 + ["b"] * 3 + ["c", None, "d"], "part": "train"}
    test = {"y": [0, 1], "f": ["a", "new"], "part": "test"}
    frame = pl.concat([pl.DataFrame(train), pl.DataFrame(test)])
    frame = frame.with_columns(tags=pl.when(pl.col("f") == "a").then(pl.lit("x|y")).otherwise(None))
    frame.write_parquet(path / "log.parquet")
    return path


CONFIG = DataConfig(label="y", fields=("f",), ids="vocabulary", split="column:part")


def test_a_vocabulary_log(folder):
    log = prepare(folder / "log.parquet", folder / "plain", CONFIG)
    assert log.schema.embedding_fields()[0].num_embeddings == 6
    assert log.schema.map_bytes == 4 * (8 + 4)
    train = np.concatenate([b.ids[:, 0] for b in log.batches("train", 5)])
    assert np.bincount(train).tolist() == [0, 1, 6, 3, 1, 1]
    assert sorted(next(log.batches("test", 5)).ids[:, 0].tolist()) == [UNSEEN, 2]
    assert log.stats["fields"]["f"]["unseen"] == {"test": 0.5}
    rare = prepare(folder / "log.parquet", folder / "rare", CONFIG.replace(min_count=2))
    train = np.concatenate([b.ids[:, 0] for b in rare.batches("train", 5)])
    assert np.bincount(train).tolist() == [2, 1, 6, 3]


def test_it_is_saved_with_the_schema(folder, tmp_path):
    log = prepare(folder / "log.parquet", folder / "saved", CONFIG)
    log.schema.save(tmp_path)
    schema = Schema.load(tmp_path)
    assert schema.map_bytes == log.schema.map_bytes
    batch = next(read_batches(folder / "log.parquet", schema, 100))
    assert batch.ids[:, 0].tolist() == [2] * 6 + [3] * 3 + batch.ids[9:12, 0].tolist() + [2, UNSEEN]
    path = tmp_path / "vocabulary.safetensors"
    whole = path.read_bytes()
    for broken in (whole[:-8], b"", b"x" * 100):
        path.write_bytes(broken)
        with pytest.raises(BitfoldError, match=r"is damaged|is missing"):
            Schema.load(tmp_path)
    path.unlink()
    with pytest.raises(BitfoldError, match=r"is damaged|is missing"):
        Schema.load(tmp_path)


@pytest.mark.parametrize("bags", [False, True])
def test_fitted_over_a_hashed_log_it_gives_what_prepare_gives(folder, bags):
    words = CONFIG.replace(
        fields=("f", "tags") if bags else ("f",), multi={"tags": "|"} if bags else {}
    )
    name = "bags" if bags else "single"
    dense = prepare(folder / "log.parquet", folder / f"d{name}", words)
    hashed = prepare(folder / "log.parquet", folder / f"h{name}", words.replace(ids="hashed"))
    vocabulary = Vocabulary.fit(hashed)
    fields = vocabulary.fields(hashed.schema.embedding_fields())
    assert [f.num_embeddings for f in fields] == [
        f.num_embeddings for f in dense.schema.embedding_fields()
    ]
    for part in ("train", "test"):
        pairs = zip(hashed.batches(part, 5), dense.batches(part, 5), strict=True)
        for one, other in pairs:
            mapped = vocabulary.apply(one)
            assert torch.equal(mapped.ids, other.ids)
            assert isinstance(mapped, Batch)


def test_statistics_of_a_field(folder):
    log = prepare(folder / "log.parquet", folder / "stats", CONFIG.replace(ids="hashed"))
    stats = log.stats["fields"]["f"]
    assert stats["distinct"] == 5
    assert stats["exact"]
    assert stats["missing"] == 1
    ids = hash_values(["a", "b"]).tolist()
    assert stats["head"][:2] == [
        {"id": ids[0], "count": 6, "value": "a"},
        {"id": ids[1], "count": 3, "value": "b"},
    ]
    assert {"id": missing_id(), "count": 1, "value": None} in stats["head"]
    assert log.stats["train_rows"] == 12
