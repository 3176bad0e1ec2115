"""Raw rows through a saved schema, in the input's order: what predict reads."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from bitfold.data.batch import Batch
from bitfold.data.columns import Encoder
from bitfold.data.finishing import table_of
from bitfold.data.frames import MemoryLog
from bitfold.data.reading import Progress, read_chunks, total_bytes
from bitfold.data.schema import Schema
from bitfold.data.table import Table
from bitfold.errors import BitfoldError


def read_batches(
    paths: str | Path | Sequence[str | Path] | MemoryLog,
    schema: Schema,
    batch_size: int = 4096,
    progress: Progress | None = None,
    *,
    fields_only: bool = False,
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

    Raises:
        BitfoldError: for whatever cannot be read.
    """
    if isinstance(paths, str | Path):
        paths = [paths]
    if batch_size < 1:
        raise BitfoldError("the batch size is too small", got=batch_size, expected="1 or more")
    return _batches(paths, schema, batch_size, progress, fields_only)


def _batches(
    paths: Sequence[str | Path] | MemoryLog,
    schema: Schema,
    batch_size: int,
    progress: Progress | None,
    fields_only: bool,
) -> Iterator[Batch]:
    config = schema.config
    encoder = Encoder(config, scoring=True, fields_only=fields_only)
    total = total_bytes(paths, config)
    held: list[Table] = []
    waiting = done = 0
    for rows in read_chunks(paths, config, encoder.required, encoder.optional):
        table = table_of(encoder.encode(rows), schema)
        held.append(table)
        waiting += table.rows
        done += table.rows
        if waiting >= batch_size:
            joined = Table.join(held)
            cut = waiting - waiting % batch_size
            for start in range(0, cut, batch_size):
                yield joined.cut(start, start + batch_size).batch()
            held = [joined.cut(cut, waiting)] if cut < waiting else []
            waiting -= cut
        if progress is not None:
            progress("reading", done, rows.done, total)
    if waiting:
        yield Table.join(held).batch()
