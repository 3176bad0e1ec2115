"""Parquet columns of every type: read as what they mean, or one message."""

import datetime as dt
import decimal
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bitfold.data.config import DataConfig
from bitfold.data.hashing import hash_values, missing_id
from bitfold.data.prepare import prepare
from bitfold.data.raw import read_batches
from bitfold.errors import BitfoldError

ROWS = 40
LABELS = [i % 2 for i in range(ROWS)]


def write(folder: Path, **columns: Any) -> Path:
    made = {"click": pa.array(LABELS), "user": pa.array(range(ROWS))} | columns
    path = folder / "log.parquet"
    pq.write_table(pa.table(made), path)
    return path


def ids(path: Path, **words: Any) -> list[int]:
    """The ids of the column `x`, in the log's order."""
    config = DataConfig(label="click", fields=("x",), **words)
    log = prepare(path, path.parent / "out", config, force=True)
    (batch,) = read_batches(path, log.schema)
    assert batch.labels is not None
    assert batch.labels.tolist() == LABELS
    return batch.ids.flatten().tolist()


@pytest.mark.parametrize(
    "label",
    [
        pa.array([str(i) for i in LABELS]).dictionary_encode(),
        pa.array(LABELS).dictionary_encode(),
        pa.array([bool(i) for i in LABELS]),
        pa.array([bool(i) for i in LABELS]).cast(pa.int8()).dictionary_encode(),
        pa.array([b"%d" % i for i in LABELS]),
        pa.array([b"%d" % i for i in LABELS], pa.binary(1)),
        pa.array([decimal.Decimal(i) for i in LABELS]),
        pa.array([float(i) for i in LABELS], pa.float32()),
        pa.array(LABELS, pa.uint64()),
        pa.array([str(i) for i in LABELS], pa.large_string()),
        pa.array([str(i) for i in LABELS], pa.string_view()),
    ],
    ids=lambda array: str(array.type),
)
@pytest.mark.parametrize("rule", ["click", "click==1", "click!=0", "click>0"])
def test_labels_of_every_type(tmp_path, label, rule):
    path = write(tmp_path, click=label)
    log = prepare(path, tmp_path / "out", DataConfig(label=rule, fields=("user",)))
    (batch,) = read_batches(path, log.schema)
    assert batch.labels is not None
    assert batch.labels.tolist() == LABELS


BAD = {
    "durations": pa.array([dt.timedelta(seconds=i) for i in range(ROWS)]),
    "clock": pa.array([dt.time(i % 24) for i in range(ROWS)]),
    "bytes": pa.array([b"\xff%d" % i for i in range(ROWS)]),
    "struct": pa.array([{"a": i} for i in range(ROWS)]),
    "list": pa.array([[i] for i in range(ROWS)]),
    "map": pa.array([[("a", i)] for i in range(ROWS)], pa.map_(pa.string(), pa.int64())),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("role", ["label", "time", "number", "weight", "split"])
def test_types_that_mean_nothing_in_a_role_give_one_message(tmp_path, kind, role):
    path = write(tmp_path, x=BAD[kind])
    words: dict[str, Any] = {"label": "click", "fields": ("user",)}
    words |= {
        "label": {"label": "x"},
        "time": {"time": "x", "split": "time:0.5,0.25,0.25"},
        "number": {"numeric": ("x",)},
        "weight": {"weight": "x"},
        "split": {"split": "column:x"},
    }[role]
    with pytest.raises(BitfoldError) as caught:
        prepare(path, tmp_path / "out", DataConfig(**words))
    assert "'x'" in str(caught.value)
    assert "got:" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("zone", ["+05:30", "-03:30", "Asia/Kolkata", "UTC", "America/St_Johns"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_moments_with_any_zone_are_instants(tmp_path, zone, unit):
    seconds = [1_704_067_200 + 3600 * i for i in range(ROWS)]
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    moments = pa.array([s * scale for s in seconds], pa.timestamp(unit, zone))
    path = write(tmp_path, x=moments)
    texts = [dt.datetime.fromtimestamp(s, dt.UTC).isoformat() for s in seconds]
    assert ids(path) == hash_values(texts).tolist()
    config = DataConfig(label="click", fields=("user",), time="x", split="time:0.5,0.25,0.25")
    log = prepare(path, tmp_path / "timed", config)
    users = [int(each["value"]) for each in log.stats["fields"]["user"]["head"]]
    assert sorted(users) == list(range(ROWS // 2))


UUIDS = [uuid.UUID(int=i) for i in range(ROWS)]


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pa.array([f"v{i % 5}" for i in range(ROWS)]).dictionary_encode(), None),
        (pa.array([i % 5 for i in range(ROWS)]).dictionary_encode(), None),
        (pa.array([b"v%d" % (i % 5) for i in range(ROWS)]), [f"v{i % 5}" for i in range(ROWS)]),
        (pa.array([u.bytes for u in UUIDS], pa.uuid()), [str(u) for u in UUIDS]),
        (pa.array([dt.time(i % 24, 5) for i in range(ROWS)]), None),
        (pa.array([decimal.Decimal(i) / 4 for i in range(ROWS)]), None),
        (pa.array([i / 4 for i in range(ROWS)], pa.float16()), [i / 4 for i in range(ROWS)]),
        (pa.array([None, "a"] * 20).dictionary_encode(), None),
        (pa.nulls(ROWS - 1).cast(pa.string()), None),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_fields_of_every_type(tmp_path, column, texts):
    if len(column) < ROWS:
        column = pa.concat_arrays([column, pa.array(["a"])])
        assert ids(write(tmp_path, x=column), split="random:1,0,0")[0] == missing_id()
        return
    expected = hash_values(texts if texts is not None else column.to_pylist())
    assert ids(write(tmp_path, x=column)) == expected.tolist()


@pytest.mark.parametrize("inner", [pa.string(), pa.int64(), pa.binary()])
def test_lists_of_categories_and_bytes(tmp_path, inner):
    values = [None if i == 3 else [str(j) for j in range(i % 4)] for i in range(ROWS)]
    typed = [
        None if row is None else [pa.scalar(v).cast(inner).as_py() for v in row] for row in values
    ]
    plain = pa.array(typed, pa.list_(inner))
    for column in (plain, plain.cast(pa.large_list(inner))):
        flat = ids(write(tmp_path, x=column), multi={"x": "|"})
        assert flat == hash_values([v for row in values if row for v in row]).tolist()
    coded = pa.ListArray.from_arrays(
        plain.offsets, plain.values.dictionary_encode(), mask=plain.is_null()
    )
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"click": LABELS, "x": coded}), path)
    assert ids(path, multi={"x": "|"}) == flat


def test_a_column_named_twice(tmp_path):
    path = tmp_path / "log.parquet"
    table = pa.table([pa.array(LABELS)] * 3, names=["click", "x", "x"])
    pq.write_table(table, path)
    with pytest.raises(BitfoldError, match="more than once"):
        ids(path)
