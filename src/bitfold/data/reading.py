"""Read a log chunk by chunk: text as text, Parquet in its own types, nothing held in memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from bitfold.data.config import DataConfig
from bitfold.data.files import LogFile, find_files, pick
from bitfold.data.frames import MemoryLog
from bitfold.data.rows import Rows, frame_of
from bitfold.data.sequences import Sequences, estimate_pairs, read_sequences, sequence_layout
from bitfold.data.text import TextLayout, estimate_rows, open_text, text_layout, why_text_failed
from bitfold.errors import BitfoldError

CHUNK_ROWS = 65_536
"""Rows of a chunk of Parquet; text comes in blocks of about 4 MiB."""

_ROW_GROUP_BYTES = 128 << 20


class Progress(Protocol):
    """What is told of the work's progress.

    `stage` is `reading`, `fitting` or `writing`; `rows` counts rows done in the stage; `done` of
    `total` is bytes of the input while reading, and shards afterwards.
    """

    def __call__(self, stage: str, rows: int, done: int, total: int) -> None:
        """Take note."""


def column_names(file: LogFile, config: DataConfig) -> list[str]:
    """The names of all columns of a file."""
    if file.kind == "parquet":
        return list(_open_parquet(file.path).schema_arrow.names)
    if file.kind == "sequences":
        return list(sequence_layout(file, config).names)
    return [name for name in text_layout(file, config).names if name]


def read_chunks(
    paths: Sequence[str | Path] | MemoryLog,
    config: DataConfig,
    required: Sequence[str],
    optional: Sequence[str] = (),
    chunk_rows: int = CHUNK_ROWS,
) -> Iterator[Rows]:
    """The rows of a log in order: files in the given order, each from its top.

    All files are looked at before the first row is read, so that a column missing in the last
    file is no late surprise.

    Args:
        paths: files in order, or rows in memory.
        required: columns that every file must have.
        optional: columns that are read where a file has them.

    Raises:
        BitfoldError: for whatever cannot be read, with the file and, where known, the line.
    """
    if isinstance(paths, MemoryLog):
        yield from paths.read(config, required, optional, chunk_rows)
        return
    files = find_files(paths, config)
    plans = [_look_at(file, config, required, optional) for file in files]
    done = 0
    rows = 0
    for file, plan in zip(files, plans, strict=True):
        if isinstance(plan, TextLayout):
            chunks = _read_text(file, plan, done)
        elif isinstance(plan, Sequences):
            chunks = read_sequences(file, plan, done)
        else:
            chunks = _read_parquet(file, plan, done, chunk_rows)
        for chunk in chunks:
            rows += chunk.height
            yield chunk
        done += file.size
    if rows == 0:
        raise BitfoldError(
            "the log has no rows",
            got=f"{', '.join(str(file.path) for file in files[:3])} without a row",
            expected="at least one row",
        )


def total_bytes(paths: Sequence[str | Path] | MemoryLog, config: DataConfig) -> int:
    """Bytes of all files on the disk; rows of what is in memory."""
    if isinstance(paths, MemoryLog):
        return paths.rows
    return sum(file.size for file in find_files(paths, config))


def count_rows(paths: Sequence[str | Path] | MemoryLog, config: DataConfig) -> int:
    """About how many rows a log has: exact for Parquet and in memory, estimated for text."""
    if isinstance(paths, MemoryLog):
        return paths.rows
    total = 0
    for file in find_files(paths, config):
        if file.kind == "parquet":
            total += int(_open_parquet(file.path).metadata.num_rows)
        elif file.kind == "sequences":
            total += estimate_pairs(file, sequence_layout(file, config))
        else:
            total += estimate_rows(file)
    return total


def _look_at(
    file: LogFile, config: DataConfig, required: Sequence[str], optional: Sequence[str]
) -> "TextLayout | Sequences | list[str]":
    if file.kind == "parquet":
        return _parquet_columns(file.path, config, required, optional)
    if file.kind == "sequences":
        return sequence_layout(file, config, required)
    layout = text_layout(file, config)
    names = [name for name in layout.names if name]
    pick(names, required, file.path)
    return layout.wanting([*required, *(name for name in optional if name in names)])


def _read_text(file: LogFile, layout: TextLayout, before: int) -> Iterator[Rows]:
    import pyarrow as pa

    first = 0
    try:
        with open_text(file, layout) as (reader, position):
            for batch in reader:
                if batch.num_rows:
                    frame = frame_of(batch)
                    yield Rows(frame, file.path, first, True, before + min(position(), file.size))
                    first += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise why_text_failed(error, file, layout) from error


def _open_parquet(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, memory_map=False, pre_buffer=False)
        meta = file.metadata
        largest = max(
            (meta.row_group(i).total_byte_size for i in range(meta.num_row_groups)), default=0
        )
        if largest <= _ROW_GROUP_BYTES:
            return file
        # Large row groups are read page by page: slower, but memory stays bounded.
        file.close()
        return pq.ParquetFile(path, memory_map=False, pre_buffer=False, buffer_size=1 << 20)
    except (pa.ArrowException, OSError) as error:
        raise _broken_parquet(path, error) from error


def _broken_parquet(path: Path, error: Exception) -> BitfoldError:
    return BitfoldError(
        f"{path} cannot be read as Parquet",
        got=str(error).splitlines()[0],
        expected="a whole Parquet file",
        fix="write it again, or say --format if it is something else",
    )


def _parquet_columns(
    path: Path, config: DataConfig, required: Sequence[str], optional: Sequence[str]
) -> list[str]:
    import pyarrow as pa

    schema = _open_parquet(path).schema_arrow
    pick(schema.names, required, path)
    wanted = [*required, *(name for name in optional if name in schema.names)]
    for name in wanted:
        kind = schema.field(name).type
        flat = not pa.types.is_nested(kind)
        listed = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        if flat or (listed and name in config.multi and not pa.types.is_nested(kind.value_type)):
            continue
        raise BitfoldError(
            f"the column {name!r} of {path} is nested",
            got=str(kind),
            expected="one value a row" + (" or a flat list" if name in config.multi else ""),
            fix=f"say --multi {name}='|' to read its list as a multi-valued field"
            if listed and name not in config.multi
            else "flatten it into columns of their own",
        )
    return wanted


def _read_parquet(
    file: LogFile, columns: list[str], before: int, chunk_rows: int
) -> Iterator[Rows]:
    import pyarrow as pa

    handle = _open_parquet(file.path)
    total = max(handle.metadata.num_rows, 1)
    first = 0
    try:
        for batch in handle.iter_batches(batch_size=chunk_rows, columns=columns):
            frame = frame_of(batch).select(columns)
            done = before + file.size * (first + batch.num_rows) // total
            yield Rows(frame, file.path, first, False, done)
            first += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise _broken_parquet(file.path, error) from error
    finally:
        handle.close()
