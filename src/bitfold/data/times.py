"""Times that order a log: numbers, dates and moments, in one unit over all files and chunks.

A moment (a date, ISO text, a timestamp of Parquet) is seconds since 1970 in UTC. A number says no
unit, so its size must: seconds, milli-, micro- and nanoseconds of the years 1990 to 2100 lie far
apart. Each number is read by its own size, never by its neighbours', so that chunks and files
agree. Other numbers (counters, 20240131, YYMMDDHH) order the rows as they are, and are refused
beside moments, where their unit would decide the order.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bitfold.data.rows import Rows
from bitfold.errors import BitfoldError

if TYPE_CHECKING:
    import polars as pl

_FIRST, _LAST = 631_152_000.0, 4_102_444_800.0  # 1990 and 2100, in seconds
_UNITS = {"milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}

_MOMENT = (
    r"^(\d{4})[-/](\d{1,2})[-/](\d{1,2})"
    r"(?:[T ]\s*(\d{1,2}):(\d{2})(?::(\d{2})(\.\d+|,\d+)?)?)?"
    r"\s*(?:([Zz]|UTC|GMT)|([+-])(\d{2}):?(\d{2})?)?$"
)
_EXPECTED = "a number, or a moment such as 2024-01-31 10:00:00 or 2024-01-31T10:00:00+05:30"


@dataclass(frozen=True)
class _Seen:
    """The first value of a kind, for messages."""

    text: str
    row: int
    path: Path

    def __str__(self) -> str:
        return f"{self.text} in row {self.row} of {self.path}"


class Times:
    """Reads the time column of a log, chunk by chunk.

    Args:
        name: the column.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._seen: dict[str, _Seen] = {}
        self._counters: tuple[float, float] | None = None  # the range of small numbers
        self._first_second = np.inf

    def read(self, rows: Rows) -> "pl.Series":
        """The times of some rows as Float64: seconds, or numbers without a unit as they are.

        Raises:
            BitfoldError: for a time that is missing or cannot be read, and for units that do not
                go together, naming both rows.
        """
        import polars as pl

        column = rows.frame[self.name]
        numbers, moments = _split(rows, self.name, column)
        found = numbers.to_numpy()
        out = found.copy()
        for unit, scale in _UNITS.items():
            inside = (found >= _FIRST * scale) & (found < _LAST * scale)
            out[inside] = found[inside] / scale
            self._note(unit, inside, rows, column)
        seconds = (found >= _FIRST) & (found < _LAST)
        if _spell_hours(found[seconds]):
            self._note("a number of no known unit", seconds, rows, column)
            seconds = np.zeros(len(found), bool)
        self._note("seconds", seconds, rows, column)
        known = moments.is_not_null().to_numpy()
        self._note("a date or moment", known, rows, column)
        self._check(found, out != found, seconds, rows, column)
        out = np.where(known, moments.fill_null(0.0).to_numpy(), out)
        return pl.Series(out)

    def _note(
        self, kind: str, mask: npt.NDArray[np.bool_], rows: Rows, column: "pl.Series"
    ) -> None:
        if kind not in self._seen and mask.any():
            index = int(mask.argmax())
            self._seen[kind] = _Seen(repr(column[index]), rows.first + index + 1, rows.path)

    def _check(
        self,
        found: npt.NDArray[np.float64],
        scaled: npt.NDArray[np.bool_],
        seconds: npt.NDArray[np.bool_],
        rows: Rows,
        column: "pl.Series",
    ) -> None:
        """Refuse numbers without a unit beside moments and scaled numbers."""
        # Beyond all seconds but no milliseconds, or between other units: a unit nobody knows.
        self._note("a number of no known unit", (found >= _LAST) & ~scaled, rows, column)
        positive = found[found > 0]
        small = (found > 0) & (found < _FIRST)
        if len(positive) and positive.max() < _FIRST:
            # A whole chunk of small numbers: a counter, or a date spelt as a number.
            self._note("a small number", small, rows, column)
            low, high = self._counters or (np.inf, 0.0)
            self._counters = (min(low, positive.min()), max(high, positive.max()))
        if seconds.any():
            self._first_second = min(self._first_second, found[seconds].min())
        moments = [self._seen[kind] for kind in ("a date or moment", *_UNITS) if kind in self._seen]
        # A counter may grow into the range of seconds; a date spelt as a number jumps.
        jumps = self._counters is not None and self._first_second > 1.5 * self._counters[1]
        if not moments and jumps and "seconds" in self._seen:
            moments = [self._seen["seconds"]]
        for kind in ("a number of no known unit", "a small number"):
            if moments and kind in self._seen:
                raise BitfoldError(
                    f"the times in column {self.name!r} have several units",
                    got=f"{moments[0]}, and {self._seen[kind]}",
                    expected="one unit in all files: seconds, milli-, micro- or nanoseconds since "
                    "1970, or dates",
                    fix="convert one of them, for example to text such as 2024-01-31T10:00:00",
                )


def _spell_hours(found: npt.NDArray[np.float64]) -> bool:
    """Whether numbers that could be seconds are all written as YYYYMMDDHH."""
    year, month = found // 1_000_000, found // 10_000 % 100
    day, hour = found // 100 % 100, found % 100
    spelt = (year >= 1990) & (year < 2100) & (month >= 1) & (month <= 12)
    return len(found) > 0 and bool((spelt & (day >= 1) & (day <= 31) & (hour < 24)).all())


def _split(rows: Rows, name: str, column: "pl.Series") -> tuple["pl.Series", "pl.Series"]:
    """Numbers (NaN where there is none) and moments in seconds (null where there is none)."""
    import polars as pl

    kind = column.dtype
    nothing = pl.Series([None], dtype=pl.Float64).new_from_index(0, len(column))
    if kind in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
        kind = column.dtype
    if kind == pl.Date or isinstance(kind, pl.Datetime):
        rows.refuse(column.is_null(), name, "the time is missing", _EXPECTED)
        return nothing.fill_null(float("nan")), _epoch(column)
    if kind == pl.String:
        text = column.str.strip_chars()
        numbers = text.cast(pl.Float64, strict=False)
        bad = numbers.is_null() | numbers.is_nan() | numbers.is_infinite()
        moments = parse_moments(text.set(~bad, None)) if bad.any() else nothing
        rows.refuse(
            bad & moments.is_null(),
            name,
            "the time cannot be read",
            _EXPECTED,
            fix="write dates with the year first: 2024-01-22",
        )
        return numbers.set(bad, None).fill_null(float("nan")), moments
    if kind.is_numeric():
        numbers = column.cast(pl.Float64, strict=False)
        bad = numbers.is_null() | numbers.is_nan() | numbers.is_infinite()
        rows.refuse(bad, name, "the time cannot be read", _EXPECTED)
        return numbers, nothing
    raise BitfoldError(
        f"the column {name!r} of {rows.path} holds no times",
        got={pl.Duration: "durations", pl.Time: "times of the day without a date"}.get(
            type(kind), f"values of type {kind}"
        ),
        expected=_EXPECTED,
        fix="add the day, or the moment that the durations count from",
    )


def _epoch(moments: "pl.Series") -> "pl.Series":
    import polars as pl

    # Microseconds: nanoseconds would overflow for years after 2262.
    whole = moments.cast(pl.Datetime("us")) if moments.dtype == pl.Date else moments.dt.epoch("us")
    return whole.cast(pl.Int64).cast(pl.Float64) / 1e6


def parse_moments(text: "pl.Series") -> "pl.Series":
    """Dates and moments in text to seconds since 1970 in UTC; null for what is none.

    The year comes first, parted by dashes or slashes; an offset (Z, +05:30, -0330) counts, and
    without one the moment is taken as UTC.

    Example:
        >>> import polars as pl
        >>> parse_moments(pl.Series(["1970-01-02", "1970/01/01 05:30+05:30", "1/2/70"])).to_list()
        [86400.0, 0.0, None]
    """
    import polars as pl

    parts = pl.col("t").str.extract_groups(_MOMENT)
    fields = (
        text.alias("t")
        .to_frame()
        .select(parts)
        .unnest("t")
        .rename({str(i): name for i, name in enumerate("ymdHMSfzsPQ", 1)})
    )

    def number(name: str) -> pl.Expr:
        return pl.col(name).cast(pl.Float64, strict=False).fill_null(0.0)

    date = pl.concat_str(
        "y", pl.lit("-"), pl.col("m").str.zfill(2), pl.lit("-"), pl.col("d").str.zfill(2)
    )
    days = date.str.to_date("%Y-%m-%d", strict=False).cast(pl.Int32).cast(pl.Float64)
    sign = pl.when(pl.col("s") == "-").then(-1.0).otherwise(1.0)
    offset = sign * (number("P") * 3600 + number("Q") * 60)
    fraction = pl.lit("0") + pl.col("f").str.replace(",", ".", literal=True)
    clock = number("H") * 3600 + number("M") * 60 + number("S")
    valid = (number("H") < 24) & (number("M") < 60) & (number("S") <= 60)
    moment = days * 86_400 + clock + fraction.cast(pl.Float64, strict=False).fill_null(0.0)
    found = fields.select(pl.when(valid).then(moment - offset).otherwise(None).alias("t"))
    return found.to_series()
