"""The public formats by name, on rows made up in them; the real logs where they are."""

import gzip

import numpy as np
import polars as pl
import pytest

from bitfold.data.config import DataConfig
from bitfold.data.hashing import hash_text, hash_values, missing_id
from bitfold.data.prepare import prepare
from bitfold.data.raw import read_batches


def test_criteo(tmp_path):
    rng = np.random.default_rng(0)
    lines = []
    for row in range(60):
        numbers = [str(rng.integers(-2, 1000)) if rng.random() < 0.7 else "" for _ in range(13)]
        codes = [f"{rng.integers(0, 2**32):08x}" if i < 24 or row == 0 else "" for i in range(26)]
        codes[1] = 'ab"cd'  # quotes mean nothing here
        lines.append("\t".join([str(row % 2), *numbers, *codes]))
    (tmp_path / "day_0.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    config = DataConfig(format="criteo", split="random:1,0,0")
    log = prepare(tmp_path / "day_0.gz", tmp_path / "out", config)
    assert log.schema.field_names == [f"C{i}" for i in range(1, 27)]
    assert log.schema.numeric_names == [f"I{i}" for i in range(1, 14)]
    batch = next(log.batches("train", 60))
    assert batch.ids.shape == (60, 26)
    assert batch.numeric.shape == (60, 13)
    assert set(batch.ids[:, 1].tolist()) == {hash_text('ab"cd')}
    assert (batch.ids[:, 25] == missing_id()).sum() == 59
    unlabelled = "\n".join(lines)
    (tmp_path / "more.tsv").write_text(unlabelled)
    read = next(read_batches(tmp_path / "more.tsv", log.schema, 60))
    assert sorted(read.ids.tolist()) == sorted(batch.ids.tolist())
    assert read.labels is not None
    assert read.labels.sum() == 30


AVAZU = "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain," + (
    "app_category,device_id,device_ip,device_model,device_type,device_conn_type,"
    + ",".join(f"C{i}" for i in range(14, 22))
)


def test_avazu(tmp_path):
    rows = [
        f"{10**19 + row},{row % 2},141021{row % 24:02d},1005,0,1fbe01fe,f3845767,28905ebd,ecad2386,"
        f"7801e8d9,07d7df22,a99f214a,ddd2926e,44956a24,1,2,15706,320,50,1722,0,35,-1,{row % 7}"
        for row in range(96)
    ]
    (tmp_path / "train.gz").write_bytes(gzip.compress("\n".join([AVAZU, *rows]).encode()))
    config = DataConfig(format="avazu", fields=("id", "C1", "C20"), split="time:0.5,0.25,0.25")
    log = prepare(tmp_path / "train.gz", tmp_path / "out", config.replace(fields=("C1", "C21")))
    assert log.rows == {"train": 48, "valid": 24, "test": 24}
    log = prepare(tmp_path / "train.gz", tmp_path / "ids", config.replace(fields=("id", "C21")))
    batch = next(log.batches("train", 96))
    assert set(batch.ids[:, 0].tolist()) <= set(
        hash_values([str(10**19 + row) for row in range(96)]).tolist()
    )
    with pytest.raises(ValueError, match="'C20' is missing in every row"):
        prepare(tmp_path / "train.gz", tmp_path / "no", config)
    plain = [",".join(row.split(",")[:1] + row.split(",")[2:]) for row in [AVAZU, *rows]]
    (tmp_path / "test.csv").write_text("\n".join(plain))
    batch = next(read_batches(tmp_path / "test.csv", log.schema, 1000))
    assert batch.labels is None
    assert batch.ids[:, 0].tolist() == hash_values([str(10**19 + r) for r in range(96)]).tolist()


@pytest.mark.parametrize(
    ("name", "header", "separator"),
    [
        ("ratings.csv", "", ","),
        ("ratings.csv", "userId,movieId,rating,timestamp\r\n", ","),
        ("ratings.dat", "", "::"),
        ("ratings.csv.gz", "", ","),
    ],
)
def test_movielens(tmp_path, name, header, separator):
    rows = [[str(i % 5), str(i), f"{1 + i % 5}.0", str(10**9 + i)] for i in range(50)]
    data = (header + "".join(separator.join(row) + "\r\n" for row in rows)).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    config = DataConfig(format="movielens", split="last:1,1")
    log = prepare(tmp_path / name, tmp_path / "out", config)
    assert log.rows == {"train": 40, "valid": 5, "test": 5}
    test = next(log.batches("test", 10))
    assert sorted(test.ids[:, 1].tolist()) == sorted(hash_values([*range(45, 50)]).tolist())
    assert test.groups is not None
    assert test.groups.tolist() == test.ids[:, 0].tolist()


def test_a_formats_words_can_be_overridden(tmp_path):
    lines = ["\t".join([str(i % 2), *["1"] * 13, *["a"] * 26]) for i in range(10)]
    (tmp_path / "a.tsv").write_text("\n".join(lines))
    words = DataConfig(format="criteo", fields=("C1",), numeric=("none",), split="random:1,0,0")
    log = prepare(tmp_path / "a.tsv", tmp_path / "out", words)
    assert log.schema.field_names == ["C1"]
    assert log.schema.numeric_names == []


def test_real_ratings_without_a_header(shared_data, tmp_path):
    path = shared_data / "ml-latest-small" / "ratings.csv.gz"
    log = prepare(path, tmp_path / "out", DataConfig(format="movielens", split="last:1,1"))
    assert sum(log.rows.values()) == 100_023
    assert log.rows["valid"] == log.rows["test"] == 706
    stats = log.stats["fields"]
    assert stats["user"]["distinct"] == 706
    assert 8_000 < stats["movie"]["distinct"] <= 8_552


def test_real_log_with_a_split_of_its_own(shared_data, tmp_path):
    path = shared_data / "frappe" / "frappe.csv.gz"
    names = pl.read_csv(path, n_rows=1).columns
    fields = tuple(name for name in names if name not in ("label", "split"))
    words = DataConfig(label="label", fields=fields, split="column:split")
    log = prepare(path, tmp_path / "out", words)
    counts = pl.read_csv(path)["split"].value_counts()
    assert sorted(log.rows.values()) == sorted(counts["count"].to_list())
    assert len(log.schema.fields) == 10
