"""Values to 64-bit ids: XXH64 of the value's canonical UTF-8 text (needs polars and polars-hash).

The canonical text (version 1) of a value:

- text: itself, untouched (a CSV cell is text already: "05" and "5" are two values);
- an integer: base 10; a truth value: `true` or `false`;
- a float: as an integer when it is integral (`3.0` is "3", `-0.0` is "0"), else the shortest
  text that reads back as the same number at its own width (`repr`);
- a date: `2024-01-31`; a moment: `2024-01-31T10:00:00`, with a fraction of 6 (or 9) digits only
  if it has one, and `+00:00` (converted to UTC) if it has a time zone;
- missing (None, NaN): no text. Its id is XXH64 of the byte FF, which no UTF-8 text contains.

With seed 0 the ids equal those of ClickHouse's and Trino's `xxhash64`, with seed 42 those of
Spark's on text. Source: Collet, *XXH64*.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bitfold.errors import BitfoldError

if TYPE_CHECKING:
    import polars as pl

HASH_VERSION = 1
"""Version of the canonical text, of the hash and of `cross_ids`."""

Ids = npt.NDArray[np.int64]

_ODD_1 = 0x9E3779B97F4A7C15
_ODD_2 = np.uint64(0xBF58476D1CE4E5B9)
_ODD_3 = np.uint64(0x94D049BB133111EB)


def mix(values: npt.NDArray[Any], salt: int = 0) -> npt.NDArray[np.uint64]:
    """A bijective scramble of 64-bit numbers (Steele, Lea, Flood 2014: SplitMix64's finaliser).

    Example:
        >>> mix(np.array([0, 1]), salt=7).dtype
        dtype('uint64')
    """
    z = values.astype(np.int64, copy=False).view(np.uint64)
    z = z + np.uint64(_ODD_1 * (salt + 1) % 2**64)
    shifted = z >> np.uint64(30)
    z ^= shifted
    z *= _ODD_2
    np.right_shift(z, np.uint64(27), out=shifted)
    z ^= shifted
    z *= _ODD_3
    np.right_shift(z, np.uint64(31), out=shifted)
    z ^= shifted
    return z


def canonical_text(series: "pl.Series") -> "pl.Series":
    """The canonical text of every value; null stays null, and NaN becomes null.

    Raises:
        BitfoldError: for types that have no text (lists, structs, bytes).

    Example:
        >>> import polars as pl
        >>> canonical_text(pl.Series([1.0, 0.5, None])).to_list()
        ['1', '0.5', None]
    """
    import polars as pl

    kind = series.dtype
    if kind == pl.String:
        return series
    if kind == pl.Boolean or kind.is_integer() or kind in (pl.Categorical, pl.Enum):
        return series.cast(pl.String)
    if kind == pl.Null:
        return series.cast(pl.String)
    if kind == pl.Date:
        return series.dt.strftime("%Y-%m-%d")
    if isinstance(kind, pl.Datetime):
        return _moment_text(series)
    if kind.is_float() or kind.is_decimal() or kind == pl.Time:
        return _text_of_distinct(series)
    raise BitfoldError(
        f"column {series.name!r} cannot be hashed",
        got=f"values of type {kind}",
        expected="text, numbers, truth values, dates or moments",
        fix="turn the column into text, or into one column a part",
    )


def _moment_text(series: "pl.Series") -> "pl.Series":
    import polars as pl

    kind = series.dtype
    zone = ""
    if isinstance(kind, pl.Datetime) and kind.time_zone is not None:
        series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        zone = "+00:00"
    frame = series.alias("t").to_frame()
    nanos = pl.col("t").dt.nanosecond()
    fraction = (
        pl.when(nanos == 0)
        .then(pl.lit(""))
        .when(nanos % 1000 == 0)
        .then(pl.lit(".") + (nanos // 1000).cast(pl.String).str.zfill(6))
        .otherwise(pl.lit(".") + nanos.cast(pl.String).str.zfill(9))
    )
    text = pl.col("t").dt.strftime("%Y-%m-%dT%H:%M:%S") + fraction + pl.lit(zone)
    return frame.select(text.alias(series.name)).to_series()


def _text_of_distinct(series: "pl.Series") -> "pl.Series":
    import polars as pl

    distinct = series.unique()
    narrow = series.dtype == pl.Float32
    texts = [_scalar_text(np.float32(v) if narrow and v is not None else v) for v in distinct]
    mapping = pl.DataFrame(
        {"value": distinct, "text": pl.Series(texts, dtype=pl.String)},
    )
    joined = (
        series.alias("value")
        .to_frame()
        .join(mapping, on="value", how="left", nulls_equal=True, maintain_order="left")
    )
    return joined["text"].alias(series.name)


def _scalar_text(value: Any) -> str | None:
    """The canonical text of a float, decimal or time of day."""
    if value is None:
        return None
    if isinstance(value, float | np.floating):
        if math.isnan(value):
            return None
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
        if float(value).is_integer():
            return str(int(value))
        return str(value) if isinstance(value, np.floating) else repr(value)
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    if value == int(value):
        return str(int(value))
    return format(value.normalize(), "f")


def missing_id(seed: int = 0) -> int:
    """The id of a missing value: XXH64 of the byte FF.

    Example:
        >>> missing_id() == missing_id(1)
        False
    """
    return _xxh64_of_byte(0xFF, seed)


def _xxh64_of_byte(byte: int, seed: int) -> int:
    # XXH64 of an input of one byte, written out: text hashing cannot spell this input.
    whole = 2**64 - 1
    p1, p2, p3, p5 = (
        0x9E3779B185EBCA87,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0x27D4EB2F165667C5,
    )
    h = (seed + p5 + 1) & whole
    h ^= (byte * p5) & whole
    h = (((h << 11) | (h >> 53)) & whole) * p1 & whole
    h = (h ^ (h >> 33)) * p2 & whole
    h = (h ^ (h >> 29)) * p3 & whole
    h ^= h >> 32
    return h - 2**64 if h >= 2**63 else h


def check_seed(seed: int) -> int:
    """The seed itself, if it is one: 0 to 2**64 - 1."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise BitfoldError(
            "the hash seed is out of range", got=repr(seed), expected="0 to 2**64 - 1"
        )
    return seed


def hash_series(series: "pl.Series", seed: int = 0) -> "pl.Series":
    """The ids of a series: Int64, without nulls.

    Example:
        >>> import polars as pl
        >>> hash_series(pl.Series("city", ["Rome", None])).dtype
        Int64
    """
    import polars as pl

    text = canonical_text(series).alias("value")
    return text.to_frame().select(hash_expr(pl.col("value"), seed)).to_series().alias(series.name)


def hash_expr(text: "pl.Expr", seed: int = 0) -> "pl.Expr":
    """The ids of an expression that yields canonical text."""
    import polars as pl
    import polars_hash  # noqa: F401  (it registers the `nchash` namespace)

    ids = text.nchash.xxhash64(seed=check_seed(seed))  # type: ignore[attr-defined]
    ids = ids.reinterpret(signed=True).fill_null(pl.lit(missing_id(seed), dtype=pl.Int64))
    return ids  # type: ignore[no-any-return]


def hash_values(values: "Sequence[Any] | npt.NDArray[Any] | pl.Series", seed: int = 0) -> Ids:
    """The ids of `n` values: int64 `[n]`.

    Args:
        values: text, numbers, truth values, dates, moments; None and NaN are missing. A Python
            list may mix types: each value has its own canonical text.
        seed: 0 to 2**64 - 1; another seed gives other ids.

    Example:
        >>> ids = hash_values(["7", 7, 7.0, None, float("nan")])
        >>> bool(ids[0] == ids[1] == ids[2]), bool(ids[3] == ids[4] == missing_id())
        (True, True)
    """
    import polars as pl

    if isinstance(values, pl.Series):
        series = values
    elif isinstance(values, np.ndarray) and values.dtype != object:
        series = _series_of_array(values)
    else:
        series = _series_of_objects(values)
    return hash_series(series, seed).to_numpy()


def _series_of_objects(values: "Sequence[Any] | npt.NDArray[Any]") -> "pl.Series":
    """A text series of values of any types, each by itself."""
    import polars as pl

    from bitfold.data.canonical import text_of

    texts: list[str | None] = []
    for value in values:
        try:
            text = text_of(value)
            (text or "").encode()
        except BitfoldError:
            raise
        except (TypeError, ValueError) as error:  # half a character, a duration of NumPy
            raise BitfoldError(
                "a value cannot be hashed",
                got=f"{value!r} of type {type(value).__name__}",
                expected="text in Unicode, numbers, truth values, dates, moments or None",
            ) from error
        texts.append(text)
    return pl.Series("value", texts, dtype=pl.String)


def _series_of_array(values: npt.NDArray[Any]) -> "pl.Series":
    import polars as pl

    try:
        return pl.Series("value", values)
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise BitfoldError(
            "the values cannot be hashed",
            got=f"an array of type {values.dtype}",
            expected="text, numbers, truth values, dates or moments",
        ) from error


def hash_text(text: str, seed: int = 0) -> int:
    """The id of one text, as a signed 64-bit integer.

    Example:
        >>> hash_text("abc", seed=3)
        3158726716732323587
    """
    return int(hash_values([text], seed)[0])


def cross_ids(parts: Sequence[Ids]) -> Ids:
    """The ids of a crossed field: an ordered fold of the parts' ids (version 1).

    `h = mix(part_0)`, then `h = mix(h + part_k, salt=k)` for `k = 1, 2, ...`; all 64 bits count,
    arithmetic wraps, and the order of the parts matters.

    Args:
        parts: two or more int64 arrays `[n]`.

    Example:
        >>> a, b = hash_values(["x", "y"]), hash_values(["1", "1"])
        >>> (cross_ids([a, b]) == cross_ids([b, a])).any()
        np.False_
    """
    folded = mix(parts[0])
    for index, part in enumerate(parts[1:], start=1):
        step = folded + part.astype(np.int64, copy=False).view(np.uint64)
        folded = mix(step.view(np.int64), salt=index)
    return folded.view(np.int64)
