"""Raw rows through a saved schema, in the input's order: what predict reads."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bitfold.data.batch import Batch
from bitfold.data.columns import Encoder
from bitfold.data.finishing import table_of
from bitfold.data.forks import need_polars, polars_is_lost
from bitfold.data.frames import MemoryLog, in_memory
from bitfold.data.reading import Progress, read_chunks, total_bytes
from bitfold.data.records import values_of
from bitfold.data.schema import Schema
from bitfold.data.single import FEW, RowEncoder
from bitfold.data.table import Table
from bitfold.errors import BitfoldError

PLAIN_ROWS = 4096  # rows at a time that go value by value in a forked process
MEMORY_ROWS = 32_768  # rows at a time of frames


def read_batches(
    paths: Any,
    schema: Schema,
    batch_size: int = 4096,
    progress: Progress | None = None,
    *,
    fields_only: bool = False,
    encoder: RowEncoder | None = None,
) -> Iterator[Batch]:
    """Batches of raw rows in the input's order.

    Values that the training part never held work: hashed ids as they are, vocabularies by the
    id of unseen values. Label, weight and group are read where the input has them.

    Args:
        paths: files, patterns or folders of raw rows, which need not be packed or written as the
            training log was; or rows in memory.
        schema: how rows become ids and numbers.
        batch_size: B; the last batch may be smaller.
        progress: is told how far the reading is.
        fields_only: read neither labels nor weights nor groups, so that whatever they hold does
            not matter.
        encoder: one of this schema that was made before, for a few rows.

    Raises:
        BitfoldError: for whatever cannot be read.
    """
    if batch_size < 1:
        raise BitfoldError("the batch size is too small", got=batch_size, expected="1 or more")
    memory = in_memory(paths)
    if memory is None:
        source: Any = [paths] if isinstance(paths, str | Path) else list(paths)
    else:
        source = memory
        if fields_only and memory.is_few(FEW):
            encoder = encoder or RowEncoder(schema)
            records = memory.records(encoder.columns, batch_size)
            if records is not None:
                return _by_rows(records, encoder)
    if polars_is_lost():
        if not fields_only:
            need_polars("reading labels")
        encoder = encoder or RowEncoder(schema)
        return _without_polars(source, encoder, schema, min(batch_size, PLAIN_ROWS))
    return _batches(source, schema, batch_size, progress, fields_only)


def _by_rows(records: Iterator[list[Mapping[str, Any]]], encoder: RowEncoder) -> Iterator[Batch]:
    done = 0
    for rows in records:
        yield encoder.table(rows, done).batch()
        done += len(rows)


def _without_polars(
    source: "list[str | Path] | MemoryLog", encoder: RowEncoder, schema: Schema, size: int
) -> Iterator[Batch]:
    if isinstance(source, MemoryLog):
        records = source.records(encoder.columns, size)
        if records is None:
            need_polars("reading these columns")
        else:
            yield from _by_rows(records, encoder)
        return
    for rows in read_chunks(source, schema.config, encoder.columns):
        table: Any = rows.frame  # Arrow's, in a forked process
        for start in range(0, table.num_rows, size):
            part = table.slice(start, size)
            lists = [values_of(part.column(name), name) for name in encoder.columns]
            dictionaries = [
                dict(zip(encoder.columns, values, strict=True))
                for values in zip(*lists, strict=True)
            ]
            yield encoder.table(dictionaries, rows.first + start).batch()


def _batches(
    paths: Sequence[str | Path] | MemoryLog,
    schema: Schema,
    batch_size: int,
    progress: Progress | None,
    fields_only: bool,
) -> Iterator[Batch]:
    config = schema.config
    encoder = Encoder(config, scoring=True, fields_only=fields_only, types=schema.types)
    total = total_bytes(paths, config)
    held: list[Table] = []
    waiting = done = 0
    size = max(MEMORY_ROWS, batch_size)
    for rows in read_chunks(paths, config, encoder.required, encoder.optional, size):
        table = table_of(encoder.encode(rows), schema)
        held.append(table)
        waiting += table.rows
        done += table.rows
        if waiting >= batch_size:
            joined = Table.join(held)
            stop = waiting - waiting % batch_size
            for start in range(0, stop, batch_size):
                yield joined.cut(start, start + batch_size).batch()
            held = [joined.cut(stop, waiting)] if stop < waiting else []
            waiting -= stop
        if progress is not None:
            progress("reading", done, rows.done, total)
    if waiting:
        yield Table.join(held).batch()
