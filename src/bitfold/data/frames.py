"""Rows in memory, where a log's files may stand: frames, tables, columns by name, dictionaries.

A `MemoryLog` gives the same `Rows` as a file does. Its columns keep their types where they have
one; a column of several types is turned into text value by value (`data.canonical`), so that
no value is read by its neighbours' type.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from bitfold.data.checking import check_row
from bitfold.data.columns_of import column_of, frame_column
from bitfold.data.config import DataConfig
from bitfold.data.memory_log import MemoryLog
from bitfold.data.records import cut, fits, is_column, records_of
from bitfold.errors import BitfoldError

if TYPE_CHECKING:
    import polars as pl

Data: TypeAlias = "str | Path | Sequence[str | Path] | MemoryLog | Any"
"""Files, or rows in memory: whatever `in_memory` understands."""


def in_memory(data: Any, *, keep: bool = False) -> MemoryLog | None:
    """Rows in memory as a log; None for paths.

    Args:
        data: a pandas or Polars frame, an Arrow table, a NumPy array with named fields, columns
            by name, one dictionary, or any iterable of dictionaries.
        keep: read an iterable at once, so that it can be read again and its rows are counted.

    Raises:
        BitfoldError: it is neither rows nor paths.

    Example:
        >>> in_memory({"user": [1, 2], "item": ["a", "b"]}).rows
        2
        >>> in_memory("clicks.csv") is None
        True
    """
    if isinstance(data, MemoryLog):
        return data
    if isinstance(data, str | Path):
        return None
    if isinstance(data, bytes | bytearray):
        raise _no_rows(data)
    whole = type(data).__module__.split(".")[0]
    if whole == "polars":
        return _polars(data)
    if whole == "pandas":
        if not hasattr(data, "columns"):
            raise _no_frame(data)
        return _pandas(data)
    if whole == "pyarrow" and (hasattr(data, "column_names") or hasattr(data, "schema")):
        return _arrow(data)
    if isinstance(data, np.ndarray) and data.dtype.names is not None:
        return _columns({name: data[name] for name in data.dtype.names})
    if isinstance(data, Mapping):
        return _columns(data)
    if hasattr(data, "__arrow_c_stream__"):
        import pyarrow as pa

        return _arrow(pa.RecordBatchReader.from_stream(data))
    if isinstance(data, Iterable):
        return _rows(data, keep)
    raise _no_rows(data)


def _no_rows(data: Any) -> BitfoldError:
    return BitfoldError(
        "this is neither rows nor paths",
        got=f"a {type(data).__name__}",
        expected="paths, a frame, an Arrow table, columns by name, or dictionaries",
    )


def _no_frame(data: Any) -> BitfoldError:
    return BitfoldError(
        "one column is no frame",
        got=f"a {type(data).__name__} of {type(data).__module__.split('.')[0]}",
        expected="a frame of columns",
        fix="give a frame, or one row as a dictionary",
    )


def paths_of(data: Data) -> list[str | Path]:
    """The paths that data names; none for rows in memory.

    Example:
        >>> paths_of("clicks.csv"), paths_of({"user": [1]})
        (['clicks.csv'], [])
    """
    if isinstance(data, str | Path):
        return [data]
    if isinstance(data, list | tuple):
        return [path for path in data if isinstance(path, str | Path)]
    return []


def _polars(data: Any) -> MemoryLog:
    import polars as pl

    if isinstance(data, pl.LazyFrame):
        data = data.collect()
    if not isinstance(data, pl.DataFrame):
        raise _no_frame(data)
    return _lazy(data.columns, data.height, lambda name: data[name])


def _pandas(data: Any) -> MemoryLog:
    names = [str(name) for name in data.columns]
    place = {name: index for index, name in enumerate(names)}
    keys = list(data.columns)
    if len(place) < len(keys):  # a name that is there twice is refused once it is asked for
        return _lazy(names, len(data), lambda name: data.iloc[:, place[name]])
    return _lazy(names, len(data), lambda name: data[keys[place[name]]])


def _arrow(data: Any) -> MemoryLog:
    if hasattr(data, "read_all"):  # a RecordBatchReader
        data = data.read_all()
    if not hasattr(data, "column_names"):
        import pyarrow as pa

        data = pa.Table.from_batches([data])
    names = list(data.schema.names)
    return _lazy(names, data.num_rows, lambda name: data.column(names.index(name)))


def _lazy(names: Sequence[str], rows: int, column: Callable[[str], Any]) -> MemoryLog:
    """A frame whose columns are sliced, then turned into Polars' a chunk at a time."""

    def chunks(
        config: DataConfig, required: Sequence[str], optional: Sequence[str], size: int
    ) -> Iterator["pl.DataFrame"]:
        import polars as pl

        wanted = [*required, *optional]
        held = {name: column(name) for name in wanted}
        for start in range(0, rows, size):
            stop = min(start + size, rows)
            made = [
                frame_column(cut(values, start, stop), name, config)
                for name, values in held.items()
            ]
            yield pl.DataFrame(made) if made else pl.DataFrame(height=stop - start)

    def plain(required: Sequence[str], size: int) -> Iterator[list[Mapping[str, Any]]] | None:
        held = {name: column(name) for name in required}
        if not all(map(fits, held.values())):
            return None
        return records_of(held, size, rows)  # type: ignore[return-value]

    return MemoryLog(names, rows, chunks, plain)


def _columns(data: Mapping[Any, Any]) -> MemoryLog:
    """Columns by name; or one row, if a column that holds one value a row holds no list."""
    columns = {str(name): value for name, value in data.items()}
    listed = {name: value for name, value in columns.items() if is_column(value)}
    if len(listed) < len(columns):
        # A list beside single values is one row's bag.
        return _dictionaries([data])
    held = {name: _sized(value) for name, value in listed.items()}
    lengths = {name: len(value) for name, value in held.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(
            f"{name} {length:,}" for name, length in itertools.islice(lengths.items(), 8)
        )
        raise BitfoldError(
            "the columns are not of one length",
            got=shown,
            expected="as many values in each column",
        )
    return _lazy(list(held), next(iter(lengths.values()), 0), held.__getitem__)


def _sized(column: Any) -> Any:
    """A column that has a length and can be cut."""
    if type(column).__module__.split(".")[0] == "pandas" and not hasattr(column, "array"):
        from pandas import Series

        return Series(column)  # an array of pandas' own
    if hasattr(column, "__len__") and hasattr(column, "__getitem__"):
        return column
    return list(column)


def _rows(data: Iterable[Any], keep: bool) -> MemoryLog | None:
    """Dictionaries, one a row; None if the first is a path."""
    rest = iter(data)
    head = list(itertools.islice(rest, 1))
    if head and isinstance(head[0], str | Path):
        return None
    rows: Any = data if isinstance(data, Sequence) else itertools.chain(head, rest)
    return _dictionaries(list(rows) if keep else rows)


def _dictionaries(rows: Iterable[Any]) -> MemoryLog:
    def chunks(
        config: DataConfig, required: Sequence[str], optional: Sequence[str], size: int
    ) -> Iterator["pl.DataFrame"]:
        import polars as pl

        waiting, done = iter(rows), 0
        wanted: list[str] | None = None
        while part := list(itertools.islice(waiting, size)):
            for index, row in enumerate(part):
                check_row(row, required, done + index)
            if wanted is None:
                met = [name for name in optional if any(name in row for row in part)]
                wanted = [*required, *met]
            made = [column_of([row.get(name) for row in part], name, config) for name in wanted]
            yield pl.DataFrame(made) if made else pl.DataFrame(height=len(part))
            done += len(part)

    def plain(required: Sequence[str], size: int) -> Iterator[list[Mapping[str, Any]]] | None:
        waiting = iter(rows)
        return iter(lambda: list(itertools.islice(waiting, size)), [])

    return MemoryLog(None, len(rows) if isinstance(rows, Sequence) else None, chunks, plain)
