"""Parquet files in batches of rows, each column in a type that the rest can read."""

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bitfold.data.config import DataConfig
from bitfold.data.files import pick
from bitfold.data.logfile import LogFile
from bitfold.data.rows import Rows, frame_of
from bitfold.data.sources import forbidden, out_of_memory
from bitfold.errors import BitfoldError

if TYPE_CHECKING:
    import polars as pl

_ROW_GROUP_BYTES = 128 << 20


def open_parquet(file: LogFile) -> Any:
    """The reader of a file.

    Raises:
        BitfoldError: for a file that is no whole Parquet, or may not be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        reader = pq.ParquetFile(_source(file), pre_buffer=False)
        meta = reader.metadata
        largest = max(
            (meta.row_group(i).total_byte_size for i in range(meta.num_row_groups)), default=0
        )
        if largest <= _ROW_GROUP_BYTES:
            return reader
        # Large row groups are read page by page: slower, but memory stays bounded.
        reader.close(force=True)
        return pq.ParquetFile(_source(file), pre_buffer=False, buffer_size=1 << 20)
    except (pa.ArrowException, OSError, MemoryError) as error:
        raise _broken(file, error) from error


def _source(file: LogFile) -> Any:
    import pyarrow as pa

    return pa.OSFile(os.fsencode(file.real), "rb")


def _broken(file: LogFile, error: Exception) -> BitfoldError:
    import pyarrow as pa

    if isinstance(error, PermissionError):
        return forbidden(file.path)
    if isinstance(error, pa.ArrowMemoryError | MemoryError):
        return out_of_memory(file.path, error)
    return BitfoldError(
        f"{file.path} cannot be read as Parquet",
        got=str(error).splitlines()[0] if str(error) else type(error).__name__,
        expected="a whole Parquet file",
        fix="write it again, or say --format if it is something else",
    )


def parquet_columns(
    file: LogFile, config: DataConfig, required: Sequence[str], optional: Sequence[str]
) -> list[str]:
    """The columns to read.

    Raises:
        BitfoldError: for one that is missing, or holds more than one value a row.
    """
    import pyarrow as pa

    path = file.path
    reader = open_parquet(file)
    schema = reader.schema_arrow
    reader.close(force=True)
    pick(schema.names, required, path)
    wanted = [*required, *(name for name in optional if name in schema.names)]
    pick(schema.names, wanted, path)
    for name in wanted:
        kind = _plain(schema.field(name).type)
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


def read_parquet(file: LogFile, columns: list[str], before: int, chunk_rows: int) -> Iterator[Rows]:
    """The rows in order, in chunks."""
    import pyarrow as pa

    handle = open_parquet(file)
    total = max(handle.metadata.num_rows, 1)
    first = 0
    try:
        for batch in handle.iter_batches(batch_size=chunk_rows, columns=columns):
            done = before + file.size * (first + batch.num_rows) // total
            yield Rows(_frame(file, batch, columns), file.path, first, False, done)
            first += batch.num_rows
    except (pa.ArrowException, OSError, MemoryError) as error:
        raise _broken(file, error) from error
    finally:
        handle.close(force=True)


def _frame(file: LogFile, batch: Any, columns: list[str]) -> "pl.DataFrame":
    import polars as pl
    import pyarrow as pa

    arrays = [_readable(file, name, batch.column(name)) for name in columns]
    try:
        return frame_of(pa.table(arrays, names=columns))
    except (pl.exceptions.PolarsError, TypeError, NotImplementedError) as error:
        kinds = ", ".join(f"{name} {array.type}" for name, array in zip(columns, arrays))  # noqa: B905
        raise BitfoldError(
            f"{file.path} has a column of a type that cannot be read",
            got=f"{str(error).splitlines()[0]}: {kinds}",
            expected="text, numbers, truth values, dates, moments, or categories of them",
            fix="cast the column to text",
        ) from error


def _plain(kind: Any) -> Any:
    """The type that a column is read as: categories and extensions as what they hold."""
    import pyarrow as pa

    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
            kind = kind.value_type
        else:
            return kind


def _readable(file: LogFile, name: str, array: Any) -> Any:
    """A column in a type that Polars has: no categories, bytes as text, moments in UTC."""
    import pyarrow as pa
    import pyarrow.compute as pc

    while True:
        kind = array.type
        if isinstance(kind, pa.BaseExtensionType):
            if kind.extension_name == "arrow.uuid":
                return pa.array([None if v is None else str(v) for v in array.to_pylist()])
            array = array.storage
        elif pa.types.is_dictionary(kind):
            array = array.dictionary_decode()
        elif pa.types.is_run_end_encoded(kind):
            array = pc.run_end_decode(array)
        else:
            break
    if pa.types.is_timestamp(kind) and kind.tz is not None and kind.tz != "UTC":
        # A moment is stored in UTC whatever its zone is, and some zones Polars has no name for.
        return array.cast(pa.timestamp(kind.unit, "UTC"))
    if (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    ):
        return _text(file, name, array)
    if pa.types.is_float16(kind):
        return array.cast(pa.float32())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = _readable(file, name, array.flatten())
        if inner.type != kind.value_type:
            lengths = pc.fill_null(pc.list_value_length(array), 0).to_pylist()
            offsets = [0]
            for length in lengths:
                offsets.append(offsets[-1] + length)
            return pa.LargeListArray.from_arrays(
                pa.array(offsets, pa.int64()), inner, mask=array.is_null()
            )
    return array


def _text(file: LogFile, name: str, array: Any) -> Any:
    """Bytes as the text that they spell: some writers do not say that a column is text."""
    import pyarrow as pa

    try:
        return array.cast(pa.large_binary()).cast(pa.large_string())
    except pa.ArrowInvalid as error:
        raise BitfoldError(
            f"the column {name!r} of {file.path} holds bytes that are no text",
            got=str(array.type),
            expected="text in UTF-8",
            fix="write it as text, for example in hexadecimal",
        ) from error
