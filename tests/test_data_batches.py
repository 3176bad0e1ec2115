"""Batches of a prepared log: each row once, in an order that its seed decides, for every rank."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitfold.data.batch import Batch
from bitfold.data.config import DataConfig
from bitfold.data.prepare import prepare
from bitfold.data.prepared import PreparedLog
from bitfold.errors import BitfoldError

ROWS = 997


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PreparedLog]:
    """The same rows in many small shards, with and without bags."""
    folder = tmp_path_factory.mktemp("logs")
    frame = pl.DataFrame(
        {
            "y": [i % 2 for i in range(ROWS)],
            "f": range(ROWS),
            "bag": ["|".join(str(i * j) for j in range(i % 4)) for i in range(ROWS)],
            "n": range(ROWS),
        }
    )
    frame.write_parquet(folder / "log.parquet")
    words = DataConfig(
        label="y", fields=("f",), ids="dense", weight="n", group="f", split="random:1,0,0"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bitfold.data.dealing.BIN_BYTES", 2500)
        plain = prepare(folder / "log.parquet", folder / "plain", words)
        bags = words.replace(fields=("f", "bag"), multi={"bag": "|"})
        bagged = prepare(folder / "log.parquet", folder / "bags", bags)
    assert len(list((plain.path / "train").iterdir())) > 8
    return {"plain": plain, "bags": bagged}


def weights(batches: list[Batch]) -> list[int]:
    return [int(w) for batch in batches for w in batch.weights]  # type: ignore[union-attr]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(
    st.sampled_from(["plain", "bags"]),
    st.integers(1, 300),
    st.one_of(st.none(), st.integers(0, 3)),
    st.integers(1, 5),
    st.booleans(),
)
def test_every_row_once_over_all_ranks(logs, kind, batch_size, seed, world_size, drop_last):
    log = logs[kind]
    words = {"shuffle_seed": seed, "drop_last": drop_last, "world_size": world_size}
    steps = log.num_batches("train", batch_size, world_size, drop_last)
    seen: list[int] = []
    for rank in range(world_size):
        batches = list(log.batches("train", batch_size, rank=rank, **words))
        assert len(batches) == steps
        full = batches if drop_last else batches[:-1]
        assert all(b.rows == batch_size for b in full) or world_size > 1
        assert all(0 < b.rows <= batch_size for b in batches)
        seen += weights(batches)
    assert len(seen) == len(set(seen))
    left_out = ROWS - len(seen)
    assert left_out < (batch_size * world_size if drop_last else world_size)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 200), st.integers(0, 60), st.integers(0, 2), st.integers(1, 3))
def test_a_run_resumes_where_it_stopped(logs, batch_size, start, epoch, world_size):
    log = logs["bags"]
    words = {"shuffle_seed": 9, "epoch": epoch, "rank": world_size - 1, "world_size": world_size}
    whole = list(log.batches("train", batch_size, **words))
    rest = list(log.batches("train", batch_size, start=start, **words))
    assert len(rest) == max(len(whole) - start, 0)
    for one, other in zip(whole[start:], rest, strict=True):
        assert torch.equal(one.ids, other.ids)
        assert torch.equal(one.offsets, other.offsets)
        assert torch.equal(one.labels, other.labels)


def test_skipped_shards_are_not_read(logs, monkeypatch):
    log = logs["plain"]
    read: list[str] = []
    original = PreparedLog._read

    def spy(self, shard, order):
        read.append(shard.name)
        return original(self, shard, order)

    monkeypatch.setattr(PreparedLog, "_read", spy)
    assert len(list(log.batches("train", 10, start=ROWS // 10, shuffle_seed=1))) == 1
    assert len(read) == 1


def test_the_order_comes_from_the_seed_and_the_epoch_alone(logs):
    log = logs["plain"]

    def order(seed: int | None, epoch: int = 0, size: int = 64) -> list[int]:
        return weights(list(log.batches("train", size, shuffle_seed=seed, epoch=epoch)))

    assert order(None) == order(None, epoch=7) == order(None, size=10)
    assert order(1) == order(1, size=13)
    different = [order(None), order(1), order(2), order(1, epoch=1)]
    assert len({tuple(rows) for rows in different}) == 4
    assert all(sorted(rows) == list(range(ROWS)) for rows in different)


def test_bags_are_field_major(logs):
    for batch in logs["bags"].batches("train", 50, shuffle_seed=2):
        assert batch.offsets is not None
        assert batch.offsets.shape == (2 * batch.rows + 1,)
        assert batch.offsets[0] == 0
        assert batch.offsets[-1] == len(batch.ids)
        for row in range(batch.rows):
            number = int(batch.weights[row])
            bags = []
            for field in range(2):
                start, stop = batch.offsets[field * batch.rows + row :][:2]
                bags.append(batch.ids[start:stop].tolist())
            assert bags == [[number], [number * j for j in range(number % 4)]]
            assert int(batch.labels[row]) == number % 2


def test_shapes_and_types(logs):
    batch = next(logs["plain"].batches("train", 10))
    assert batch.rows == 10
    assert (batch.ids.dtype, batch.ids.shape) == (torch.int64, (10, 1))
    assert (batch.numeric.dtype, batch.numeric.shape) == (torch.float32, (10, 0))
    assert batch.labels.dtype == batch.weights.dtype == torch.float32
    assert batch.groups.dtype == torch.int64
    assert batch.ids.is_contiguous()
    moved = batch.to("cpu")
    assert torch.equal(moved.ids, batch.ids)
    assert moved.offsets is None
    batch.labels.add_(1)  # batches are the caller's own to write to


def test_an_empty_part_has_no_batches(logs):
    assert list(logs["plain"].batches("test", 10, shuffle_seed=0)) == []
    assert logs["plain"].num_batches("test", 10) == 0


def test_shares_that_do_not_exist(logs):
    log = logs["plain"]
    for words in ({"rank": 1}, {"rank": -1, "world_size": 2}, {"start": -1}, {"world_size": 0}):
        with pytest.raises(BitfoldError):
            log.batches("train", 10, **words)
    with pytest.raises(BitfoldError, match="did you mean 'train'"):
        log.batches("trian", 10)
    with pytest.raises(BitfoldError, match="batch size"):
        log.batches("train", 0)


def test_an_iterator_left_early_ends_its_thread(logs):
    import threading

    before = threading.active_count()
    for _ in range(5):
        batches = logs["plain"].batches("train", 10)
        next(batches)
        batches.close()
    assert threading.active_count() == before


def test_a_shard_broken_later_is_named(tmp_path: Path):
    pl.DataFrame({"y": [0, 1] * 500, "f": range(1000)}).write_parquet(tmp_path / "a.parquet")
    words = DataConfig(label="y", fields=("f",), split="random:1,0,0")
    log = prepare(tmp_path / "a.parquet", tmp_path / "out", words)
    shard = next((log.path / "train").iterdir())
    shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(BitfoldError, match="is not what was saved"):
        next(log.batches("train", 10))
    np.testing.assert_equal(log.rows["train"], 1000)
