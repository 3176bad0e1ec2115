"""Bodies of Arrow and Parquet to tables, and scores back to Arrow, by pyarrow.

What a body unpacks to is bounded before it is unpacked, as far as its own figures can be trusted;
texts stay in dictionaries, and are counted as often as rows have them.
"""

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bitfold.service.arrow_frames import check_uncompressed
from bitfold.service.bodies import too_many
from bitfold.service.messages import Refused, refused

if TYPE_CHECKING:
    import pyarrow as pa

ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
COLUMNAR = {
    ARROW: ARROW,
    PARQUET: PARQUET,
    "application/x-parquet": PARQUET,
}
"""Media types of tables, and what they are."""


def table_of(
    body: bytes, kind: str, columns: Sequence[str], most: int, most_bytes: int
) -> "pa.Table":
    """The table of an Arrow stream, or of a Parquet file: the asked columns of it.

    Args:
        body: what was sent.
        kind: `ARROW` or `PARQUET`.
        columns: what the model reads; others are left out.
        most: rows that are accepted.
        most_bytes: bytes that the table may take, unpacked.

    Raises:
        Refused: it cannot be read (400), lacks every column (422) or is too large (413); pyarrow
            is not installed (415).
    """
    try:
        import pyarrow as pa
    except ImportError:
        raise refused(
            415, "this server reads JSON only", got=kind, expected="application/json",
            fix="install pyarrow beside the server: pip install 'bitfold[data]'",
        ) from None  # fmt: skip
    try:
        read = _parquet if kind == PARQUET else _arrow
        table = read(body, columns, most, most_bytes)
        table.validate(full=True)
    except Refused:
        raise
    # pyarrow raises its own, and whatever the parts of it raise: the body is the client's.
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise refused(
            400, f"the body cannot be read as {kind}", got=text, expected="a whole table of it"
        ) from None
    if table.num_rows > most:
        raise too_many(f"{table.num_rows:,} rows", most)
    if columns and not table.num_columns:
        raise refused(
            422, "the table has none of the model's columns", got="other columns",
            expected=", ".join(columns),
        )  # fmt: skip
    for name in columns:
        if table.schema.names.count(name) > 1:
            raise refused(422, f"the column {name!r} is twice in the table", expected="once")
    _check_unpacked(table, most_bytes)
    return table


def _arrow(body: bytes, columns: Sequence[str], most: int, most_bytes: int) -> "pa.Table":
    import pyarrow as pa

    check_uncompressed(body)
    reader: Any = pa.ipc.open_stream(pa.py_buffer(body))
    batches, rows = [], 0
    for batch in reader:
        batches.append(batch)
        rows += batch.num_rows
        if rows > most or len(batches) > most:
            raise too_many(f"more than {most:,} rows", most)
    table = pa.Table.from_batches(batches, schema=reader.schema)
    return table.select([place for place, name in enumerate(table.schema.names) if name in columns])


def _parquet(body: bytes, columns: Sequence[str], most: int, most_bytes: int) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(pa.py_buffer(body))
    held = file.metadata
    if held.num_rows > most:
        raise too_many(f"{held.num_rows:,} rows", most)
    sizes = (held.row_group(place).total_byte_size for place in range(held.num_row_groups))
    if sum(sizes) > most_bytes:
        raise _unpacked(most_bytes)
    names = [name for name in file.schema_arrow.names if name in columns]
    # Dictionaries stay packed: one long text in every row takes its length once.
    file = pq.ParquetFile(pa.py_buffer(body), read_dictionary=names)
    return file.read(columns=names, use_threads=False)


def _check_unpacked(table: "pa.Table", most_bytes: int) -> None:
    """Refuse a table whose texts, each as often as its rows have it, take too many bytes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    total = 0
    for column in table.columns:
        for chunk in column.chunks:
            total += chunk.nbytes
            if isinstance(chunk, pa.DictionaryArray) and len(chunk.dictionary):
                kind = chunk.dictionary.type
                if pa.types.is_large_string(kind) or pa.types.is_string(kind):
                    longest = pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0
                    total += longest * len(chunk)
    if total > most_bytes:
        raise _unpacked(most_bytes)


def _unpacked(most_bytes: int) -> Refused:
    return refused(
        413, "the table is too large once it is unpacked", expected=f"{most_bytes:,} bytes at most",
        fix="send it in several requests",
    )  # fmt: skip


def arrow_answer(scores: Any, digest: str) -> bytes:
    """Scores float32 `[B]` as an Arrow stream of one column `score`; its schema names the run."""
    import pyarrow as pa

    schema = pa.schema([pa.field("score", pa.float32())], metadata={"bitfold.run": digest})
    batch = pa.record_batch([pa.array(scores, pa.float32())], schema=schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def warm_tables() -> None:
    """Load what tables need, so that the first of them does not wait for it."""
    with contextlib.suppress(ImportError):
        import polars
        import pyarrow.compute
        import pyarrow.parquet

        del polars, pyarrow
