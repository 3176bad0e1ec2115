"""Read a log chunk by chunk: text as text, Parquet in its own types, nothing held in memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from bitfold.data.config import DataConfig
from bitfold.data.files import find_files, pick
from bitfold.data.logfile import LogFile
from bitfold.data.memory_log import MemoryLog
from bitfold.data.parquet import open_parquet, parquet_columns, read_parquet
from bitfold.data.rows import Rows
from bitfold.data.sequences import Sequences, estimate_pairs, read_sequences, sequence_layout
from bitfold.data.sources import unreadable
from bitfold.data.text import TextLayout, estimate_rows, open_text, text_layout
from bitfold.errors import BitfoldError
from bitfold.notes import note

CHUNK_ROWS = 65_536
"""Rows of a chunk of Parquet; text comes in blocks of about 4 MiB."""


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
        return list(open_parquet(file).schema_arrow.names)
    if file.kind == "sequences":
        return list(sequence_layout(file, config).names)
    layout = text_layout(file, config)
    return [name for name in layout.names if name] if layout is not None else []


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
    _say(plans)
    done = 0
    rows = 0
    for file, plan in zip(files, plans, strict=True):
        if plan is None:  # a part without a line
            chunks: Iterator[Rows] = iter(())
        elif isinstance(plan, TextLayout):
            chunks = _read_text(file, plan, done)
        elif isinstance(plan, Sequences):
            chunks = read_sequences(file, plan, done)
        else:
            chunks = read_parquet(file, plan, done, chunk_rows)
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
            total += int(open_parquet(file).metadata.num_rows)
        elif file.kind == "sequences":
            total += estimate_pairs(file, sequence_layout(file, config))
        else:
            total += estimate_rows(file)
    return total


def _look_at(
    file: LogFile, config: DataConfig, required: Sequence[str], optional: Sequence[str]
) -> TextLayout | Sequences | list[str] | None:
    if file.kind == "parquet":
        return parquet_columns(file, config, required, optional)
    if file.kind == "sequences":
        return sequence_layout(file, config, required)
    layout = text_layout(file, config, required)
    if layout is None:
        if file.alone:
            raise BitfoldError(
                f"the file {file.path} is empty", got="no line", expected="a log with rows"
            )
        return None
    names = [name for name in layout.names if name]
    pick(names, required, file.path)
    wanted = [*required, *(name for name in optional if name in names)]
    pick(names, wanted, file.path)
    return layout.wanting(wanted)


def _say(plans: Sequence[TextLayout | Sequences | list[str] | None]) -> None:
    """Tell what was made of the headers, once for all files."""
    said = [plan.said for plan in plans if isinstance(plan, TextLayout) and plan.said]
    if said:
        note(said[0] + (f" (and in {len(said) - 1} more files)" if len(said) > 1 else ""))


def _read_text(file: LogFile, layout: TextLayout, before: int) -> Iterator[Rows]:
    import pyarrow as pa

    first = 0
    try:
        with open_text(file, layout) as (frames, position):
            for frame in frames:
                rows = Rows(frame, file.path, first, True, before + min(position(), file.size))
                yield rows
                first += rows.height
    except (pa.ArrowException, MemoryError) as error:
        raise unreadable(file, error) from error
