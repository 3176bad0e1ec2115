"""Write the chunks of a synthetic log: Parquet or CSV, whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from bitfold.data import _synth_kernels as kernels
from bitfold.errors import BitfoldError
from bitfold.files import TEMPORARY, flush, sync_folder, write_json

if TYPE_CHECKING:
    from bitfold.data.synthetic import Chunk

SHARD_ROWS = 1 << 22
_SHARD = "part-{}.parquet"
_TEXT = {".csv": None, ".csv.gz": "gzip", ".csv.zst": "zstd"}


def table(chunk: "Chunk") -> pa.Table:
    """The chunk's columns under their names; bags as text joined by '|'."""
    columns: dict[str, Any] = {"label": chunk.label, "time": chunk.time}
    columns |= {f"field_{f}": ids for f, ids in enumerate(chunk.ids)}
    for g, (ids, lengths) in enumerate(zip(chunk.bag_ids, chunk.bag_lengths, strict=True)):
        offsets = np.empty(chunk.rows + 1, np.int32)
        kernels.bag_text_sizes(ids, lengths, offsets)
        text = np.empty(offsets[-1], np.uint8)
        kernels.bag_text(ids, lengths, offsets, text)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text)]
        columns[f"bag_{g}"] = pa.Array.from_buffers(pa.string(), chunk.rows, buffers)
    columns |= {f"numeric_{n}": values for n, values in enumerate(chunk.numeric)}
    return pa.table(columns)


class _ParquetFile:
    """One Parquet file, a row group per chunk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pa.parquet.ParquetWriter | None = None

    def write(self, rows: pa.Table) -> None:
        if self._writer is None:
            # Ids fill few of their 64 bits: packed they cost 26 bytes a row instead of 44.
            packed = [f.name for f in rows.schema if f.type == pa.int64()]
            self._writer = pa.parquet.ParquetWriter(
                self._path,
                rows.schema,
                compression="lz4",
                use_dictionary=False,
                column_encoding=dict.fromkeys(packed, "DELTA_BINARY_PACKED"),
            )
        self._writer.write_table(rows, row_group_size=rows.num_rows)

    def close(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()
            flush(self._path)


class _ParquetShards:
    """A directory of Parquet files of at most about `SHARD_ROWS` rows."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self._path = path
        self._shard: _ParquetFile | None = None
        self._count = 0
        self._rows = 0

    def write(self, rows: pa.Table) -> None:
        if self._shard is None or self._rows + rows.num_rows > SHARD_ROWS:
            self.close()
            self._shard = _ParquetFile(self._path / _SHARD.format(f"{self._count:05d}"))
            self._count += 1
            self._rows = 0
        self._shard.write(rows)
        self._rows += rows.num_rows

    def close(self) -> None:
        if self._shard is not None:
            self._shard.close()


class _CsvFile:
    """Comma-separated text with a header line, plain or compressed."""

    def __init__(self, path: Path, compression: str | None) -> None:
        self._path = path
        self._sink = pa.OSFile(str(path), "wb")
        self._stream = (
            pa.CompressedOutputStream(self._sink, compression) if compression else self._sink
        )
        self._header = True

    def write(self, rows: pa.Table) -> None:
        if self._header:
            self._stream.write((",".join(rows.column_names) + "\n").encode())
            self._header = False
        options = pa.csv.WriteOptions(include_header=False, quoting_style="none")
        pa.csv.write_csv(rows, self._stream, options)

    def close(self) -> None:
        if not self._sink.closed:
            self._stream.close()
            self._sink.close()
            flush(self._path)


class Log:
    """A log that is being written under a temporary name."""

    def __init__(self, out: Path, temporary: Path) -> None:
        self._out = out
        self._temporary = temporary
        suffix = _suffix(out)
        if suffix == ".parquet":
            self._file: _ParquetFile | _ParquetShards | _CsvFile = _ParquetFile(temporary)
        elif suffix == "":
            self._file = _ParquetShards(temporary)
        else:
            self._file = _CsvFile(temporary, _TEXT[suffix])

    def write(self, chunk: "Chunk") -> None:
        """Append the chunk's rows."""
        self._file.write(table(chunk))

    def finish(self, report: dict[str, Any]) -> None:
        """Put the report and then the log in their places."""
        self._file.close()
        write_json(_report_path(self._out), report)
        _remove(self._out)
        self._temporary.rename(self._out)
        sync_folder(self._out.parent)

    def abandon(self) -> None:
        """Remove what stands under the temporary name."""
        with contextlib.suppress(OSError):
            self._file.close()
        _remove(self._temporary)


@contextlib.contextmanager
def open_log(out: Path, *, force: bool) -> Iterator[Log]:
    """A `Log` that stands at `out` once it is finished; otherwise nothing of it stays."""
    _suffix(out)
    _check_free(out, force=force)
    log: Log | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        log = Log(out, out.with_name(f".{out.name}.{os.getpid()}{TEMPORARY}"))
        yield log
    except OSError as error:
        raise BitfoldError(
            "the synthetic log could not be written",
            got=error.strerror or str(error),
            expected=f"a place for {out} with room for it",
            fix="free some space or give another place; what was written has been removed",
        ) from error
    finally:
        if log is not None:
            log.abandon()


def _check_free(out: Path, *, force: bool) -> None:
    there = [path for path in (out, _report_path(out)) if path.exists()]
    if there and not force:
        raise BitfoldError(
            "the synthetic log would overwrite something",
            got=f"{there[0]} exists",
            expected="a name that is free",
            fix="give another name, or --force to replace it",
        )
    if out.is_dir():
        foreign = sorted(p.name for p in out.iterdir() if not fnmatch(p.name, _SHARD.format("*")))
        if foreign or _suffix(out):
            raise BitfoldError(
                "this folder will not be replaced: it is no synthetic log",
                got=f"{out} with {', '.join(foreign[:3]) or 'the name of a file'}",
                expected=f"nothing but {_SHARD.format('*')}",
                fix="give another name, or remove the folder by hand",
            )


def _report_path(out: Path) -> Path:
    return out.with_name(out.name + ".json")


def _suffix(out: Path) -> str:
    """`.parquet`, `.csv`, `.csv.gz`, `.csv.zst`, or nothing for a directory."""
    known = (".parquet", *_TEXT)
    for suffix in known:
        if out.name.lower().endswith(suffix):
            return suffix
    if out.suffix or not out.name:
        raise BitfoldError(
            "the synthetic log's format is not known",
            got=str(out),
            expected=f"a name ending in {', '.join(known)}, or without a suffix for a directory",
            fix="rename it",
        )
    return ""


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
