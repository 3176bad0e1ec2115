"""The charts of streams: a figure by window, a line a method."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitfold.report.look import (
    AUC_AXIS,
    AXIS,
    BOLD,
    BYTE_LABEL,
    Look,
    Spec,
    apart,
    furthest,
    padded,
    points,
    quantity,
    shape,
    short,
    texts,
)
from bitfold.report.numbers import auc_text, share_text, size
from bitfold.report.reading import Series
from bitfold.streaming.record import Course, Line

MOST_TICKS = 8
LETTERS = 12  # of a window's name below a chart
LETTER_ROOM = 16  # letters of a method beside its line

Value = Callable[[Line], float | None]


@dataclass(frozen=True)
class Streams:
    """Courses over the same windows, each with its colour and shape.

    Args:
        courses: methods, by the name that tells them apart.
    """

    courses: Mapping[str, Course]

    @property
    def series(self) -> dict[str, Series]:
        """The methods as they are drawn."""
        lettered = any(len(name) > LETTER_ROOM for name in self.courses)
        return {
            name: Series(name, chr(ord("A") + place % 26) if lettered else name, place + 1)
            for place, name in enumerate(self.courses)
        }

    @property
    def windows(self) -> list[str]:
        """The names of the windows, of the longest course."""
        longest = max(self.courses.values(), key=lambda course: len(course.lines))
        return [line.window for line in longest.lines]


def auc(streams: Streams, look: Look) -> Spec | None:
    """Progressive AUC, and its mean for each method."""
    return _by_window(streams, look, lambda line: line.auc, "AUC, before training", AUC_AXIS)


def sizes(streams: Streams, look: Look) -> Spec | None:
    """Bytes to serve at the end of each window, below the budget's line."""
    budgets = {course.budget_bytes for course in streams.courses.values()} - {None}
    held = [line.counted or 0 for course in streams.courses.values() for line in course.lines]
    step = 1 << max(max(held, default=0) // 5, 1).bit_length()
    axis = {"labelExpr": BYTE_LABEL, "values": [step * each for each in range(6)]}
    return _by_window(
        streams, look, lambda line: line.counted, "bytes", axis, zero=True,
        rules=[float(each) for each in budgets if each is not None], said=size,
    )  # fmt: skip


def churn(streams: Streams, look: Look) -> Spec | None:
    """Rows that changed their owners."""
    axis = {"format": ".0%", "tickCount": 5}
    return _by_window(
        streams, look, lambda line: line.churn, "owned rows that changed owner", axis, zero=True,
        said=share_text,
    )  # fmt: skip


def new_ids(streams: Streams, look: Look) -> Spec | None:
    """What the log brings that was never there before; the same for all methods."""
    course = next(iter(streams.courses.values()))
    drawn = {
        "of rows": lambda line: line.new_rows,
        "of values": lambda line: line.new_values,
    }
    rows: list[dict[str, Any]] = []
    for name, value in drawn.items():
        rows += _rows(course, name, name, value, share_text)
    if not rows:
        return None
    names = list(drawn)
    paint = {
        "color": {
            "field": "method", "type": "nominal", "legend": {} if look.slide else None,
            "scale": {"domain": names, "range": [look.colour("s1"), look.colour("s3")]},
        }
    }  # fmt: skip
    shapes = {
        "shape": {
            "field": "method", "type": "nominal", "legend": None,
            "scale": {"domain": names, "range": ["circle", "diamond"]},
        }
    }  # fmt: skip
    y = quantity("value", "share with a new id", [0, _top(rows)], format=".0%", tickCount=5)
    return _drawn(streams, look, rows, y, paint, shapes, int(9 * BOLD) + 14)


def _by_window(
    streams: Streams,
    look: Look,
    value: Value,
    title: str,
    axis: Mapping[str, Any],
    *,
    zero: bool = False,
    rules: Sequence[float] = (),
    said: Callable[[float], str] = auc_text,
) -> Spec | None:
    series = streams.series
    rows = [
        row
        for name, course in streams.courses.items()
        for row in _rows(course, name, series[name].label, value, said)
    ]
    if not rows:
        return None
    low, high = padded([row["value"] for row in rows])
    if zero:
        low, high = 0.0, max(_top(rows), *(1.08 * each for each in rules), 0.0)
    y = quantity("value", title, [low, high], **axis)
    names = list(series)
    field = {"field": "method", "type": "nominal"}
    legend: Spec | None = {} if look.slide else None
    colours = [look.series(each) for each in series.values()]
    shapes = [shape(each) for each in series.values()]
    paint = {"color": field | {"legend": legend, "scale": {"domain": names, "range": colours}}}
    marks = {"shape": field | {"legend": legend, "scale": {"domain": names, "range": shapes}}}
    room = int(max(len(each.label) for each in series.values()) * BOLD) + 14
    return _drawn(streams, look, rows, y, paint, marks, room, rules)


def _drawn(
    streams: Streams,
    look: Look,
    rows: list[dict[str, Any]],
    y: Spec,
    paint: Spec,
    marks: Spec,
    room: int,
    rules: Sequence[float] = (),
) -> Spec:
    """Lines with points, their names at the right end."""
    windows = streams.windows
    height, width = 240, look.width - AXIS - 14 - room
    step = max(1, -(-len(windows) // (4 if look.narrow else MOST_TICKS)))
    names = json.dumps([short(name, LETTERS) for name in _told(windows)])
    x = quantity(
        "window", None, [0.7, len(windows) + 0.3], grid=False, labelOverlap=True,
        values=list(range(1, len(windows) + 1, step)), labelExpr=f"{names}[datum.value - 1]",
    )  # fmt: skip
    low, high = y["scale"]["domain"]
    last = [row | {"auc": row["value"]} for row in furthest(rows, "window")]
    labels = [row | {"value": row["auc"]} for row in apart(last, low, high, height, 15, 6)]
    layers: list[Spec] = [
        {
            "data": {"values": [{"value": each} for each in rules]},
            "mark": {"type": "rule", "strokeDash": [5, 4], "strokeWidth": 1.5,
                     "color": look.colour("soft"), "aria": False},
            "encoding": {"y": y},
        },
        {
            "data": {"values": rows},
            "mark": {"type": "line", "strokeWidth": 2, "aria": False},
            "encoding": {"x": x, "y": y} | paint,
        },
        points(look, rows, {"x": x, "y": y} | paint | marks, size=55),
        *texts(
            look, labels, {"x": x, "y": y, "text": {"field": "label"}} | paint, fontWeight=600
        ),
    ]  # fmt: skip
    return {"width": width, "height": height, "layer": layers}


def _rows(
    course: Course, name: str, label: str, value: Value, said: Callable[[float], str]
) -> list[dict[str, Any]]:
    found = []
    for place, line in enumerate(course.lines, start=1):
        number = value(line)
        if number is not None:
            about = f"{name}, {line.window}: {said(number)}"
            row = {"method": name, "label": label, "window": place, "value": number}
            found.append(row | {"about": about})
    return found


def _top(rows: Sequence[Mapping[str, Any]]) -> float:
    return 1.08 * max(1e-6, *(float(row["value"]) for row in rows))


def _told(windows: Sequence[str]) -> list[str]:
    """Names without the year that all of them begin with."""
    dates = all(name[:4].isdigit() and name[4:5] == "-" for name in windows)
    same = len({name[:5] for name in windows}) == 1
    return [name[5:] for name in windows] if dates and same else list(windows)
