"""The charts of collapse, speed, and the grid."""

from collections.abc import Mapping
from typing import Any

from bitfold.report.look import (
    AUC_AXIS,
    AXIS,
    LETTER,
    Look,
    Spec,
    colour_of,
    padded,
    points,
    quantity,
    shape_of,
    short,
    texts,
)
from bitfold.report.numbers import auc_text
from bitfold.report.quality import interval
from bitfold.report.reading import Board
from bitfold.report.sizes import (
    MOST_FIELDS,
    by_budget,
    field_order,
    field_rows,
    line_axis,
    line_name,
)


def collapse(board: Board, look: Look) -> Spec | None:
    """Information abundance of each field's vectors: a panel a budget, a point a method."""
    order = field_order(board)[:MOST_FIELDS]
    found = {
        (line.method, line.budget): [
            {
                "method": line.method,
                "field": short(row["field"], 14),
                "abundance": row["abundance"],
                "about": f"{line.method} {line.budget}, {row['field']}: "
                f"{row['abundance']:.1f} directions",
            }
            for row in field_rows(board, line)
            if row["abundance"] is not None and row["field"] in order
        ]
        for line in board.lines
    }
    every = [row for rows in found.values() for row in rows]
    if not every:
        return None
    columns = look.columns(len(board.panels), 3)
    drawn = [short(name, 14) for name in order]
    names = min(int(max(map(len, drawn)) * LETTER) + 8, 110)
    room = (look.width - 22 * (columns - 1)) // columns - names - 16
    most = max(row["abundance"] for row in every)
    panels = []
    for budget in board.panels:
        rows = [row for line in board.shown(budget) for row in found[line.method, line.budget]]
        x = quantity("abundance", "directions used", [0.5, most * 1.05], tickCount=4, format="~f")
        y = {
            "field": "field", "type": "nominal", "sort": drawn, "title": None,
            "axis": {"labelColor": look.colour("ink"), "domain": False, "grid": True,
                     "labelLimit": names},
        }  # fmt: skip
        marks = {"color": colour_of(board, look), "shape": shape_of(board, look)}
        panels.append(
            {
                "title": "full table" if budget == "1x" else f"at {budget}",
                "width": room,
                "height": {"step": 22},
                "layer": [points(look, rows, {"x": x, "y": y} | marks, size=70)],
            }
        )
    return {"concat": panels, "columns": columns}


def speed(board: Board, look: Look) -> Spec | None:
    """Rows trained a second, with the spread over the seeds."""
    lines = [line for line in by_budget(board) if "rows_per_second" in line.means]
    if not lines:
        return None
    rows: list[dict[str, Any]] = []
    for line in lines:
        low, high = interval(line, "rows_per_second")
        value = line.means["rows_per_second"]
        rows.append(
            {
                "line": line_name(board, line),
                "method": line.method,
                "rate": value,
                "low": max(low, 0.0),
                "high": high,
                "text": f"{value:,.0f}",
                "about": f"{line.method} {line.budget}: {value:,.0f} rows a second",
            }
        )
    most = max(row["high"] for row in rows)
    y, room = line_axis(board, look, lines)
    x = quantity("rate", "rows trained a second", [0, most * 1.02], tickCount=4, format="~s")
    paint = {"color": colour_of(board, look)}
    return {
        "width": look.width - room - 78,
        "height": {"step": 24},
        "layer": [
            {
                "data": {"values": rows},
                "mark": {"type": "bar", "height": 12, "opacity": 0.9},
                "encoding": {"x": x, "y": y, "description": {"field": "about"}} | paint,
            },
            {
                "data": {"values": [row for row in rows if row["low"] < row["high"]]},
                "mark": {"type": "rule", "color": look.colour("ink"), "strokeWidth": 1.5,
                         "aria": False},
                "encoding": {"x": x | {"field": "low"}, "x2": {"field": "high"}, "y": y},
            },
            *texts(
                look, rows, {"x": x | {"field": "high"}, "y": y, "text": {"field": "text"}}, dx=6
            ),
        ],
    }  # fmt: skip


def grid(board: Board, look: Look) -> Spec | None:
    """The best AUC of each learning rate that was tried, over the weight decays; a panel a budget.

    Only what chose is drawn: the methods of the comparison, on the validation part.
    """
    best: dict[tuple[str, str, float], float] = {}
    for row in grid_rows(board):
        rate, auc, method = row.get("lr"), row.get("valid_auc"), row.get("method")
        if (
            isinstance(rate, int | float)
            and isinstance(auc, int | float)
            and method in board.series
        ):
            key = (str(method), str(row.get("budget")), float(rate))
            best[key] = max(best.get(key, 0.0), auc)
    if not best:
        return None
    rates = [f"{rate:g}" for rate in sorted({rate for _, _, rate in best})]
    budgets = list(dict.fromkeys(budget for _, budget, _ in best))
    low, high = padded(list(best.values()))
    columns = look.columns(len(budgets), 3)
    room = (look.width - 22 * (columns - 1)) // columns - AXIS
    x = {
        "field": "rate", "type": "ordinal", "sort": rates, "scale": {"domain": rates},
        "title": "learning rate", "axis": {"labelAngle": 0, "grid": False},
    }  # fmt: skip
    y = quantity("auc", "validation AUC", [low, high], **AUC_AXIS)
    paint = {"color": colour_of(board, look)}
    panels = []
    for budget in budgets:
        rows = [
            {
                "method": method,
                "rate": f"{rate:g}",
                "auc": auc,
                "about": f"{method} {budget}, learning rate {rate:g}: AUC {auc_text(auc)}",
            }
            for (method, where, rate), auc in best.items()
            if where == budget
        ]
        line = {"type": "line", "strokeWidth": 2, "aria": False}
        panels.append(
            {
                "title": "full table" if budget == "1x" else f"at {budget}",
                "width": room,
                "height": 180,
                "layer": [
                    {"data": {"values": rows}, "mark": line, "encoding": {"x": x, "y": y} | paint},
                    points(look, rows, {"x": x, "y": y, "shape": shape_of(board, look)} | paint),
                ],
            }
        )
    return {"concat": panels, "columns": columns}


def grid_rows(board: Board) -> list[dict[str, Any]]:
    """All that the grid tried, a point a row."""
    found = board.more.get("grid") or []
    if isinstance(found, Mapping):
        found = found.get("cells") or []
    return [dict(row) for row in found if isinstance(row, Mapping)]


def grid_choices(board: Board) -> list[dict[str, Any]]:
    """What the grid chose for each method and budget, if it says so."""
    found = board.more.get("grid")
    rows = found.get("choices") if isinstance(found, Mapping) else None
    return [dict(row) for row in rows or [] if isinstance(row, Mapping)]
