"""The charts of bytes: by field, and by what they are."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from bitfold.comparison.board import Line
from bitfold.report.look import (
    LETTER,
    Look,
    Spec,
    byte_axis,
    points,
    quantity,
    short,
    texts,
    within,
)
from bitfold.report.numbers import byte_count, share_text
from bitfold.report.reading import Board, Row

MOST_FIELDS = 12  # drawn one by one; the others together


REST = "all others"


def field_rows(board: Board, line: Line) -> list[dict[str, Any]]:
    """A line's fields, means over its seeds: ids, bytes, share of the bytes, abundance.

    With several embedding sets `by_set` has the abundance of each.
    """
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
                "by_set": _by_set([f.get("abundance_by_set") or [] for f in fields]),
            }
        )
    return out


def _by_set(runs: Sequence[Sequence[float | None]]) -> list[float]:
    """Means over runs of the abundance of each set that has one."""
    told = [[value for value in values if value is not None] for values in zip(*runs, strict=False)]
    return [statistics.fmean(values) for values in told if values]


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
    return [line for line in by_budget(board) if field_rows(board, line)]


def shared_alike(board: Board, line: Line) -> bool:
    """Whether all fields read one pool alike, so that equal shares would say nothing."""
    shares = [row["share"] or 0.0 for row in field_rows(board, line)]
    return len(shares) > 1 and max(shares) - min(shares) < 1e-3


def by_budget(board: Board) -> list[Line]:
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
    lines = by_budget(board)
    rows: list[dict[str, Any]] = [
        {
            "line": line_name(board, line),
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
    y, room = line_axis(board, look, lines)
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


def line_name(board: Board, line: Line) -> str:
    """What a line is called where each has a row of its own."""
    return f"{board.series[line.method].label}  {line.budget}"


def line_axis(board: Board, look: Look, lines: Sequence[Line]) -> tuple[Spec, int]:
    """An axis with a row a method and budget, and the pixels that its names take."""
    names = [line_name(board, line) for line in lines]
    room = min(int(max(map(len, names)) * LETTER) + 12, look.width // 2)
    axis = {
        "labelColor": look.colour("ink"), "labelLimit": min(room, within(look.width // 2)),
        "domain": False, "grid": True,
    }  # fmt: skip
    field = {"field": "line", "type": "nominal", "sort": names, "title": None, "axis": axis}
    return field, room
