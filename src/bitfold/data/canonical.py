"""The canonical text, and the number, of one value in memory: what `hashing` says, value by value.

A column of one type is turned into text at once, by Polars; a row alone, or a column whose values
are of several types, is turned into text here. Both give the same text for the same value, so a
row's ids never depend on the rows beside it.
"""

import datetime as dt
import math
import re
import uuid
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

import numpy as np

from bitfold.errors import BitfoldError

NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
_LARGEST_EXPONENT = 400  # of a decimal: beyond every float's
_LARGEST_INTEGER_BITS = 4096


def text_of(value: Any) -> str | None:
    """The canonical text of one value; None where it is missing.

    None, NaN, NaT and pandas' NA are missing, also as NumPy and Decimal say them.

    Raises:
        BitfoldError: a value that has no text, such as a list, a set or bytes.

    Example:
        >>> import datetime
        >>> [text_of(v) for v in (7, 7.0, 0.5, True, "007", datetime.date(2024, 1, 31))]
        ['7', '7', '0.5', 'true', '007', '2024-01-31']
        >>> text_of(float("nan")) is None
        True
    """
    known = _TEXTS.get(type(value))
    return known(value) if known is not None else _other_text(value)


def bag_of(value: Any, separator: str) -> list[str]:
    """The texts of one row's bag: of a list, or of text with separators."""
    if isinstance(value, str):
        return value.split(separator)
    if isinstance(value, set | frozenset):
        return sorted(text for text in map(text_of, value) if text is not None)
    if (
        isinstance(value, Iterable)
        and getattr(value, "ndim", 1) == 1
        and not isinstance(value, bytes | dict)
    ):
        return [text for text in map(text_of, value) if text is not None]
    text = text_of(value)
    return [] if text is None else text.split(separator)


def number_of(value: Any) -> float:
    """One value as a number; NaN where it is missing.

    Raises:
        BitfoldError: text that spells no number, or a value that is none.

    Example:
        >>> number_of(" 1.50 "), number_of(True), number_of(None)
        (1.5, 1.0, nan)
    """
    kind = type(value)
    if kind is float:
        return float(value)
    if value is None:
        return math.nan
    if isinstance(value, str):
        return _read_number(value)
    if isinstance(value, bool | int | float | np.bool_ | np.number | Decimal):
        if isinstance(value, complex | np.complexfloating):
            raise _refused(value, "a number")
        if isinstance(value, Decimal) and value.is_nan():
            return math.nan
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if _is_missing(value):
        return math.nan
    inside = _scalar_of(value)
    if inside is not value:
        return number_of(inside)
    raise _refused(value, "a number")


def _read_number(text: str) -> float:
    stripped = text.strip()
    if NUMBER.fullmatch(stripped):
        return float(stripped)
    if stripped.lower().lstrip("+-") in ("nan", "inf", "infinity"):
        return float(stripped)
    raise _refused(text, "a number, or nothing where it is missing")


def float_text(value: float | np.floating[Any]) -> str | None:
    """The canonical text of a float: integral ones as integers, else the shortest at its width."""
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if float(value).is_integer():
        return str(int(value))
    if isinstance(value, np.float16):
        value = np.float32(value)  # Polars has no narrower float
    return str(value) if isinstance(value, np.floating) else repr(value)


def decimal_text(value: Decimal) -> str | None:
    """The canonical text of a decimal number."""
    if value.is_nan():
        return None
    if value.is_infinite():
        return "inf" if value > 0 else "-inf"
    if abs(value.adjusted()) > _LARGEST_EXPONENT:
        raise _refused(value, "a number that a float can hold")
    return str(int(value)) if value == int(value) else format(value.normalize(), "f")


def moment_text(value: dt.datetime) -> str | None:
    """The canonical text of a moment; one with a time zone is told in UTC."""
    if value != value:  # pandas' NaT is a datetime
        return None
    zone = ""
    if value.tzinfo is not None:
        try:
            value = value.astimezone(dt.UTC)
        except OverflowError:
            raise _refused(value, "a moment between the years 1 and 9999, in UTC too") from None
        zone = "+00:00"
    nanos = getattr(value, "nanosecond", 0)  # of a pandas Timestamp
    fraction = f".{value.microsecond:06d}" if value.microsecond or nanos else ""
    fraction += f"{nanos:03d}" if nanos else ""
    return (
        f"{value.year:04d}-{value.month:02d}-{value.day:02d}"
        f"T{value.hour:02d}:{value.minute:02d}:{value.second:02d}{fraction}{zone}"
    )


def _integer_text(value: int) -> str:
    if value.bit_length() > _LARGEST_INTEGER_BITS:
        raise BitfoldError(
            "a value cannot be hashed",
            got=f"an integer of {value.bit_length():,} bits",
            expected=f"at most {_LARGEST_INTEGER_BITS:,} bits",
            fix="make it text",
        )
    return str(value)


_TEXTS: dict[type, Callable[[Any], str | None]] = {
    str: lambda value: value,
    int: _integer_text,
    float: float_text,
    bool: lambda value: "true" if value else "false",
    type(None): lambda value: None,
    Decimal: decimal_text,
    dt.datetime: moment_text,
    dt.date: lambda value: value.isoformat(),
    dt.time: lambda value: value.isoformat(),
    uuid.UUID: str,
    np.bool_: lambda value: "true" if value else "false",
}


def _other_text(value: Any) -> str | None:
    """The text of what is no plain Python value: subclasses, NumPy's scalars, pandas' NA."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, int | np.integer):
        return _integer_text(int(value))
    if isinstance(value, float | np.floating):
        return float_text(value)
    if isinstance(value, np.datetime64):
        return _numpy_moment(value)
    if _is_missing(value):
        return None
    if isinstance(value, dt.datetime):
        return moment_text(value)
    for kind in (dt.date, dt.time):
        if isinstance(value, kind):
            return str(value.isoformat())
    inside = _scalar_of(value)
    if inside is not value:
        return text_of(inside)
    raise _refused(value, "text, a number, a truth value, a date, a moment or None")


def _numpy_moment(value: np.datetime64) -> str | None:
    if np.isnat(value):
        return None
    unit = np.datetime_data(value.dtype)[0]
    if unit in ("Y", "M", "W", "D"):
        return str(value.astype("datetime64[D]"))
    whole = value.astype("datetime64[s]")
    nanos = int((value - whole).astype("timedelta64[ns]").astype(np.int64))
    if nanos % 1000:
        return f"{whole}.{nanos:09d}"
    return f"{whole}.{nanos // 1000:06d}" if nanos else str(whole)


def _is_missing(value: Any) -> bool:
    """Whether the value is pandas' NA or NaT, without importing pandas."""
    return type(value).__name__ in ("NAType", "NaTType")


def _scalar_of(value: Any) -> Any:
    """What an array or tensor without axes holds; anything else is returned as it is."""
    if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):
        return value.item()
    if type(value).__module__.split(".")[0] == "pyarrow" and hasattr(value, "as_py"):
        return value.as_py()
    return value


def _refused(value: Any, expected: str) -> BitfoldError:
    shown = ascii(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return BitfoldError(
        "a value cannot be read",
        got=f"{shown} of type {type(value).__name__}",
        expected=expected,
        fix="make it text, or one column a part",
    )


def utf8(text: str) -> bytes:
    """The text's bytes.

    Raises:
        BitfoldError: half a surrogate pair, which no UTF-8 holds.
    """
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BitfoldError(
            "a text is no Unicode text",
            got=f"half of a surrogate pair in {ascii(text)[:60]}",
            expected="text that UTF-8 can hold",
            fix="decode the bytes again, with errors='replace'",
        ) from None
