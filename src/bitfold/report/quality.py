"""The chart of quality against bytes."""

from collections.abc import Mapping, Sequence
from typing import Any

from bitfold.comparison.board import Line
from bitfold.report.look import (
    AUC_AXIS,
    AXIS,
    Look,
    Spec,
    apart,
    byte_axis,
    colour_of,
    furthest,
    label_room,
    padded,
    points,
    quantity,
    shape_of,
    texts,
)
from bitfold.report.numbers import auc_text, byte_count
from bitfold.report.reading import Board


def quality(board: Board, look: Look) -> Spec:
    """Test AUC against bytes, a line a method, with error bars over the seeds."""
    lines = board.lines
    height = 300 if look.narrow else 340
    right = label_room(board)
    room = look.width - AXIS - right
    reach = [edge for line in lines for edge in interval(line)]
    inside, outside = references(board, reach)
    low, high = padded([*reach, *(value for _, value in inside)])
    sizes = [line.means["bytes"] for line in lines]
    x = byte_axis("bytes", min(sizes) / 1.6, max(sizes) * 1.6, look, room)
    y = quantity("auc", "test AUC (higher is better)", [low, high], **AUC_AXIS)
    rows = [_quality_row(board, line) for line in lines]
    compressed = [row for row in rows if not row["whole"]]
    paint = {"color": colour_of(board, look)}
    layers: list[Spec] = [
        *_rules(look, inside, y),
        {
            "data": {"values": [row for row in rows if row["whole"]]},
            "mark": {"type": "rule", "strokeDash": [5, 4], "strokeWidth": 1.5, "aria": False},
            "encoding": {"y": y} | paint,
        },
        {
            "data": {"values": compressed},
            "mark": {"type": "line", "strokeWidth": 2, "aria": False},
            "encoding": {"x": x, "y": y} | paint,
        },
        {
            "data": {"values": [row for row in rows if row["low"] < row["high"]]},
            "mark": {"type": "rule", "strokeWidth": 2, "aria": False},
            "encoding": {"x": x, "y": y | {"field": "low"}, "y2": {"field": "high"}} | paint,
        },
        points(look, rows, {"x": x, "y": y, "shape": shape_of(board, look)} | paint),
    ]
    labels = apart(furthest(rows, "bytes"), low, high, height, 16, 8)
    label = {"x": x, "y": y, "text": {"field": "label"}} | paint
    layers += texts(look, labels, label, fontWeight=600)
    layers += _rule_names(look, inside, y)
    layers += _notes(look, outside, height)
    return {"width": room, "height": height, "layer": layers}


def interval(line: Line, name: str = "auc") -> tuple[float, float]:
    """The mean of a figure less and plus its spread over the seeds."""
    spread = line.spreads.get(name) or 0.0
    return line.means[name] - spread, line.means[name] + spread


def references(
    board: Board, reach: Sequence[float]
) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """Floors and ceilings: those that fit into the chart, and those that would flatten it."""
    found = [
        (str(name), float(figures["auc"]))
        for name, figures in (board.more.get("references") or {}).items()
        if isinstance(figures, Mapping) and isinstance(figures.get("auc"), int | float)
    ]
    span = max(max(reach) - min(reach), 0.01)
    fits = [min(reach) - 1.5 * span <= value <= max(reach) + 1.5 * span for _, value in found]
    return (
        [each for each, fit in zip(found, fits, strict=True) if fit],
        [each for each, fit in zip(found, fits, strict=True) if not fit],
    )


def _rules(look: Look, lines: Sequence[tuple[str, float]], y: Spec) -> list[Spec]:
    """Horizontal lines of the references."""
    rows = [{"auc": value} for _, value in lines]
    rule = {"type": "rule", "strokeDash": [1, 4], "strokeCap": "round", "strokeWidth": 2}
    mark = rule | {"color": look.colour("soft"), "aria": False}
    return [{"data": {"values": rows}, "mark": mark, "encoding": {"y": y}}] if rows else []


def _rule_names(look: Look, lines: Sequence[tuple[str, float]], y: Spec) -> list[Spec]:
    """The names of the references, above all that is drawn."""
    rows = [{"auc": value, "text": f"{name} {auc_text(value)}"} for name, value in lines]
    place = {"x": {"value": 0}, "y": y, "text": {"field": "text"}}
    return texts(look, rows, place, dx=4, dy=-9, color=look.colour("soft")) if rows else []


def _notes(look: Look, far: Sequence[tuple[str, float]], height: int) -> list[Spec]:
    """A line of text for each reference that lies beyond the chart."""
    return [
        {
            "data": {"values": [{"text": f"beyond the chart: {name} {auc_text(value)}"}]},
            "mark": {"type": "text", "align": "left", "aria": False, "color": look.colour("soft")},
            "encoding": {
                "x": {"value": 4},
                "y": {"value": height - 10 - 16 * place},
                "text": {"field": "text"},
            },
        }
        for place, (name, value) in enumerate(far)
    ]


def _quality_row(board: Board, line: Line) -> dict[str, Any]:
    series = board.series[line.method]
    low, high = interval(line)
    spread = line.spreads.get("auc")
    shown = auc_text(line.means["auc"]) + (f" ± {spread:.4f}" if spread is not None else "")
    return {
        "method": line.method,
        "label": series.label,
        "whole": series.whole,
        "bytes": line.means["bytes"],
        "auc": line.means["auc"],
        "low": low,
        "high": high,
        "about": f"{line.method} at {line.budget}: AUC {shown} "
        f"in {byte_count(line.means['bytes'])} bytes",
    }
