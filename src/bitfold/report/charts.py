"""The charts of quality: against bytes, over epochs, by the frequency of ids, and differences."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bitfold.comparison.board import Line
from bitfold.report.look import (
    AXIS,
    BOLD,
    LETTER,
    Look,
    Spec,
    byte_axis,
    colour_of,
    padded,
    points,
    quantity,
    shape_of,
    spread_out,
    texts,
    within,
)
from bitfold.report.numbers import auc_text, byte_count, difference_text
from bitfold.report.reading import Board

FEWEST_ROWS = 200  # of a group of ids: the AUC of fewer is mostly chance, and stretches the axis
AUC_AXIS = {"format": ".3f", "tickCount": 5}


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
    labels = _apart(_last(rows, "bytes"), low, high, height, 16, 8)
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


def _last(rows: Sequence[Mapping[str, Any]], by: str) -> list[dict[str, Any]]:
    """Each method's row that lies furthest to the right."""
    out: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["method"] not in out or row[by] > out[row["method"]][by]:
            out[row["method"]] = dict(row)
    return list(out.values())


def _apart(
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


def training(board: Board, look: Look) -> Spec | None:
    """Validation AUC after each epoch: seeds thin, their mean thick. None without two epochs."""
    curves = {
        (line.method, line.budget): _curves(board, line) for line in board.lines if board.rows
    }
    every = [row for rows in curves.values() for row in rows]
    if not every or max(row["epoch"] for row in every) < 2:
        return None
    columns = look.columns(len(board.panels), 2)
    low, high = padded([row["auc"] for row in every])
    last = max(row["epoch"] for row in every)
    height = 210
    room = (look.width - 22 * (columns - 1)) // columns - AXIS - label_room(board)
    x = quantity(
        "epoch", "epoch", [0.8, last + 0.2], format="d", values=list(range(1, int(last) + 1)),
        grid=False, labelOverlap=True,
    )  # fmt: skip
    y = quantity("auc", "validation AUC", [low, high], **AUC_AXIS)
    panels = []
    for budget in board.panels:
        rows = [row for line in board.shown(budget) for row in curves[line.method, line.budget]]
        means = _mean_curves(rows)
        paint = {"color": colour_of(board, look)}
        labels = _apart(_last(means, "epoch"), low, high, height, 15, 6)
        thin = {"type": "line", "strokeWidth": 1, "opacity": 0.45, "aria": False}
        thick = {"type": "line", "strokeWidth": 2, "aria": False}
        shapes = {"shape": shape_of(board, look)}
        panels.append(
            {
                "title": "full table" if budget == "1x" else f"at {budget}",
                "width": room,
                "height": height,
                "layer": [
                    {
                        "data": {"values": rows},
                        "mark": thin,
                        "encoding": {"x": x, "y": y, "detail": {"field": "seed"}} | paint,
                    },
                    {
                        "data": {"values": means},
                        "mark": thick,
                        "encoding": {"x": x, "y": y} | paint,
                    },
                    points(look, means, {"x": x, "y": y} | shapes | paint, size=45),
                    *texts(
                        look,
                        labels,
                        {"x": x, "y": y, "text": {"field": "label"}} | paint,
                        fontWeight=600,
                    ),
                ],
            }
        )
    return {"concat": panels, "columns": columns}


def _curves(board: Board, line: Line) -> list[dict[str, Any]]:
    return [
        {
            "method": line.method,
            "label": board.series[line.method].label,
            "seed": str(run["seed"]),
            "epoch": epoch["epoch"],
            "auc": epoch["valid_auc"],
        }
        for run in board.runs(line)
        for epoch in run.get("curve") or []
        if epoch.get("valid_auc") is not None
    ]


def _mean_curves(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The mean over the seeds that reached each epoch."""
    grouped: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        grouped.setdefault((row["method"], row["epoch"]), []).append(row)
    out = []
    for (method, epoch), group in grouped.items():
        value = statistics.fmean(row["auc"] for row in group)
        about = f"{method} after epoch {epoch}: validation AUC {auc_text(value)}"
        out.append({**group[0], "auc": value, "about": about})
    return out


def label_room(board: Board) -> int:
    """Pixels for the longest label beside a line."""
    return int(max(len(series.label) for series in board.series.values()) * BOLD) + 14


def by_frequency(board: Board, look: Look) -> Spec | None:
    """Test AUC by how often a row's id was met in training: a row of panels a budget.

    Where there is a full table, what is drawn is the difference from it.
    """
    found = against_full(board, telling(frequency_rows(board)))
    if not found:
        return None
    fields = list(dict.fromkeys(row["field"] for row in found))
    bounds = padded([row["auc"] for row in found])
    columns = look.columns(len(fields), 2)
    room = (look.width - 22 * (columns - 1)) // columns - AXIS - label_room(board)
    title = "AUC less the full table's" if board.full and board.budgets else "test AUC"
    panels = []
    for budget in board.panels:
        lines = {(line.method, line.budget) for line in board.shown(budget)}
        for field in fields:
            rows = [
                row
                for row in found
                if row["field"] == field and (row["method"], row["budget"]) in lines
            ]
            where = "full table" if budget == "1x" else f"at {budget}"
            panels.append(
                {
                    "title": f"{short(field, 14)}, {where}",
                    "width": room,
                    "height": 190,
                    "layer": _frequency_layers(board, look, rows, bounds, title),
                }
            )
    return {"concat": panels, "columns": columns}


def against_full(board: Board, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the full table's AUC taken away, if it is there to compare with."""
    if board.full is None or not board.budgets:
        return list(rows)
    whole = {
        (row["field"], row["group"]): row["auc"]
        for row in rows
        if (row["method"], row["budget"]) == (board.full.method, board.full.budget)
    }
    return [
        row | {"auc": row["auc"] - whole[row["field"], row["group"]]}
        for row in rows
        if (row["field"], row["group"]) in whole
    ]


def _frequency_layers(
    board: Board,
    look: Look,
    rows: list[dict[str, Any]],
    bounds: tuple[float, float],
    title: str,
) -> list[Spec]:
    low, high = bounds
    groups = {row["group"]: row["met"] for row in rows}
    names = [groups[group] for group in sorted(groups)]
    x = {
        "field": "met", "type": "ordinal", "sort": names, "scale": {"domain": names},
        "title": "times the id was met in training",
        "axis": {"labelAngle": -45, "grid": False, "labelOverlap": False},
    }  # fmt: skip
    y = quantity("auc", title, [low, high], **AUC_AXIS)
    paint = {"color": colour_of(board, look)}
    labels = _apart(_last(rows, "group"), low, high, 190, 15, 6)
    seen = [row for row in rows if row["group"] > 0]
    # The full table, less itself, is a line at zero; points on it would say nothing.
    marked = [row for row in rows if row["auc"] or not board.series[row["method"]].whole]
    shapes = {"shape": shape_of(board, look)}
    label = {"x": x, "y": y, "text": {"field": "label"}} | paint
    return [
        {
            "data": {"values": seen},
            "mark": {"type": "line", "strokeWidth": 2, "aria": False},
            "encoding": {"x": x, "y": y} | paint,
        },
        points(look, marked, {"x": x, "y": y} | shapes | paint, size=50),
        *texts(look, labels, label, fontWeight=600, dx=12),
    ]


def telling(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups with rows enough for their AUC to tell something; all, if none has."""
    return [row for row in rows if row["rows"] >= FEWEST_ROWS] or list(rows)


def frequency_rows(board: Board) -> list[dict[str, Any]]:
    """Means over the seeds: a row a method, budget, field and group of ids."""
    out = []
    for line in board.lines:
        grouped: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
        for run in board.runs(line):
            for field in run.get("by_frequency") or []:
                for group in field["groups"]:
                    grouped.setdefault((field["field"], group["group"]), []).append(group)
        for (name, number), groups in sorted(grouped.items(), key=lambda item: item[0][1]):
            values = [group["auc"] for group in groups if group["auc"] is not None]
            if not values:
                continue
            first = groups[0]
            met = met_text(number, first["least"], first["most"])
            out.append(
                {
                    "method": line.method,
                    "budget": line.budget,
                    "label": board.series[line.method].label,
                    "field": name,
                    "group": number,
                    "met": met,
                    "rows": first["rows"],
                    "auc": statistics.fmean(values),
                    "about": f"{line.method} {line.budget}, ids of {name} met {met}: "
                    f"AUC {auc_text(statistics.fmean(values))} on {first['rows']:,} rows",
                }
            )
    return out


def met_text(group: int, least: int, most: int) -> str:
    """How often the ids of a group were met.

    Example:
        >>> met_text(0, 0, 0), met_text(3, 5, 5), met_text(9, 1200, 25_000)
        ('never', '5', '1.2k-25k')
    """
    if group == 0:
        return "never"
    low, high = _thousands(least), _thousands(most)
    return low if low == high else f"{low}-{high}"


def _thousands(count: int) -> str:
    for unit, one in (("M", 10**6), ("k", 10**3)):
        if count >= one:
            return f"{count / one:.2g}{unit}" if count < 10 * one else f"{count / one:.0f}{unit}"
    return str(count)


def differences(board: Board, look: Look, metric: str = "auc") -> Spec | None:
    """Differences between pairs of methods, with their confidence intervals."""
    rows = [
        {
            "pair": pair_text(row, 14 if look.narrow else 22),
            "mean": row["mean"],
            "low": row["low"],
            "high": row["high"],
            "real": row["low"] > 0 or row["high"] < 0,
            "about": f"{row['method']} less {row['against']} at {row['budget']}: "
            f"{difference_text(row['mean'])}, "
            f"{difference_text(row['low'])} to {difference_text(row['high'])}",
        }
        for row in board.more.get("differences") or []
        if row.get("metric") == metric and all(row.get(k) is not None for k in ("low", "high"))
    ]
    if not rows:
        return None
    low, high = padded([0.0, *(row[end] for row in rows for end in ("low", "high"))])
    order = list(dict.fromkeys(row["pair"] for row in rows))
    x = quantity(
        "mean",
        "AUC of the first less the second"
        if look.narrow
        else "difference in AUC (right of zero: the first is better)",
        [low, high],
        format="+.3~f", tickCount=3 if look.narrow else 5,
    )  # fmt: skip
    room = min(int(max(map(len, order)) * LETTER) + 10, look.width // 2)
    y = {
        "field": "pair", "type": "nominal", "sort": order, "title": None,
        "axis": {
            "labelLimit": min(room, within(look.width // 2)), "minExtent": room,
            "labelColor": look.colour("ink"), "grid": False,
        },
    }  # fmt: skip
    fill = {
        "field": "real",
        "type": "nominal",
        "scale": {"domain": [True, False], "range": [look.colour("ink"), look.colour("ground")]},
        "legend": None,
    }
    data = {"values": rows}
    line = look.colour("ink")
    return {
        "width": look.width - room - 20,
        "height": {"step": 34},
        "layer": [
            {
                "data": {"values": [{"mean": 0}]},
                "mark": {
                    "type": "rule",
                    "color": look.colour("soft"),
                    "strokeWidth": 1.5,
                    "aria": False,
                },
                "encoding": {"x": x},
            },
            {
                "data": data,
                "mark": {"type": "rule", "color": line, "strokeWidth": 2.5, "aria": False},
                "encoding": {"x": x | {"field": "low"}, "x2": {"field": "high"}, "y": y},
            },
            points(
                look, rows, {"x": x, "y": y, "fill": fill}, size=100, stroke=line, strokeWidth=2
            ),
        ],
    }


def pair_text(row: Mapping[str, Any], most: int) -> str:
    """The two sides of a difference."""
    text = f"{short(row['method'], most)} {row['budget']} − {short(row['against'], most)}"
    other = row.get("against_budget", row["budget"])
    return text if other in (row["budget"], "1x") else f"{text} {other}"


def short(text: str, most: int = 22) -> str:
    """A name cut to fit.

    Example:
        >>> short("binary-code:blocks=2,fusion=sum")
        'binary-code:blocks=2,…'
    """
    return text if len(text) <= most else text[: most - 1] + "…"
