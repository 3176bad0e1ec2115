"""Bodies of requests to rows: JSON by msgspec, Arrow and Parquet by pyarrow.

JSON is read strictly: a value is text, a number, true, false, null, or a list of those. msgspec
refuses NaN, infinity, deeper nesting, half characters and text after the end. It takes the last
of two equal keys, as most readers do; here such a body is refused, since two readers would
disagree on what was scored.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from bitfold.serving.messages import Refused, refused

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

Value: TypeAlias = bool | int | float | str | None
Row: TypeAlias = Mapping[str, Any]


class _Rows(msgspec.Struct, forbid_unknown_fields=True):
    rows: list[dict[str, Value | list[Value]]]


_wrapped = msgspec.json.Decoder(_Rows).decode
_listed = msgspec.json.Decoder(list[dict[str, Value | list[Value]]]).decode
_alone = msgspec.json.Decoder(dict[str, Value | list[Value]]).decode
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_WRAPPED = re.compile(rb'\s*\{\s*"rows"\s*:\s*\[\s*[\[{\]]')
SHAPE = 'JSON such as {"rows": [{"user": 7, "item": "a"}]}'


def json_rows(body: bytes, most: int) -> Sequence[Row]:
    """The rows of a JSON body: `{"rows": [...]}`, a list of rows, or one row.

    Args:
        body: what was sent.
        most: rows that are accepted.

    Raises:
        Refused: it is no JSON (400), other JSON (422), or too many rows (413).

    Example:
        >>> json_rows(b'{"user": 7}', 10)
        [{'user': 7}]
    """
    # Each row has a brace: what is far too long is not even read.
    if body.count(b"{") > most + 1 and _TEXT.sub(b"", body).count(b"{") > most + 1:
        raise too_many(f"more than {most:,} rows", most)
    rows, keys = _decoded(body)
    if len(rows) > most:
        raise too_many(f"{len(rows):,} rows", most)
    keys += sum(map(len, rows))
    # A colon a key, and no key twice: as many keys as colons outside of text.
    if body.count(b":") != keys and _TEXT.sub(b"", body).count(b":") != keys:
        raise refused(
            400,
            "a key is twice in one object",
            got="JSON with a repeated key",
            expected="each key once",
            fix="send one value a key; several values of a field are a list",
        )
    return rows


def _decoded(body: bytes) -> tuple[Sequence[Row], int]:
    """The rows, and the keys around them."""
    try:
        if _WRAPPED.match(body):
            return _wrapped(body).rows, 1
        if body.lstrip()[:1] == b"[":
            return _listed(body), 0
        return [_alone(body)], 0
    except msgspec.ValidationError as error:
        raise refused(
            422, "the rows are not of the right form", got=str(error), expected=SHAPE,
            fix="a value is text, a number, true, false, null, or a list of those",
        ) from None  # fmt: skip
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        got = "nothing" if not body else _why(error)
        raise refused(400, "the body is no JSON", got=got, expected=SHAPE) from None


def _why(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"bytes that are no UTF-8: {error.reason}"
    return "nested too deep" if isinstance(error, RecursionError) else str(error)


def too_many(got: str, most: int) -> Refused:
    """The refusal of a request with too many rows."""
    return refused(
        413, "too many rows in one request", got=got, expected=f"{most:,} at most",
        fix="send them in several requests",
    )  # fmt: skip


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

    from bitfold.serving.arrow_frames import check_uncompressed

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
