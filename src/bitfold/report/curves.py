"""The chart of training curves: quality over epochs."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bitfold.comparison.board import Line
from bitfold.report.look import (
    AUC_AXIS,
    AXIS,
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
    texts,
)
from bitfold.report.numbers import auc_text
from bitfold.report.reading import Board


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
        labels = apart(furthest(means, "epoch"), low, high, height, 15, 6)
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
