"""Columns in memory as plain values, a dictionary a row, without a query of Polars."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bitfold.errors import BitfoldError


def values_of(column: Any, name: str) -> list[Any]:
    """The values of a column that keep what their text depends on, such as a float's width.

    Raises:
        BitfoldError: the column's type keeps its values from being read one by one.
    """
    home = type(column).__module__.split(".")[0]
    if home == "polars":
        values = column.to_list()
        narrow = str(column.dtype) == "Float32"
    elif home == "pyarrow":
        import pyarrow as pa

        narrow = pa.types.is_float32(column.type) or pa.types.is_float16(column.type)
        try:
            values = column.to_pylist()
        except (ValueError, pa.ArrowException) as error:
            raise BitfoldError(
                f"the column {name!r} cannot be read", got=str(error), expected="plain values"
            ) from error
    elif home == "pandas":
        if isinstance(column.dtype, np.dtype):
            return list(column.to_numpy())
        values = list(column.array)
        narrow = str(column.dtype) == "Float32"
    elif isinstance(column, np.ma.MaskedArray):
        return unmasked(column)
    elif isinstance(column, np.ndarray) and column.dtype.kind in "biuUO":
        return column.tolist()  # type: ignore[no-any-return]
    else:
        return list(column)
    if narrow:
        # pandas' NA is no number.
        return [np.float32(v) if isinstance(v, float | np.floating) else None for v in values]
    return list(values)


def is_column(value: Any) -> bool:
    """Whether a value is a column of values rather than a value."""
    if isinstance(value, str | bytes | Mapping) or getattr(value, "ndim", 1) == 0:
        return False
    return isinstance(value, Iterable)


def unmasked(column: "np.ma.MaskedArray[Any, Any]") -> list[Any]:
    """The values of a masked array, None where they are masked."""
    return [
        None if masked else value
        for value, masked in zip(column.data, np.ma.getmaskarray(column), strict=True)
    ]


def fits(column: Any) -> bool:
    """Whether `values_of` keeps all that a column's text depends on.

    Polars and Arrow give moments of nanoseconds as those of microseconds.
    """
    home = type(column).__module__.split(".")[0]
    if home == "polars":
        kind = str(column.dtype)
        return kind.startswith(("String", "Int", "UInt", "Float", "Boolean", "Date", "Null")) and (
            "ns" not in kind
        )
    if home == "pyarrow":
        kind = str(column.type)
        return "[ns" not in kind and not kind.startswith(("decimal", "duration"))
    if home == "pandas":
        return not hasattr(column.dtype, "pyarrow_dtype")
    return not hasattr(column, "detach")


def cut(values: Any, start: int, stop: int) -> Any:
    """Neighbouring values of a column of any kind."""
    if type(values).__module__.split(".")[0] == "pandas":
        return values.iloc[start:stop] if hasattr(values, "iloc") else values[start:stop]
    return values.slice(start, stop - start) if hasattr(values, "slice") else values[start:stop]


def records_of(columns: Mapping[str, Any], size: int, rows: int) -> Iterator[list[dict[str, Any]]]:
    """Columns of `rows` values as lists of dictionaries, `size` at a time."""
    names: Sequence[str] = list(columns)
    for start in range(0, rows, size):
        stop = min(start + size, rows)
        whole = stop - start == rows
        lists = [
            values_of(columns[name] if whole else cut(columns[name], start, stop), name)
            for name in names
        ]
        if lists:
            yield [dict(zip(names, values, strict=True)) for values in zip(*lists, strict=True)]
        else:
            yield [{} for _ in range(start, stop)]
