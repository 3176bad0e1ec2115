"""Raw rows through a saved schema, in the input's order: what predict reads."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitfold.data.batch import Batch
from bitfold.data.columns import Encoder
from bitfold.data.config import DataConfig
from bitfold.data.finishing import table_of
from bitfold.data.forks import need_polars, polars_is_lost
from bitfold.data.frames import in_memory
from bitfold.data.memory_log import MemoryLog
from bitfold.data.newness import Watch
from bitfold.data.reading import Progress, read_chunks, total_bytes
from bitfold.data.records import values_of
from bitfold.data.schema import Schema
from bitfold.data.single import FEW, RowEncoder
from bitfold.data.table import Table
from bitfold.errors import BitfoldError

if TYPE_CHECKING:
    import polars as pl

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
    reading: DataConfig | None = None,
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
        reading: how the rows are read (`bitfold.data.asked`); as the schema's log was, if not said.

    Raises:
        BitfoldError: for whatever cannot be read.
    """
    if batch_size < 1:
        raise BitfoldError("the batch size is too small", got=batch_size, expected="1 or more")
    if reading is not None:
        schema, encoder = replace(schema, config=reading), None
    memory = in_memory(paths)
    if memory is None:
        source: Any = [paths] if isinstance(paths, str | Path) else list(paths)
    else:
        source = memory
        if fields_only and memory.is_few(FEW):
            encoder = encoder or RowEncoder(schema.rules())
            records = memory.records(encoder.columns, batch_size)
            if records is not None:
                return _by_rows(records, encoder)
    if polars_is_lost():
        if not fields_only:
            need_polars("reading labels")
        encoder = encoder or RowEncoder(schema.rules())
        return _without_polars(source, encoder, schema.config, min(batch_size, PLAIN_ROWS))
    tables = read_tables(
        source, schema, schema.config, progress, fields_only=fields_only, rows=batch_size
    )
    return _batches((table for table, _ in tables), batch_size)


def _by_rows(records: Iterator[list[Mapping[str, Any]]], encoder: RowEncoder) -> Iterator[Batch]:
    done = 0
    for rows in records:
        yield encoder.batch(rows, done)
        done += len(rows)


def _without_polars(
    source: "list[str | Path] | MemoryLog", encoder: RowEncoder, config: DataConfig, size: int
) -> Iterator[Batch]:
    if isinstance(source, MemoryLog):
        records = source.records(encoder.columns, size)
        if records is None:
            need_polars("reading these columns")
        else:
            yield from _by_rows(records, encoder)
        return
    for rows in read_chunks(source, config, encoder.columns):
        table: Any = rows.frame  # Arrow's, in a forked process
        for start in range(0, table.num_rows, size):
            part = table.slice(start, size)
            lists = [values_of(part.column(name), name) for name in encoder.columns]
            dictionaries = [
                dict(zip(encoder.columns, values, strict=True))
                for values in zip(*lists, strict=True)
            ]
            yield encoder.batch(dictionaries, rows.first + start)


def read_tables(
    source: Any,
    schema: Schema,
    reading: DataConfig | None = None,
    progress: Progress | None = None,
    *,
    fields_only: bool = False,
    keep: Sequence[str] = (),
    rows: int = 0,
) -> "Iterator[tuple[Table, pl.DataFrame | None]]":
    """Raw rows chunk by chunk, ready to be cut into batches, with columns to carry along.

    Args:
        source: a list of paths, or rows in memory.
        schema: how rows become ids and numbers.
        reading: how files are read, if not as the schema's log was.
        progress: is told how far the reading is.
        fields_only: as for `read_batches`.
        keep: columns to give back as they are.
        rows: the least rows of a chunk of what is in memory, but for the last.

    Raises:
        BitfoldError: for whatever cannot be read.
    """
    config = reading or schema.config
    watch = Watch(schema)
    encoder = Encoder(
        config, scoring=True, fields_only=fields_only, types=schema.types, watch=watch
    )
    required = list(dict.fromkeys([*encoder.required, *keep]))
    optional = [name for name in encoder.optional if name not in required]
    # Columns that are carried along keep their texts, also those that mean a missing value.
    whole = config if not keep else replace(config, missing=())
    total = total_bytes(source, whole)
    done = 0
    for chunk in read_chunks(source, whole, required, optional, max(MEMORY_ROWS, rows)):
        kept = chunk.frame.select(keep) if keep else None
        if keep and chunk.text and config.missing:
            chunk = replace(chunk, frame=_without_missing(chunk.frame, config.missing))
        table = table_of(encoder.encode(chunk), schema)
        yield table, kept
        done += table.rows
        if progress is not None:
            progress("reading", done, chunk.done, total)
    watch.tell()


def _without_missing(frame: "pl.DataFrame", missing: Sequence[str]) -> "pl.DataFrame":
    """The cells of a text file with those that mean missing made null."""
    import polars as pl

    texts = pl.col(pl.String)
    return frame.with_columns(pl.when(~texts.is_in(list(missing))).then(texts))


def _batches(tables: Iterator[Table], batch_size: int) -> Iterator[Batch]:
    held: list[Table] = []
    waiting = 0
    for table in tables:
        held.append(table)
        waiting += table.rows
        if waiting >= batch_size:
            joined = Table.join(held)
            stop = waiting - waiting % batch_size
            for start in range(0, stop, batch_size):
                yield joined.cut(start, start + batch_size).batch()
            held = [joined.cut(stop, waiting)] if stop < waiting else []
            waiting -= stop
    if waiting:
        yield Table.join(held).batch()
