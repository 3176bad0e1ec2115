"""Canonical texts in the spelling of a type: one function a type or style (see `types`)."""

import datetime as dt
import re
from collections.abc import Callable

import numpy as np

from bitfold.data.canonical import NUMBER, float_text

Speller = Callable[[str], str | None]
"""A canonical text to the text wanted; None for a missing value."""

INTEGER = re.compile(r"0|-?[1-9][0-9]*", re.ASCII)
_INTEGRAL = re.compile(r"(0|-?[1-9][0-9]*)\.0*", re.ASCII)
MOMENT = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?)?"
    r"(Z|[+-][0-9]{2}:?[0-9]{2})?",
    re.ASCII,
)
_TRUTHS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
_BOOLS = {"bool": ("false", "true"), "true": ("false", "true")}
_BOOLS |= {"True": ("False", "True"), "TRUE": ("FALSE", "TRUE")}


def same(text: str) -> str:
    """The text itself."""
    return text


def _text_integer(text: str) -> str:
    whole = _INTEGRAL.fullmatch(text)
    if whole is not None:
        return whole[1]
    return _truth_number(text)


def _truth_number(text: str) -> str:
    return {"true": "1", "false": "0"}.get(text.lower(), text) if len(text) < 6 else text


def _typed_integer(text: str) -> str:
    if INTEGER.fullmatch(text):
        return text
    stripped = text.strip()
    if not NUMBER.fullmatch(stripped):
        return _truth_number(text)
    if re.fullmatch(r"[+-]?[0-9]{1,40}(\.0*)?", stripped):
        return str(int(stripped.partition(".")[0]))
    number = float(stripped)
    return str(int(number)) if number.is_integer() else text


def _typed_float(text: str) -> str | None:
    stripped = text.strip()
    return float_text(float(stripped)) if NUMBER.fullmatch(stripped) else _nothing(text)


def _float32(text: str) -> str | None:
    stripped = text.strip()
    if not NUMBER.fullmatch(stripped):
        return _nothing(text)
    with np.errstate(over="ignore"):
        return float_text(np.float32(float(stripped)))


def _nothing(text: str) -> str | None:
    return None if text.strip().lower() == "nan" else _truth_number(text)


def _text_float(text: str) -> str:
    return repr(float(text)) if NUMBER.fullmatch(text) else text


def _truth(style: str) -> Speller:
    names = _BOOLS[style]

    def spell(text: str) -> str:
        truth = _TRUTHS.get(text.strip().lower())
        return text if truth is None else names[truth]

    return spell


def _moment(text: str) -> tuple[str, str, str] | None:
    """The day, the time (empty for midnight said as nothing) and the zone of a moment's text."""
    found = MOMENT.fullmatch(text.strip())
    if found is None:
        return None
    fraction = (found[7] or "").ljust(9, "0")
    fraction = fraction[:6] if fraction.endswith("000") else fraction
    fraction = "" if not fraction.strip("0") else f".{fraction}"
    time = f"{found[4] or '00'}:{found[5] or '00'}:{found[6] or '00'}{fraction}"
    return f"{found[1]}-{found[2]}-{found[3]}", time, found[8] or ""


def _day(text: str) -> str:
    parts = _moment(text)
    return text if parts is None or parts[2] or parts[1] != "00:00:00" else parts[0]


def _naive(between: str) -> Speller:
    def spell(text: str) -> str:
        parts = _moment(text)
        return text if parts is None or parts[2] else f"{parts[0]}{between}{parts[1]}"

    return spell


def _utc(text: str) -> str:
    parts = _moment(text)
    if parts is None or not parts[2]:
        return text
    day, time, zone = parts
    if zone not in ("Z", "+00:00", "+0000"):
        sign = -1 if zone[0] == "-" else 1
        digits = zone[1:].replace(":", "")
        shift = sign * dt.timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
        try:
            moved = dt.datetime.fromisoformat(f"{day}T{time[:8]}") - shift
        except (ValueError, OverflowError):
            return text
        day, time = moved.strftime("%Y-%m-%d").zfill(10), moved.strftime("%H:%M:%S") + time[8:]
    return f"{day}T{time}+00:00"


SPELLERS: dict[str, Speller] = {
    "int": _text_integer,
    "float": _text_float,
    "typed-int": _typed_integer,
    "typed-float": _typed_float,
    "float32": _float32,
    "date": _day,
    "datetime": _naive(" "),
    "datetimeT": _naive("T"),
    "datetime-utc": _utc,
    "datetime+00:00": lambda text: _utc(text).replace("T", " ", 1) if _moment(text) else text,
    **{style: _truth(style) for style in _BOOLS},
}
