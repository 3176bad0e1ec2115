"""Write the chunks of a synthetic log: Parquet or CSV, whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from bitfold.data.synth import kernels
from bitfold.errors import BitfoldError
from bitfold.files import flush, read_json, write_json
from bitfold.outputs.kinds import Kind
from bitfold.outputs.making import is_free
from bitfold.outputs.place import Place, hold
from bitfold.outputs.refusals import check_movable

if TYPE_CHECKING:
    from bitfold.data.synth.log import Chunk

SHARD_ROWS = 1 << 22
_SHARD = "part-{}.parquet"
SHARDS = Kind("synthetic log", (_SHARD.format("*"),), Path.is_dir)
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
    """A log that is being written in the hidden folder of its place."""

    def __init__(self, place: Place, suffix: str, *, force: bool) -> None:
        self._place = place
        self._force = force
        if suffix == ".parquet":
            self._file: _ParquetFile | _ParquetShards | _CsvFile = _ParquetFile(place.making)
        elif suffix == "":
            self._file = _ParquetShards(place.making)
        else:
            self._file = _CsvFile(place.making, _TEXT[suffix])

    def write(self, chunk: "Chunk") -> None:
        """Append the chunk's rows."""
        self._file.write(table(chunk))

    def finish(self, report: dict[str, Any]) -> None:
        """Put the log and then the report in their places."""
        self._file.close()
        write_json(self._place.beside, report)
        beside = report_path(self._place.out).name
        self._place.put(SHARDS, beside=beside, force=self._force)

    def abandon(self) -> None:
        """Close what is still open."""
        with contextlib.suppress(OSError):
            self._file.close()


@contextlib.contextmanager
def open_log(out: Path, *, force: bool) -> Iterator[Log]:
    """A `Log` that stands at `out` once it is finished; otherwise nothing of it stays."""
    suffix = _suffix(out)
    try:
        with hold(out) as place:
            _check_free(place.out, suffix, force=force)
            if not suffix:
                check_movable(place.out)
            log = Log(place, suffix, force=force)
            try:
                yield log
            finally:
                log.abandon()
    except OSError as error:
        raise BitfoldError(
            "the synthetic log could not be written",
            got=error.strerror or str(error),
            expected=f"a place for {out} with room for it",
            fix="free some space or give another place; what was written has been removed",
        ) from error


def _check_free(out: Path, suffix: str, *, force: bool) -> None:
    report = report_path(out)
    if os.path.lexists(report) and not is_report(report):
        raise BitfoldError(
            f"{report} would be overwritten, and is no report of a synthetic log",
            got=f"a file that bitfold did not make where the report of {out.name} goes",
            expected="a name that is free",
            fix="give another name, or move that file",
        )
    if not force and not is_free(out):
        raise BitfoldError(
            "the synthetic log would overwrite something",
            got=f"{out} exists",
            expected="a name that is free",
            fix="give another name, or --force to replace it",
        )
    if out.is_dir():
        foreign = SHARDS.foreign(out)
        if foreign or suffix:
            raise BitfoldError(
                "this folder will not be replaced: it is no synthetic log",
                got=f"{out} with {', '.join(foreign[:3]) or 'the name of a file'}",
                expected=f"nothing but {_SHARD.format('*')}",
                fix="give another name, or remove the folder by hand",
            )


def is_report(path: Path) -> bool:
    """Whether a file is the report of a synthetic log."""
    try:
        report = read_json(path)
    except (BitfoldError, OSError):
        return False
    return {"bayes_auc", "config", "rows"} <= report.keys()


def report_path(out: Path) -> Path:
    """Where the report of a log goes: beside it."""
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
