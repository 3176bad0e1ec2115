"""Each mistake in a log gives one message that says got, expected and fix, and leaves nothing."""

import errno
import gzip
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from bitfold.data.config import DataConfig
from bitfold.data.prepare import prepare
from bitfold.data.prepared import is_prepared
from bitfold.errors import BitfoldError

WORDS = {"label": "click", "fields": ("user", "item"), "split": "random:1,0,0"}
HEADER = "click,user,item\n"
GOOD = "".join(f"{i % 2},u{i % 7},i{i}\n" for i in range(100))


def refused(source: Path, out: Path, **words: object) -> str:
    """The message of a log that must not be prepared; nothing may be left beside it."""
    before = sorted(path.name for path in out.parent.iterdir())
    with pytest.raises(BitfoldError) as caught:
        prepare(source, out, DataConfig(**(WORDS | words)))  # type: ignore[arg-type]
    assert sorted(path.name for path in out.parent.iterdir()) == before
    assert not is_prepared(out)
    message = str(caught.value)
    assert "got:" in message
    assert "expected:" in message
    return message


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def log(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str | bytes, name: str = "log.csv") -> Path:
        path = tmp_path / name
        data = text.encode() if isinstance(text, str) else text
        if name.endswith(".gz"):
            data = gzip.compress(data)
        if name.endswith(".zst"):
            data = zstandard.compress(data)
        path.write_bytes(data)
        return path

    return write


def test_the_good_log_is_good(log, out):
    assert prepare(log(HEADER + GOOD), out, DataConfig(**WORDS)).rows["train"] == 100


def test_missing_file_names_the_nearest(log, out, tmp_path):
    log(HEADER + GOOD, "clicks.csv")
    assert "clicks.csv" in refused(tmp_path / "click.csv", out)
    assert "no folder" in refused(tmp_path / "nowhere" / "click.csv", out)
    assert "no file matches" in refused(tmp_path / "*.tsv", out)


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "log.csv.zst"])
@pytest.mark.parametrize("text", ["", "\n\n", HEADER, HEADER.strip()])
def test_empty_and_header_only_files(log, out, text, name):
    message = refused(log(text, name), out)
    assert "is empty" in message or "no rows" in message


def test_empty_parquet(out, tmp_path):
    path = tmp_path / "log.parquet"
    pl.DataFrame({"click": [], "user": [], "item": []}).write_parquet(path)
    assert "no rows" in refused(path, out)


def test_missing_column_names_the_nearest(log, out, tmp_path):
    assert "did you mean 'user'" in refused(log(HEADER + GOOD), out, fields=("usr", "item"))
    assert "did you mean 'click'" in refused(log(HEADER + GOOD), out, label="clik")
    assert "'group'" in refused(log(HEADER + GOOD), out, group="group")
    path = tmp_path / "log.parquet"
    pl.DataFrame({"click": [0, 1], "user": [1, 2], "item": [1, 2]}).write_parquet(path)
    assert "did you mean 'item'" in refused(path, out, fields=("user", "iten"))


def test_a_column_missing_in_the_last_file_is_found_before_reading(log, out, tmp_path):
    log(HEADER + GOOD, "a.csv")
    log("click,user\n1,2\n", "b.csv")
    assert "b.csv" in refused(tmp_path / "[ab].csv", out)


def test_a_column_named_twice(log, out):
    assert "more than once" in refused(log("click,user,user,item\n1,2,3,4\n0,2,3,4\n"), out)


@pytest.mark.parametrize("rows", [50, 200_000])
@pytest.mark.parametrize(("line", "count"), [("1,u1", 2), ("1,u1,i1,more", 4), ('1,"u,1,i1', 2)])
def test_ragged_line_says_its_number(log, out, rows, line, count):
    text = HEADER + "1,u,i\n0,u,i\n" * (rows // 2) + line + "\n" + GOOD
    message = refused(log(text), out)
    assert "ragged" in message or "quote" in message
    if '"' not in line:
        assert f"line {rows + 2} of" in message
        assert f"{count} columns" in message


@pytest.mark.parametrize("rows", [10, 200_000])
@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
def test_bad_utf8_says_where(log, out, rows, name):
    text = HEADER.encode() + b"1,u,i\n0,u,i\n" * (rows // 2) + b"1,u\xff,i\n" + GOOD.encode()
    message = refused(log(text, name), out)
    assert f"line {rows + 2} of" in message
    assert "0xff at position 4" in message


def test_bad_utf8_in_the_header(log, out):
    assert "line 1 of" in refused(log(b"click,us\xe9r,item\n1,2,3\n"), out)


@pytest.mark.parametrize("name", ["log.csv.gz", "log.csv.zst"])
@pytest.mark.parametrize("keep", [3, 20, 0.5, 0.95, -9, -4, -1])
def test_truncated_packing(log, out, name, keep):
    lines = "".join(f"{i % 2},u{i * 7919 % 100_003},i{i}\n" for i in range(20_000))
    path = log(HEADER + lines, name)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    message = refused(path, out)
    assert "truncated or no whole" in message


@pytest.mark.parametrize("name", ["log.csv.gz", "log.csv.zst"])
def test_text_that_claims_to_be_packed(out, tmp_path, name):
    path = tmp_path / name
    path.write_text(HEADER + GOOD)
    assert "no whole" in refused(path, out)


def test_broken_parquet(out, tmp_path):
    path = tmp_path / "log.parquet"
    frame = pl.DataFrame(
        {"click": [0, 1] * 5000, "user": range(10_000), "item": range(10_000)},
    )
    frame.write_parquet(path, compression="uncompressed")
    data = path.read_bytes()
    for broken in (data[:1000], data[:-3], b"PAR1", b"no parquet at all" * 10):
        path.write_bytes(broken)
        assert "cannot be read as Parquet" in refused(path, out)


def test_parquet_broken_in_its_pages(out, tmp_path):
    path = tmp_path / "log.parquet"
    frame = pl.DataFrame({"click": [0, 1] * 5000, "user": range(10_000), "item": range(10_000)})
    frame.write_parquet(path, compression="zstd")
    data = bytearray(path.read_bytes())
    data[60:2000] = bytes(1940)
    path.write_bytes(data)
    assert "Parquet" in refused(path, out)


def test_nested_parquet(out, tmp_path):
    path = tmp_path / "log.parquet"
    table = pa.table({"click": [0, 1], "user": [[1], [2]], "item": [{"a": 1}, {"a": 2}]})
    pq.write_table(table, path)
    assert "--multi user" in refused(path, out)
    assert "nested" in refused(path, out, fields=("item",))
    assert "nested" in refused(path, out, fields=("user", "item"), multi={"user": "|"})


def test_label_neither_0_nor_1(log, out, tmp_path):
    message = refused(log("click,user,item\n1,a,b\n4,a,b\n"), out)
    assert "row 2 of" in message
    assert "--label 'click>=4'" in message
    assert "neither 0 nor 1" in refused(log("click,user,item\nyes,a,b\n0,a,b\n"), out)
    path = tmp_path / "log.parquet"
    pl.DataFrame({"click": [0.5, 1], "user": [1, 2], "item": [1, 2]}).write_parquet(path)
    assert "row 1 of" in refused(path, out)


def test_label_missing(log, out):
    assert "the label is missing" in refused(log("click,user,item\n1,a,b\n,a,b\n"), out)
    rated = log("click,user,item\n1,a,b\nx,a,b\n")
    assert "no number" in refused(rated, out, label="click>=1")
    nothing = log("click,user,item\n1,a,b\n,a,b\n")
    assert "the label is missing" in refused(nothing, out, label="click>=1")


def test_no_label_and_no_fields(log, out):
    assert "no label" in refused(log(HEADER + GOOD), out, label=None)
    assert "no fields" in refused(log(HEADER + GOOD), out, fields=())


def test_a_label_among_the_fields(log, out):
    assert "predicted from" in refused(log(HEADER + GOOD), out, fields=("click", "user"))
    assert "predicted from" in refused(log(HEADER + GOOD), out, cross=("click*user",))
    assert "predicted from" in refused(log(HEADER + GOOD), out, label="user==u1")


def test_one_class_only(log, out):
    message = refused(log(HEADER + "1,a,b\n1,c,d\n"), out)
    assert "one class only" in message
    assert "all with label 1" in message
    assert "all with label 0" in refused(log(HEADER + GOOD), out, label="click>=2")


def test_a_field_all_missing(log, out):
    text = "click,user,item,n\n1,a,,\n0,b,,\n"
    assert "'item' is missing in every row" in refused(log(text), out)
    assert "'n' is missing in every row" in refused(
        log(text), out, fields=("user",), numeric=("n",)
    )
    bags = {"fields": ("user", "item"), "multi": {"item": "|"}}
    assert "'item' is missing in every row" in refused(log(text), out, **bags)


@pytest.mark.parametrize("value", ["-1", "1.5", "abc", "", "9223372036854775808", "1e30"])
def test_what_is_no_dense_id(log, out, value):
    text = f"click,user,item\n1,0,1\n0,1,{value}\n"
    message = refused(log(text), out, ids="dense")
    assert "column 'item', row 2 of" in message


@pytest.mark.parametrize("values", [[0, -1], [0.0, 1.5], [0, None], [0.0, float("nan")]])
def test_what_is_no_dense_id_in_parquet(out, tmp_path, values):
    path = tmp_path / "log.parquet"
    pl.DataFrame({"click": [0, 1], "user": [0, 1], "item": values}).write_parquet(path)
    assert "column 'item', row 2 of" in refused(path, out, ids="dense")


@pytest.mark.parametrize("value", ["abc", "inf", "1,5"])
def test_what_is_no_number(log, out, value):
    text = f'click,user,item,n\n1,a,b,1\n0,a,b,"{value}"\n'
    assert "row 2 of" in refused(log(text), out, numeric=("n",))


def test_weights_and_times_that_are_none(log, out):
    text = "click,user,item,n\n1,a,b,1\n0,a,b,-1\n"
    assert "no weight" in refused(log(text), out, weight="n")
    text = "click,user,item,n\n1,a,b,2024-01-31\n0,a,b,\n"
    assert "the time cannot be read" in refused(log(text), out, time="n", split="time:0.5,0,0.5")


def test_a_split_column_that_names_no_part(log, out):
    text = "click,user,item,part\n1,a,b,train\n0,a,b,tets\n"
    assert "row 2 of" in refused(log(text), out, split="column:part")
    text = "click,user,item,part\n1,a,b,test\n0,a,b,test\n"
    assert "no rows to train on" in refused(log(text), out, split="column:part")


def test_columns_named_that_the_file_has_not(log, out):
    message = refused(log(GOOD), out, columns=("click", "user", "item", "more"))
    assert "3 columns in its first line" in message


def test_output_that_exists(log, out):
    source, config = log(HEADER + GOOD), DataConfig(**WORDS)
    prepare(source, out, config)
    with pytest.raises(BitfoldError, match="--force"):
        prepare(source, out, config)
    assert is_prepared(out)
    prepare(source, out, config, force=True)
    assert is_prepared(out)


def test_force_deletes_nothing_but_a_prepared_log(log, out, tmp_path):
    source, config = log(HEADER + GOOD), DataConfig(**WORDS)
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    for target in (out, source):
        with pytest.raises(BitfoldError, match="no prepared log"):
            prepare(source, target, config, force=True)
    assert (out / "thesis.tex").exists()


def test_a_failed_run_keeps_the_log_that_was_there(log, out, monkeypatch):
    source, config = log(HEADER + GOOD), DataConfig(**WORDS)
    prepare(source, out, config)
    log("click,user,item\n1,a\n")
    with pytest.raises(BitfoldError, match="ragged"):
        prepare(source, out, config, force=True)
    assert is_prepared(out)


@pytest.mark.parametrize(
    "place",
    [
        "bitfold.data.dealing.append_frame",
        "bitfold.data.writing.write_shard",
        "bitfold.data.writing.write_json",
        "bitfold.data.schema.Schema.save",
    ],
)
def test_disk_full(log, out, monkeypatch, place):
    def full(*args: object, **words: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(place, full)
    assert "the disk is full" in refused(log(HEADER + GOOD), out)


def test_an_output_that_cannot_be_made(log, tmp_path):
    source = log(HEADER + GOOD)
    with pytest.raises(BitfoldError, match="cannot write"):
        prepare(source, source / "inside" / "out", DataConfig(**WORDS))


def test_a_name_that_does_not_tell_its_format(log, out):
    assert "--format" in refused(log(HEADER + GOOD, "log.data"), out)
    assert prepare(out.parent / "log.data", out, DataConfig(format="csv", **WORDS)).rows


def test_a_forked_process_that_lost_its_threads(log, out, monkeypatch):
    monkeypatch.setattr("bitfold.data.forks._lost", True)
    assert "forked process" in refused(log(HEADER + GOOD), out)
