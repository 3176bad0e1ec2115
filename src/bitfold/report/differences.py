"""The chart of differences between methods, with their confidence intervals."""

from collections.abc import Mapping
from typing import Any

from bitfold.report.look import (
    LETTER,
    Look,
    Spec,
    padded,
    points,
    quantity,
    short,
    within,
)
from bitfold.report.numbers import difference_text
from bitfold.report.reading import Board


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
