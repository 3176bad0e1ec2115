"""How charts look: colours, shapes, sizes, and the pieces that all charts share.

A chart is a Vega-Lite specification as plain data. It is drawn twice for the page, wide and
narrow, in colours that are CSS variables (so that one drawing serves light and dark), and once
for a slide, in plain colours.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitfold.report.reading import Board, Series

Spec = dict[str, Any]

LIGHT = {
    "ink": "#1b1f24", "soft": "#57606a", "faint": "#dfe3e8", "ground": "#ffffff",
    "s0": "#3d444d", "s1": "#0b5cc4", "s2": "#b4430a", "s3": "#0a7352", "s4": "#7a35b8",
    "s5": "#b01860", "s6": "#7a5b00", "s7": "#0f6e84",
}  # fmt: skip
DARK = {
    "ink": "#e8ebef", "soft": "#a5afba", "faint": "#333a43", "ground": "#14171b",
    "s0": "#c9d1d9", "s1": "#74b0ff", "s2": "#ff9f68", "s3": "#5cd0a8", "s4": "#cda4ff",
    "s5": "#ff8cbc", "s6": "#dcc45a", "s7": "#6fd0e4",
}  # fmt: skip
COLOURS = 7  # beside the full table's; then they come again with another shape
SHAPES = ("square", "circle", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")
FONT = "Arial, 'Liberation Sans', Helvetica, sans-serif"
AUC_AXIS = {"format": ".3f", "tickCount": 5}
LETTER = 7.4  # pixels of a letter, about
BOLD = 8.0  # of a bold one
AXIS = 56  # of a vertical axis with its numbers and title


@dataclass(frozen=True)
class Look:
    """Where a chart is drawn.

    Args:
        width: pixels across, labels included.
        narrow: whether it is for a phone.
        slide: whether it is a picture of its own, with plain colours, a title and a key.
    """

    width: int
    narrow: bool = False
    slide: bool = False

    def colour(self, name: str) -> str:
        """A colour of the page by its name."""
        return LIGHT[name] if self.slide else f"var(--{name})"

    def series(self, series: Series) -> str:
        """The colour of a method."""
        place = 0 if series.whole else 1 + (series.place - 1) % COLOURS
        return self.colour(f"s{place}")

    def columns(self, count: int, wide: int, narrow: int = 1) -> int:
        """Panels beside each other."""
        return min(count, narrow if self.narrow else wide)


def within(pixels: int) -> int:
    """The most that a label may take of the pixels kept for it.

    Labels are measured in Arial's widths; a reader without it sees them in a wider font.
    """
    return int(0.85 * pixels)


WIDE = Look(740)
NARROW = Look(320, narrow=True)
SLIDE = Look(960, slide=True)


def shape(series: Series) -> str:
    """The shape of a method's points."""
    if series.whole:
        return SHAPES[0]
    turn = (series.place - 1) // COLOURS
    return SHAPES[1 + (series.place - 1 + turn) % (len(SHAPES) - 1)]


def config(look: Look) -> Spec:
    """What holds for all charts."""
    ink, soft, faint = (look.colour(name) for name in ("ink", "soft", "faint"))
    size = 12 if not look.slide else 14
    return {
        "background": LIGHT["ground"] if look.slide else "transparent",
        "font": FONT,
        "padding": 24 if look.slide else 2,
        "view": {"stroke": None},
        "axis": {
            "labelColor": soft, "titleColor": soft, "labelFontSize": size, "titleFontSize": size,
            "titleFontWeight": "normal", "gridColor": faint, "domainColor": faint,
            "tickColor": faint, "labelPadding": 6, "titlePadding": 8, "ticks": False,
        },
        "title": {"color": ink, "fontSize": size + 1, "fontWeight": 600, "anchor": "start"},
        "text": {"color": ink, "fontSize": size},
        "legend": {
            "title": None, "orient": "top", "labelColor": ink, "labelFontSize": size,
            "labelLimit": 420, "symbolSize": 90, "columns": 3,
        },
        "concat": {"spacing": 22},
    }  # fmt: skip


def colour_of(board: Board, look: Look, names: Sequence[str] | None = None) -> Spec:
    """The encoding of colour by method; the key is the page's own, or a slide's legend."""
    chosen = [board.series[name] for name in names or board.series]
    return _by_method(look, chosen, [look.series(series) for series in chosen])


def shape_of(board: Board, look: Look, names: Sequence[str] | None = None) -> Spec:
    """The encoding of shape by method."""
    chosen = [board.series[name] for name in names or board.series]
    return _by_method(look, chosen, [shape(series) for series in chosen])


def _by_method(look: Look, series: Sequence[Series], values: Sequence[str]) -> Spec:
    encoding: Spec = {
        "field": "method",
        "type": "nominal",
        "scale": {"domain": [each.name for each in series], "range": list(values)},
    }
    encoding["legend"] = {} if look.slide else None
    return encoding


def quantity(field: str, title: str | None, domain: Sequence[float], **axis: Any) -> Spec:
    """A numeric encoding over a domain that is said."""
    return {
        "field": field,
        "type": "quantitative",
        "title": title,
        "scale": {"domain": list(domain), "nice": False, "zero": False},
        "axis": {"labelOverlap": "greedy", "labelSeparation": 8, **axis},
    }


def points(look: Look, rows: Sequence[Mapping[str, Any]], encoding: Spec, **mark: Any) -> Spec:
    """Points that are described one by one."""
    described = {"description": {"field": "about"}}
    style = {"type": "point", "filled": True, "opacity": 1, "size": 80, "stroke": None, **mark}
    if style["stroke"] is None:
        style |= {"stroke": look.colour("ground"), "strokeWidth": 1}
    return {"data": {"values": list(rows)}, "mark": style, "encoding": encoding | described}


def texts(look: Look, rows: Sequence[Mapping[str, Any]], encoding: Spec, **mark: Any) -> list[Spec]:
    """Texts with a halo of the ground's colour, so that lines below do not cut them."""
    base = {"type": "text", "align": "left", "baseline": "middle", "dx": 9, "aria": False, **mark}
    halo = {**base, "stroke": look.colour("ground"), "strokeWidth": 4, "strokeJoin": "round"}
    place = {name: value for name, value in encoding.items() if name != "color"}
    data = {"values": list(rows)}
    return [
        {
            "data": data,
            "mark": halo | {"color": look.colour("ground")},
            "encoding": place,
        },
        {"data": data, "mark": base, "encoding": encoding},
    ]


def spread_out(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The nearest places at least `gap` apart, within bounds if there is room.

    Example:
        >>> spread_out([10, 11, 50], 14, 0, 100)
        [3.5, 17.5, 50.0]
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    groups: list[list[float]] = []  # [mean of the middle, number of labels]
    for i in order:
        groups.append([float(places[i]), 1])
        while len(groups) > 1:
            (one, n), (two, m) = groups[-2:]
            if two - one >= gap * (n + m) / 2:
                break
            groups[-2:] = [[(one * n + two * m) / (n + m), n + m]]
    out = [0.0] * len(places)
    ranked = iter(order)
    for middle, count in groups:
        half = gap * (count - 1) / 2
        middle = max(low + half, min(high - half, middle))
        for step in range(int(count)):
            out[next(ranked)] = middle - half + gap * step
    return out


def padded(
    values: Sequence[float], share: float = 0.08, least: float = 1e-3
) -> tuple[float, float]:
    """The bounds of some values with room around them."""
    low, high = min(values), max(values)
    room = max(high - low, least) * share
    return low - room, high + room


def byte_ticks(low: float, high: float, most: int) -> list[int]:
    """Powers of two between two sizes, at most so many.

    Example:
        >>> byte_ticks(30_000, 3_000_000, 4)
        [32768, 131072, 524288, 2097152]
    """
    first, last = math.ceil(math.log2(low)), math.floor(math.log2(high))
    step = max(1, math.ceil((last - first + 1) / most))
    return [2**power for power in range(first, last + 1) if (power - first) % step == 0][:most]


BYTE_LABEL = (
    "datum.value >= 1073741824 ? format(datum.value / 1073741824, '~g') + ' GiB' : "
    "datum.value >= 1048576 ? format(datum.value / 1048576, '~g') + ' MiB' : "
    "datum.value >= 1024 ? format(datum.value / 1024, '~g') + ' KiB' : datum.value + ' B'"
)


def byte_axis(field: str, low: float, high: float, look: Look, room: int) -> Spec:
    """A logarithmic axis of bytes; `room` is its length in pixels."""
    ticks = byte_ticks(low, high, max(2, room // 56))
    return {
        "field": field,
        "type": "quantitative",
        "title": "bytes to serve the embeddings, logarithmic",
        "scale": {"type": "log", "domain": [low, high], "nice": False},
        "axis": {"values": ticks, "labelExpr": BYTE_LABEL, "labelOverlap": True},
    }


def label_room(board: Board) -> int:
    """Pixels for the longest label beside a line."""
    return int(max(len(series.label) for series in board.series.values()) * BOLD) + 14


def short(text: str, most: int = 22) -> str:
    """A name cut to fit.

    Example:
        >>> short("binary-code:blocks=2,fusion=sum")
        'binary-code:blocks=2,…'
    """
    return text if len(text) <= most else text[: most - 1] + "…"


def furthest(rows: Sequence[Mapping[str, Any]], by: str) -> list[dict[str, Any]]:
    """Each method's row that lies furthest to the right."""
    out: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["method"] not in out or row[by] > out[row["method"]][by]:
            out[row["method"]] = dict(row)
    return list(out.values())


def apart(
    rows: Sequence[dict[str, Any]], low: float, high: float, height: int, gap: float, edge: float
) -> list[dict[str, Any]]:
    """The rows with their AUCs moved so that labels there, `gap` pixels high, do not meet.

    Args:
        rows: with an `auc` each.
        low: the AUC at the foot of the chart.
        high: the AUC at its top.
        height: of the chart, in pixels.
        gap: pixels between two labels.
        edge: pixels between a label and the chart's foot or top.
    """
    places = spread_out(
        [(high - row["auc"]) / (high - low) * height for row in rows], gap, edge, height - edge
    )
    return [
        row | {"auc": high - place / height * (high - low)}
        for row, place in zip(rows, places, strict=True)
    ]
