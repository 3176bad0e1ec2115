"""Columns of values in memory as Polars series, in their own type or as canonical text."""

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bitfold.data.canonical import bag_of, number_of, text_of, utf8
from bitfold.data.config import DataConfig
from bitfold.data.records import unmasked
from bitfold.errors import BitfoldError

if TYPE_CHECKING:
    import polars as pl

_INT64 = range(-(2**63), 2**63)


def frame_column(values: Any, name: str, config: DataConfig) -> "pl.Series":
    """A column of a frame, a table or an array, in its own type where Polars has it.

    Raises:
        BitfoldError: the column holds what cannot be read.
    """
    import polars as pl

    try:
        series = _typed(values, name, config)
    except (pl.exceptions.PolarsError, ValueError, TypeError, NotImplementedError) as error:
        if isinstance(error, BitfoldError):
            raise _in_column(error, name) from None
        raise BitfoldError(
            f"the column {name!r} cannot be read",
            got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            expected="text, numbers, truth values, dates or moments",
            fix="turn the column into text",
        ) from error
    return series.alias(name)


def _typed(values: Any, name: str, config: DataConfig) -> "pl.Series":
    import polars as pl

    if isinstance(values, pl.Series):
        return column_of(values.to_list(), name, config) if values.dtype == pl.Object else values
    home = type(values).__module__.split(".")[0]
    if home == "pandas":
        return _pandas(values, name, config)
    if home == "pyarrow":
        return _arrow(values)
    if isinstance(values, np.ma.MaskedArray) and values.ndim == 1:
        return column_of(unmasked(values), name, config)
    if isinstance(values, np.ndarray) and values.ndim == 1:
        return _numpy(values, name, config)
    if getattr(values, "ndim", 1) == 1 and hasattr(values, "detach"):
        return _numpy(values.detach().cpu().numpy(), name, config)
    return column_of(list(values), name, config)


def _pandas(values: Any, name: str, config: DataConfig) -> "pl.Series":
    import polars as pl

    kind = values.dtype
    if not hasattr(values, "iloc"):  # an index
        values = values.to_series()
    if type(kind).__name__ == "CategoricalDtype":
        codes = pl.Series(np.asarray(values.cat.codes, dtype=np.int64))
        known = frame_column(kind.categories.to_series(), name, config)
        return known.gather(codes.set(codes < 0, None))
    if type(kind).__name__ == "DatetimeTZDtype":
        naive = values.dt.tz_convert("UTC").dt.tz_localize(None)
        return pl.Series(pl.from_pandas(naive)).dt.replace_time_zone("UTC")
    if isinstance(kind, np.dtype) and kind.kind in "biufM":
        return _numpy(values.to_numpy(), name, config)
    if type(kind).__name__ in (
        *("BooleanDtype", "Float32Dtype", "Float64Dtype", "StringDtype", "ArrowDtype"),
        *(f"{sign}Int{bits}Dtype" for sign in ("", "U") for bits in (8, 16, 32, 64)),
    ):
        import pyarrow as pa

        return _arrow(pa.Array.from_pandas(values))
    return column_of(values.tolist(), name, config)


def _arrow(values: Any) -> "pl.Series":
    import polars as pl
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(values.type):
        values = pc.cast(values, values.type.value_type)
    if pa.types.is_timestamp(values.type) and values.type.tz is not None:
        # Polars does not know every zone that Arrow writes, such as +05:30.
        values = values.cast(pa.timestamp(values.type.unit, "UTC"))
    return pl.Series(pl.from_arrow(values))


def _numpy(values: Any, name: str, config: DataConfig) -> "pl.Series":
    import polars as pl

    kind = values.dtype
    if kind.kind == "M" and np.datetime_data(kind)[0] not in ("D", "ms", "us", "ns"):
        unit = "D" if np.datetime_data(kind)[0] in ("Y", "M", "W") else "us"
        values = values.astype(f"datetime64[{unit}]")
    elif kind == np.float16:
        values = values.astype(np.float32)
    elif kind.kind in "biuf" and kind.itemsize <= 8:
        values = values.astype(kind.newbyteorder("="), copy=False)
    elif kind.kind != "M":
        return column_of(values.tolist(), name, config)
    return pl.Series(np.ascontiguousarray(values))


def column_of(values: Sequence[Any], name: str, config: DataConfig) -> "pl.Series":
    """A column of Python values: numbers for a numeric column, lists for a bag, else text or a
    type that all values have.

    Raises:
        BitfoldError: naming the column, for a value that cannot be read.
    """
    import polars as pl

    try:
        kinds = {type(value) for value in values} - {type(None)}
        if name in config.multi and kinds != {str}:
            return _bags(values, name, config)
        if name in config.numeric:
            if not config.missing:
                return pl.Series(name, [number_of(value) for value in values], pl.Float64)
            return pl.Series(name, _numbers(values, config.missing), pl.Float64)
        if kinds <= {str}:
            return _texts(name, values)
        if kinds == {bool}:
            return pl.Series(name, values, pl.Boolean)
        if kinds == {int} and all(value is None or value in _INT64 for value in values):
            return pl.Series(name, values, pl.Int64)
        if kinds == {float}:
            return pl.Series(name, values, pl.Float64)
        if kinds == {dt.date}:
            return pl.Series(name, values, pl.Date)
        if kinds == {dt.datetime} and all(v is None or v.tzinfo is None for v in values):
            return pl.Series(name, values, pl.Datetime("us"))
        return _texts(name, [text_of(value) for value in values])
    except BitfoldError as error:
        raise _in_column(error, name) from None


def _texts(name: str, texts: Sequence[str | None]) -> "pl.Series":
    import polars as pl

    try:
        return pl.Series(name, texts, pl.String)
    except UnicodeEncodeError:
        for text in texts:
            if text is not None:
                utf8(text)
        raise


def _numbers(values: Iterable[Any], missing: Sequence[str]) -> list[float]:
    return [float("nan") if text_of(value) in missing else number_of(value) for value in values]


def _bags(values: Sequence[Any], name: str, config: DataConfig) -> "pl.Series":
    import polars as pl

    lists = [bag_of(value, config.multi[name]) for value in values]
    for texts in lists:
        for text in texts:
            utf8(text)
    return pl.Series(name, lists, pl.List(pl.String))


def _in_column(error: BitfoldError, name: str) -> BitfoldError:
    """The same error with the column's name."""
    if f"{name!r}" in error.problem:
        return error
    return BitfoldError(
        f"{error.problem}: column {name!r}",
        got=error.got,
        expected=error.expected,
        fix=error.fix,
    )
