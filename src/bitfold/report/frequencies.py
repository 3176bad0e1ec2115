"""The charts of quality by how often training met an id, or whether it did at all."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bitfold.report.look import (
    AUC_AXIS,
    AXIS,
    LETTER,
    Look,
    Spec,
    apart,
    colour_of,
    furthest,
    label_room,
    padded,
    points,
    quantity,
    shape_of,
    short,
    texts,
)
from bitfold.report.numbers import auc_text, share_text
from bitfold.report.reading import Board, Row

FEWEST_ROWS = 200  # of a group of ids: the AUC of fewer is mostly chance, and stretches the axis


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
    labels = apart(furthest(rows, "group"), low, high, 190, 15, 6)
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


def unseen(board: Board, look: Look) -> Spec | None:
    """The share of each field's test ids that training never met."""
    rows = [
        {
            "field": short(str(row["field"]), 18),
            "share": row["share"],
            "text": share_text(row["share"]),
            "about": f"{row['field']}: {share_text(row['share'])} of the test ids are new",
        }
        for row in sorted(unseen_rows(board), key=lambda row: -row["share"])[:20]
    ]
    if not rows:
        return None
    names = min(int(max(len(row["field"]) for row in rows) * LETTER) + 8, 140)
    y = {
        "field": "field", "type": "nominal", "sort": [row["field"] for row in rows], "title": None,
        "axis": {
            "labelColor": look.colour("ink"), "domain": False, "labelLimit": names,
            "minExtent": names,
        },
    }  # fmt: skip
    most = max(row["share"] for row in rows)
    x = quantity("share", None, [0, max(most, 1e-3)]) | {"axis": None}
    return {
        "width": look.width - names - 70,
        "height": {"step": 20},
        "layer": [
            {
                "data": {"values": rows},
                "mark": {"type": "bar", "height": 11, "color": look.colour("soft")},
                "encoding": {"x": x, "y": y, "description": {"field": "about"}},
            },
            *texts(look, rows, {"x": x, "y": y, "text": {"field": "text"}}, dx=4),
        ],
    }


def unseen_rows(board: Board) -> list[Row]:
    """The rows of `unseen` that have a share."""
    found: list[Row] = []
    for row in board.more.get("unseen") or []:
        share = row.get("share", row.get("test"))
        if isinstance(share, int | float) and "field" in row:
            found.append({"field": str(row["field"]), "share": share})
    return found
