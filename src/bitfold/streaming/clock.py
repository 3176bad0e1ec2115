"""Times to windows: the number of each row's window, and what a window is called."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from bitfold.data.rows import Rows
from bitfold.data.times import Times
from bitfold.errors import BitfoldError
from bitfold.streaming.config import WindowRule

Seconds = npt.NDArray[np.float64]

_FIRST = 631_152_000.0  # 1990, in seconds: what is less counts from a beginning of its own
_LAST = 253_402_300_799.0  # the end of the year 9999
_DAY = 86_400


@dataclass(frozen=True)
class Span:
    """A window of a log.

    Args:
        number: from 0 on, empty ones counted.
        name: what people call it: `2024-01-31`, `day 3`, `rows 1 to 500,000`, a file.
        start: its first moment in seconds, where it is one of time.
        end: the first moment after it.
    """

    number: int
    name: str
    start: float | None = None
    end: float | None = None


class Clock:
    """Reads times as seconds: of moments since 1970, of counters since whenever they began.

    A column whose numbers all spell a date or an hour (20240131, 2024013110, and 24013110 as
    Avazu's) is read as that.

    Args:
        column: the time column.
    """

    def __init__(self, column: str) -> None:
        self._column = column
        self._times = Times(column)
        self._spelt: Callable[[Seconds], Seconds | None] | None = None
        self._first = True

    def read(self, rows: Rows) -> Seconds:
        """Seconds of some rows.

        Raises:
            BitfoldError: a time is missing or cannot be read.
        """
        found: Seconds = self._times.read(rows).to_numpy()
        if self._first:
            ways = (_hours_short, _hours, _dates)
            self._spelt = next((way for way in ways if way(found) is not None), None)
            self._first = False
        if self._spelt is None:
            self._check(rows, found)
            return found
        seconds = self._spelt(found)
        if seconds is None:
            raise BitfoldError(
                f"the times in column {self._column!r} are spelt in several ways",
                got=f"others than before in rows {rows.first + 1:,} to "
                f"{rows.first + rows.height:,} of {rows.path}",
                expected="one spelling: such as 20240131, or 2024-01-31T10:00:00",
            )
        return seconds

    def _check(self, rows: Rows, found: Seconds) -> None:
        """Raise where a number is no moment, and no seconds of a counter either."""
        wrong = np.flatnonzero(~(np.abs(found) <= _LAST))
        if len(wrong):
            raise self._no_moment(rows, int(wrong[0]), "seconds, milliseconds or finer since 1970")
        # Numbers most of which spell dates are dates; a counter's are dates now and then.
        like = (found >= 1990_01_01) & (found < 2100_01_01)
        if len(found) and bool(like.all()):
            no_date = np.array(
                [_dates(found[[row]]) is None for row in range(min(len(found), 1000))]
            )
            if 0 < no_date.sum() <= len(no_date) // 2:
                raise self._no_moment(rows, int(no_date.argmax()), "dates, as most others spell")

    def _no_moment(self, rows: Rows, row: int, expected: str) -> BitfoldError:
        value = rows.frame[self._column][row]
        return BitfoldError(
            f"a time in column {self._column!r} is no moment",
            got=f"{value!r} in row {rows.first + row + 1:,} of {rows.path}",
            expected=expected,
            fix="check the column, and in which unit it counts",
        )


def _hours_short(found: Seconds) -> Seconds | None:
    """YYMMDDHH, of the years 2000 to 2099."""
    good = bool(len(found)) and bool(((found >= 1_01_01_00) & (found < 100_00_00_00)).all())
    return _hours(found + 20_00_00_00_00) if good else None


def _hours(found: Seconds) -> Seconds | None:
    """YYYYMMDDHH."""
    whole = np.floor(found / 100)
    hours = found - 100 * whole
    days = _dates(whole)
    fits = days is not None and bool(((hours < 24) & (hours == np.floor(hours))).all())
    return days + hours * 3600 if days is not None and fits else None


def _dates(found: Seconds) -> Seconds | None:
    """YYYYMMDD."""
    if not len(found) or not bool(((found >= 1990_01_01) & (found < 2100_01_01)).all()):
        return None
    distinct, places = np.unique(found, return_inverse=True)
    try:
        days = [datetime.strptime(f"{each:.0f}", "%Y%m%d").replace(tzinfo=UTC) for each in distinct]
    except ValueError:
        return None
    if not bool((distinct == np.floor(distinct)).all()):
        return None
    return np.array([day.timestamp() for day in days])[places]


def number_of(times: Seconds, rule: WindowRule) -> npt.NDArray[np.int64]:
    """The window of each moment, counted from the rule's origin."""
    return np.floor((times - (rule.origin or 0.0)) / rule.size).astype(np.int64)


def span_of(number: int, first: int, rule: WindowRule) -> Span:
    """A window of time.

    Args:
        number: counted from the rule's origin.
        first: the number of the stream's first window.
        rule: how the log is cut.

    Example:
        >>> span_of(19_753, 19_750, WindowRule("time", 86_400))
        Span(number=3, name='2024-01-31', start=1706659200.0, end=1706745600.0)
        >>> span_of(2, 0, WindowRule("time", 86_400)).name
        'day 2'
    """
    start = (rule.origin or 0.0) + number * rule.size
    return Span(number - first, _name(start, number, rule), start, start + rule.size)


def _name(start: float, number: int, rule: WindowRule) -> str:
    if start < _FIRST:
        unit = {_DAY: "day", 7 * _DAY: "week", 3600: "hour"}.get(int(rule.size))
        return f"{unit} {number}" if unit and rule.size % 1 == 0 else f"from {start:g} s"
    moment = datetime.fromtimestamp(start, UTC)
    if rule.size % _DAY == 0:
        return moment.strftime("%Y-%m-%d")
    return moment.strftime("%Y-%m-%dT%H:%M" if rule.size % 60 == 0 else "%Y-%m-%dT%H:%M:%S")
