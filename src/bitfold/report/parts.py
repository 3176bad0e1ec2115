"""The charts of what a model is made of: bytes, collapse, speed, unseen ids, and the grid."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bitfold.comparison.board import Line
from bitfold.report.charts import AUC_AXIS, interval, short
from bitfold.report.look import (
    AXIS,
    LETTER,
    Look,
    Spec,
    byte_axis,
    colour_of,
    padded,
    points,
    quantity,
    shape_of,
    texts,
    within,
)
from bitfold.report.numbers import auc_text, byte_count, share_text
from bitfold.report.reading import Board, Row

MOST_FIELDS = 12  # drawn one by one; the others together
REST = "all others"


def field_rows(board: Board, line: Line) -> list[dict[str, Any]]:
    """A line's fields, means over its seeds: ids, bytes, share of the bytes, abundance."""
    grouped: dict[str, list[Row]] = {}
    for run in board.runs(line):
        for field in run.get("by_field") or []:
            grouped.setdefault(field["field"], []).append(field)
    total = sum(statistics.fmean(f["bytes"] for f in fields) for fields in grouped.values())
    out = []
    for name, fields in grouped.items():
        abundance = [f["abundance"] for f in fields if f["abundance"] is not None]
        size = statistics.fmean(f["bytes"] for f in fields)
        out.append(
            {
                "field": name,
                "ids": fields[0]["ids"],
                "bytes": size,
                "share": size / total if total else None,
                "abundance": statistics.fmean(abundance) if abundance else None,
            }
        )
    return out


def field_order(board: Board) -> list[str]:
    """The fields, those with most bytes in the full table (or else with most ids) first."""
    first = board.full or board.lines[0]
    rows = field_rows(board, first) or [
        row for line in board.lines for row in field_rows(board, line)
    ]
    ranked = sorted(rows, key=lambda row: -(row["share"] or 0) if board.full else -row["ids"])
    return list(dict.fromkeys(row["field"] for row in ranked))


def bytes_by_field(board: Board, look: Look) -> Spec | None:
    """The share of the bytes that each field occupies: a panel a method and budget."""
    order = field_order(board)
    if not order:
        return None
    drawn = order[:MOST_FIELDS] + ([REST] if len(order) > MOST_FIELDS else [])
    lines = [line for line in by_field(board) if not shared_alike(board, line)]
    if not lines:
        return None
    columns = look.columns(len(lines), 4, 2)
    names = min(int(max(len(short(name, 14)) for name in drawn) * LETTER) + 8, 110)
    room = (look.width - 18 * (columns - 1)) // columns - names - 48
    most = max(row["share"] or 0.0 for line in lines for row in field_rows(board, line))
    panels = []
    for line in lines:
        shares = {row["field"]: row["share"] or 0.0 for row in field_rows(board, line)}
        shares[REST] = sum(shares.get(name, 0.0) for name in order[MOST_FIELDS:])
        rows = [
            {
                "field": short(name, 14),
                "share": shares.get(name, 0.0),
                "text": share_text(shares.get(name, 0.0)).replace("under ", "<"),
                "about": f"{line.method} {line.budget}, {name}: "
                f"{share_text(shares.get(name, 0.0))} of the bytes",
            }
            for name in drawn
        ]
        y = {
            "field": "field", "type": "nominal", "sort": [short(name, 14) for name in drawn],
            "title": None,
            "axis": {"domain": False, "labelColor": look.colour("ink"), "labelLimit": names},
        }  # fmt: skip
        x = quantity("share", None, [0, most or 1.0]) | {"axis": None}
        colour = look.series(board.series[line.method])
        panels.append(
            {
                "title": board.title(line) + (" (full table)" if line.budget == "1x" else ""),
                "width": room,
                "height": {"step": 19},
                "layer": [
                    {
                        "data": {"values": rows},
                        "mark": {"type": "bar", "color": colour, "height": 11},
                        "encoding": {"x": x, "y": y, "description": {"field": "about"}},
                    },
                    *texts(look, rows, {"x": x, "y": y, "text": {"field": "text"}}, dx=4),
                ],
            }
        )
    return {"concat": panels, "columns": columns, "spacing": 18}


def by_field(board: Board) -> list[Line]:
    """The lines whose runs recorded bytes by field."""
    return [line for line in _by_budget(board) if field_rows(board, line)]


def shared_alike(board: Board, line: Line) -> bool:
    """Whether all fields read one pool alike, so that equal shares would say nothing."""
    shares = [row["share"] or 0.0 for row in field_rows(board, line)]
    return len(shares) > 1 and max(shares) - min(shares) < 1e-3


def _by_budget(board: Board) -> list[Line]:
    """Full tables first, then every budget's lines, the methods in the key's order."""
    places = list(board.series)
    out = [line for line in board.lines if line.budget == "1x"]
    for budget in board.budgets:
        out += sorted(board.at(budget), key=lambda line: places.index(line.method))
    return out


KINDS: dict[str, tuple[str, Callable[[Row], Any]]] = {
    "embeddings": ("square", lambda row: row["bytes"]),
    "id map": ("diamond", lambda row: row.get("map_bytes") or None),
    "network": ("cross", lambda row: row.get("network_bytes")),
    "in training": ("triangle-right", lambda row: row.get("training_bytes")),
}
"""What takes bytes beside the embeddings, and the shape of its points."""


def whole_bytes(board: Board, line: Line) -> float | None:
    """Bytes to serve the whole model: embeddings, the map to ids where there is one, network."""
    return board.mean(
        line,
        lambda row: row["bytes"] + (row.get("map_bytes") or 0) + (row.get("network_bytes") or 0),
    )


def bytes_by_kind(board: Board, look: Look) -> Spec:
    """Bytes of everything a model needs, on a logarithmic axis: a row a method and budget."""
    lines = _by_budget(board)
    rows: list[dict[str, Any]] = [
        {
            "line": _line_name(board, line),
            "kind": kind,
            "bytes": value,
            "about": f"{line.method} {line.budget}, {kind}: {byte_count(value)} bytes",
        }
        for line in lines
        for kind, (_, figure) in KINDS.items()
        if (value := board.mean(line, figure))
    ]
    low, high = min(row["bytes"] for row in rows), max(row["bytes"] for row in rows)
    # Not the colours of methods, which mean methods everywhere: shapes tell the kinds apart.
    colours = ["ink", "soft", "soft", "soft"]
    scale = {"domain": list(KINDS), "range": [look.colour(colour) for colour in colours]}
    shapes = {"domain": list(KINDS), "range": [shape for shape, _ in KINDS.values()]}
    legend = {"orient": "top", "columns": 2 if look.narrow else 4, "symbolType": "square"}
    y, room = _line_axis(board, look, lines)
    x = byte_axis("bytes", low / 1.8, high * 1.8, look, look.width - room)
    return {
        "width": look.width - room - 14,
        "height": {"step": 26},
        "layer": [
            points(
                look,
                rows,
                {
                    "x": x | {"title": "bytes, logarithmic"},
                    "y": y,
                    "color": {"field": "kind", "scale": scale, "legend": legend},
                    "shape": {"field": "kind", "scale": shapes, "legend": legend},
                },
                size=100,
            )
        ],
    }


def _line_name(board: Board, line: Line) -> str:
    return f"{board.series[line.method].label}  {line.budget}"


def _line_axis(board: Board, look: Look, lines: Sequence[Line]) -> tuple[Spec, int]:
    """An axis with a row a method and budget, and the pixels that its names take."""
    names = [_line_name(board, line) for line in lines]
    room = min(int(max(map(len, names)) * LETTER) + 12, look.width // 2)
    axis = {
        "labelColor": look.colour("ink"), "labelLimit": min(room, within(look.width // 2)),
        "domain": False, "grid": True,
    }  # fmt: skip
    field = {"field": "line", "type": "nominal", "sort": names, "title": None, "axis": axis}
    return field, room


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
    lines = [line for line in _by_budget(board) if "rows_per_second" in line.means]
    if not lines:
        return None
    rows: list[dict[str, Any]] = []
    for line in lines:
        low, high = interval(line, "rows_per_second")
        value = line.means["rows_per_second"]
        rows.append(
            {
                "line": _line_name(board, line),
                "method": line.method,
                "rate": value,
                "low": max(low, 0.0),
                "high": high,
                "text": f"{value:,.0f}",
                "about": f"{line.method} {line.budget}: {value:,.0f} rows a second",
            }
        )
    most = max(row["high"] for row in rows)
    y, room = _line_axis(board, look, lines)
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
