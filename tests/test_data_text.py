"""Text files as they come: line ends, quotes, headers, separators; rows always agree with lines."""

import csv
import functools
import gzip
import io
import logging
import os
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from bitfold.data import lines
from bitfold.data.config import DataConfig
from bitfold.data.prepare import prepare
from bitfold.data.raw import read_batches
from bitfold.data.reading import read_chunks
from bitfold.errors import BitfoldError
from command import bitfold

HEADER = "user,item,click\n"
GOOD = "".join(f"u{i % 7},i{i},{i % 2}\n" for i in range(100))


def read(path: Path | list[Path], wanted: str = "user,item,click", **words: Any) -> pl.DataFrame:
    """All rows of a log's columns."""
    config = DataConfig(label="click", fields=("user", "item"), **words)
    paths = path if isinstance(path, list) else [path]
    return pl.concat([rows.frame for rows in read_chunks(paths, config, wanted.split(","))])


def write(folder: Path, text: str | bytes, name: str = "log.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refused(path: Path, **words: Any) -> str:
    with pytest.raises(BitfoldError) as caught:
        read(path, **words)
    return str(caught.value)


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.WARNING, "bitfold")
    return caplog


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few lines, so that rows lie across their borders."""
    monkeypatch.setattr("bitfold.data.text.BLOCK_BYTES", 64)
    return 64


cell = st.text(st.sampled_from('ab "\n,;\t\r\u00e9'), max_size=6)
three = st.lists(st.tuples(cell, cell, cell), min_size=1, max_size=12)


@given(
    rows=three,
    block=st.integers(1, 80),
)
def test_quoted_cells_are_read_as_the_csv_module_writes_them(tmp_path_factory, rows, block):
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([("user", "item", "click"), *rows])
    path = write(tmp_path_factory.mktemp("log"), out.getvalue())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bitfold.data.text.BLOCK_BYTES", block)
        found = read(path, quote="double")
    assert found.rows() == [tuple(text or None for text in row) for row in rows]


@given(
    rows=three,
    quote=st.sampled_from(["auto", "double", "none"]),
    separator=st.sampled_from([",", "\t"]),
)
def test_any_text_gives_its_rows_or_one_error(tmp_path_factory, rows, quote, separator):
    text = "\n".join(separator.join(row) for row in [("user", "item", "click"), *rows])
    name = "log.csv" if separator == "," else "log.tsv"
    path = write(tmp_path_factory.mktemp("log"), text, name)
    try:
        found = read(path, quote=quote)
    except BitfoldError:
        return
    if quote == "none" or separator == "\t":
        assert found.height == sum(bool(line.strip("\r")) for line in text.split("\n")[1:])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("tail", [True, False])
def test_every_kind_of_line_end(tmp_path, end, tail, small_blocks):
    text = (HEADER + GOOD).replace("\n", end)
    path = write(tmp_path, text if tail else text.removesuffix(end))
    assert read(path).rows() == [(f"u{i % 7}", f"i{i}", str(i % 2)) for i in range(100)]


@pytest.mark.parametrize(
    ("row", "line"),
    [("u\r,i,1\n", 102), ("u,i\rx,1\n", 102), ("u,i,1\r\r\n", 102), ("u,i,1\ru,i,0\n", 102)],
)
def test_a_stray_carriage_return_is_refused_with_its_line(tmp_path, row, line):
    path = write(tmp_path, HEADER + GOOD + row + GOOD)
    message = refused(path)
    assert f"line {line} of" in message
    assert "carriage return" in message
    mixed = write(tmp_path, (HEADER + GOOD).replace("\n", "\r") * 90_000 + GOOD, "mixed.csv")
    assert "another way" in refused(mixed)


def test_a_carriage_return_in_quotes_is_text(tmp_path):
    path = write(tmp_path, HEADER + '"u\rv",i,1\n"u\r\nw",i,0\n')
    assert read(path)["user"].to_list() == ["u\rv", "u\r\nw"]


@pytest.mark.parametrize("name", ["log.tsv", "log.tab", "log.txt"])
def test_quotes_mean_nothing_in_tabs(tmp_path, name):
    cells = [f'"q{i}' if i in (10, 40) else f'q{i} 5"' if i == 20 else f"q{i}" for i in range(50)]
    text = "user\titem\tclick\n" + "".join(f"{c}\ti\t{i % 2}\n" for i, c in enumerate(cells))
    words = {"format": "tsv"} if name == "log.txt" else {}
    assert read(write(tmp_path, text, name), **words)["user"].to_list() == cells


@pytest.mark.parametrize("style", [csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
def test_tabs_quoted_throughout_are_unquoted(tmp_path, style):
    out = io.StringIO()
    rows = [(f"a\tb{i}", f'5" {i}', i % 2) for i in range(40)]
    csv.writer(out, delimiter="\t", quoting=style).writerows([("user", "item", "click"), *rows])
    found = read(write(tmp_path, out.getvalue(), "log.tsv"))
    assert found.rows() == [(a, b, str(c)) for a, b, c in rows]


def test_a_quoted_tab_in_text_without_quotes_says_what_to_say(tmp_path):
    path = write(tmp_path, 'user\titem\tclick\nu\ti\t1\n"a\tb"\ti\t0\n', "log.tsv")
    assert "--quote double" in refused(path)
    assert read(path, quote="double")["user"].to_list() == ["u", "a\tb"]


@pytest.mark.parametrize("swallow", ['"u,i,1\nu,i,0\nu,i,1\n"v,i,0\n', '"u,i,1\nu,i,0\nv 5",i,1\n'])
def test_a_quote_that_swallows_rows_is_named(tmp_path, swallow):
    path = write(tmp_path, HEADER + GOOD + swallow + GOOD)
    message = refused(path)
    assert "line 102 of" in message
    assert "swallows" in message
    assert read(path, quote="none").height == 200 + swallow.count("\n")


def test_cells_of_several_lines_are_read(tmp_path, small_blocks):
    text = HEADER + '"first\nsecond",i,1\nu,"a\n\n\nb",0\n"x ""y""\nz",j,1\n'
    found = read(write(tmp_path, text))
    assert found["user"].to_list() == ["first\nsecond", "u", 'x "y"\nz']
    assert found["item"].to_list() == ["i", "a\n\n\nb", "j"]


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
def test_a_quote_never_closed_is_found_in_the_first_blocks(tmp_path, monkeypatch, name):
    text = (HEADER + GOOD + '"u,i,1\n' + GOOD * 10_000).encode()
    path = write(tmp_path, gzip.compress(text, 1) if name.endswith("gz") else text, name)
    scanned = 0
    scan = lines.find_quotes

    def counting(data: bytes, dialect: lines.Dialect) -> Any:
        nonlocal scanned
        scanned += len(data)
        return scan(data, dialect)

    monkeypatch.setattr(lines, "find_quotes", counting)
    message = refused(path)
    assert "line 102 of" in message
    assert "never closed" in message
    assert scanned < 4 * lines.BLOCK_BYTES


def test_a_line_without_an_end_is_read_no_further_than_a_block(tmp_path, monkeypatch):
    endless = gzip.compress(b"x" * (64 << 20), 1)
    for text in (endless, gzip.compress(HEADER.encode()) + endless):
        path = write(tmp_path, text, "log.csv.gz")
        sizes: list[int] = []
        monkeypatch.setattr("bitfold.data.text.ahead", functools.partial(counted, sizes))
        assert "is too long" in refused(path)
        assert sum(sizes) <= 3 * lines.BLOCK_BYTES


def counted(sizes: list[int], stream: Any, size: int) -> Iterator[bytes]:
    while block := stream.read(size):
        sizes.append(len(block))
        yield block


def test_long_cells_and_the_ragged_line_after_them(tmp_path):
    cell = "|".join(str(i) for i in range(50_000))
    assert len(cell) > 131_072
    path = write(tmp_path, f"{HEADER}{cell},i,1\nu,i,0\n1,2\n")
    assert "line 4 of" in refused(path)
    path = write(tmp_path, f'{HEADER}"{cell}",i,1\nu,i,0\n')
    assert read(path)["user"].to_list() == [cell, "u"]


def test_separators_of_two_characters_and_cells_with_one(tmp_path):
    text = "1::a:b::1\n2::Toy: Story\x01::0\n3:::x::1\n"
    path = write(tmp_path, text, "log.dat")
    words = {"format": "csv", "separator": "::", "columns": ("user", "item", "click")}
    assert read(path, **words)["item"].to_list() == ["a:b", "Toy: Story\x01", ":x"]
    with pytest.raises(BitfoldError, match="several characters"):
        read(path, quote="double", **words)
    write(tmp_path, text + "4::x\n", "log.dat")
    assert "line 4 of" in refused(path, **words)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_empty_lines_of_one_column_are_rows(tmp_path, end):
    rows = ["", "a", "", "", "b", ""]
    for header in ("user", None):
        text = end.join(([header] if header else []) + rows) + end
        path = write(tmp_path, text)
        words = {"header": "yes" if header else "no"}
        config = DataConfig(columns=() if header else ("user",), **words)
        found = pl.concat([r.frame for r in read_chunks([path], config, ["user"])])
        assert found["user"].to_list() == [text or None for text in rows]


def test_empty_lines_of_several_columns_are_none(tmp_path):
    path = write(tmp_path, "\n\n" + HEADER + "\n" + GOOD + "\r\n\n" + GOOD + "\n")
    assert read(path).height == 200


def test_spaces_around_names_are_left_out_and_said(tmp_path, said):
    paths = [write(tmp_path, "user, item ,\tclick\n1,2,1\n", f"{n}.csv") for n in "ab"]
    assert read(paths).rows() == [("1", "2", "1")] * 2
    assert "spaces around names" in said.text
    assert "1 more file" in said.text
    twice = write(tmp_path, "user, user,item,click\n1,2,3,1\n")
    assert "more than once" in refused(twice)


def test_a_byte_order_mark_and_empty_names(tmp_path):
    path = write(tmp_path, '\ufeff"user",,item,,click\n1,x,2,y,1\n')
    assert read(path).rows() == [("1", "2", "1")]


@pytest.mark.parametrize("first", ["user,item,click", "user , item,click", "item,click,user"])
def test_a_header_in_a_log_without_one_is_no_row(tmp_path, said, first):
    columns = ("user", "item", "click")
    row = {"user": "u", "item": "i", "click": "1"}
    line = ",".join(row[name.strip()] for name in first.split(","))
    path = write(tmp_path, f"{first}\n{line}\n")
    assert read(path, columns=columns).rows() == [("u", "i", "1")]
    assert "it is no row" in said.text
    assert read(write(tmp_path, "user,x,1\n"), columns=columns).height == 1


@pytest.mark.parametrize("text", ["u1,i1\nu2,i2\n", "user,item\nu1,i1\nu2,i2\n"])
def test_a_log_without_a_header_scores_rows_without_the_label(tmp_path, text):
    source = write(tmp_path, GOOD)
    config = DataConfig(
        label="click", fields=("user", "item"), columns=("user", "item", "click"), ids="hashed"
    )
    log = prepare(source, tmp_path / "out", config)
    (batch,) = read_batches(write(tmp_path, text, "rows.csv"), log.schema)
    whole = next(read_batches(write(tmp_path, GOOD[8:], "one.csv"), log.schema))
    assert batch.rows == 2
    assert batch.ids[0].tolist() == whole.ids[0].tolist()


def test_movielens_by_any_of_its_separators(tmp_path):
    config = DataConfig(format="movielens", split="random:1,0,0")
    for name, separator in (("u.data", "\t"), ("ratings.dat", "::"), ("r.csv", ","), ("x", "\t")):
        text = "".join(
            separator.join(["u", str(i), str(i % 5 + 1), "1700000000"]) + "\n" for i in range(20)
        )
        log = prepare(write(tmp_path, text, name), tmp_path / f"out{name}", config)
        assert log.rows["train"] == 20


def test_a_zip_of_one_file(tmp_path):
    path = tmp_path / "log.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/", "")
        archive.writestr("folder/clicks.csv", HEADER + GOOD)
        archive.writestr("__MACOSX/clicks.csv", "x")
    assert read(path).height == 100
    data = path.read_bytes()
    for broken in (data[: len(data) // 2], data[:60] + b"\0" * 40 + data[100:], b"no zip"):
        path.write_bytes(broken)
        assert "zip" in refused(path, format="csv")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", HEADER + GOOD)
        archive.writestr("b.csv", HEADER + GOOD)
    assert "2 files: a.csv, b.csv" in refused(path)


@pytest.mark.parametrize("empty", [b"", gzip.compress(b"", mtime=0)], ids=["empty", "packed"])
def test_an_empty_part_of_a_folder(tmp_path, empty):
    folder = tmp_path / "spark"
    folder.mkdir()
    suffix = ".csv.gz" if empty else ".csv"
    body = (HEADER + GOOD).encode()
    (folder / f"part-0{suffix}").write_bytes(empty)
    (folder / f"part-1{suffix}").write_bytes(gzip.compress(body) if empty else body)
    (folder / f"part-1{suffix}.crc").write_bytes(b"crc")
    (folder / "_SUCCESS").write_bytes(b"")
    for path in (folder, folder / "*", folder / "part-*"):
        assert read(path).height == 100
    (folder / f"part-1{suffix}").write_bytes(empty)
    with pytest.raises(BitfoldError, match=r"empty|no rows"):
        read(folder)


def test_parts_without_suffixes_are_read_when_the_format_is_said(tmp_path):
    for name in ("part-00000", "part-00001", "_SUCCESS"):
        write(tmp_path, HEADER + GOOD if name[0] == "p" else "", name)
    assert read(tmp_path, format="csv").height == 200
    with pytest.raises(BitfoldError, match="--format"):
        read(tmp_path)


def test_a_named_pipe(tmp_path):
    for name, body in (("a", (HEADER + GOOD).encode()), ("b", gzip.compress(HEADER.encode()))):
        pipe = tmp_path / name
        os.mkfifo(pipe)
        body = body if name == "a" else body + gzip.compress(GOOD.encode())
        writer = threading.Thread(target=pipe.write_bytes, args=(body,))
        writer.start()
        assert read(pipe).height == 100
        writer.join()


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_standard_input(tmp_path, monkeypatch, name, kind):
    frame = pl.DataFrame({"user": ["a", "b"], "item": ["x", "y"], "click": ["0", "1"]})
    source = tmp_path / "source"
    if kind == "parquet":
        frame.write_parquet(source)
    else:
        frame.write_csv(source, separator="," if kind == "csv" else "\t")
    monkeypatch.setattr("bitfold.data.sources._SPOOLED", {})
    with source.open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert read(Path(name)).rows() == frame.rows()
        assert read(Path(name)).rows() == frame.rows()


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    import pyarrow as pa

    path = write(tmp_path, HEADER + GOOD)
    frame = tmp_path / "log.parquet"
    read(path).write_parquet(frame)

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pa, "OSFile", denied)
    for each in (path, frame):
        message = refused(each)
        assert "may not be read" in message
        assert "truncated" not in message


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_memory_that_is_not_enough_is_no_question_of_format(tmp_path, monkeypatch, kind):
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    def full(*_: object, **__: object) -> None:
        raise pa.ArrowMemoryError("malloc of size 33554432 failed")

    path = write(tmp_path, HEADER + GOOD)
    if kind == "parquet":
        frame = read(path)
        path = tmp_path / "log.parquet"
        frame.write_parquet(path)
    monkeypatch.setattr(pyarrow.csv, "read_csv", full)
    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", full)
    message = refused(path)
    assert "the memory is not enough" in message
    assert "--format" not in message


def test_a_file_name_that_is_no_utf8(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\x1b[31m.csv"))
    path.write_text(HEADER + GOOD)
    assert read(path).height == 100
    frame = path.with_suffix(".parquet")
    with frame.open("wb") as file:
        read(path).write_parquet(file)
    assert read(frame).height == 100
    config = DataConfig(label="click", fields=("user",))
    assert prepare(path, tmp_path / "out", config).rows["train"] > 50
    path.write_text(HEADER + "u\n")
    message = refused(path)
    assert r"\xff\x1b[31m.csv" in message
    assert "\x1b" not in message
    message.encode()


def test_commands_take_standard_input(tmp_path, monkeypatch):
    source = write(tmp_path, HEADER + GOOD * 3)
    words = ("--label", "click", "--fields", "user,item", "--width", 4, "--hidden", 8)
    words = (*words, "--budget", "4KiB", "--epochs", 1, "--batch-size", 64)
    run = tmp_path / "run"
    for call in (
        ("train", "-", *words, "--out", run),
        ("predict", run, "-", "--out", tmp_path / "scores.csv"),
    ):
        monkeypatch.setattr("bitfold.data.sources._SPOOLED", {})
        with source.open() as stream:
            monkeypatch.setattr(sys, "stdin", stream)
            done = bitfold(*call)
        assert done.code == 0, done.err
    assert pl.read_csv(tmp_path / "scores.csv").height == 300


@pytest.mark.parametrize("kind", ["gzip", "zstd", "zip", "Parquet"])
def test_a_file_whose_name_lies_is_told_by_what_it_is(tmp_path, kind):
    text = (HEADER + GOOD).encode()
    path = tmp_path / "log.csv"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a\xff.csv", text)
    elif kind == "Parquet":
        read(write(tmp_path, text)).write_parquet(path)
    else:
        path.write_bytes(gzip.compress(text) if kind == "gzip" else zstandard.compress(text))
    if kind != "zip":
        assert f"a {kind} file" in refused(path)
    else:
        assert refused(path)
