"""Draw a comparison as an SVG: test AUC against bytes. `make picture` draws the last demo's.

python docs/draw.py demo-out/board/results.json docs/demo.svg
"""

import json
import math
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

from bitfold.cli.tables import size
from bitfold.comparison.board import FULL, Line, lines

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 50, 60
COLOURS = ("#1f6feb", "#d1570c", "#2da44e", "#8250df", "#bf3989")
INK, FAINT = "#24292f", "#d0d7de"


class Scale:
    """From bytes and AUC to places in the picture."""

    def __init__(self, rows: Sequence[Line]) -> None:
        sizes = [math.log10(row.means["bytes"]) for row in rows]
        scores = [row.means["auc"] for row in rows]
        self.low, self.high = math.floor(min(sizes)), math.ceil(max(sizes))
        room = max(max(scores) - min(scores), 0.01) * 0.15
        self.bottom, self.top = min(scores) - room, max(scores) + room

    def x(self, count: float) -> float:
        """Where so many bytes lie."""
        share = (math.log10(count) - self.low) / (self.high - self.low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, score: float) -> float:
        """Where an AUC lies."""
        share = (score - self.bottom) / (self.top - self.bottom)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def text(x: float, y: float, words: str, *, anchor: str = "middle", more: str = "") -> str:
    """A text element."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(words)}</text>'


def axes(scale: Scale) -> list[str]:
    """Grid, numbers and titles."""
    out = []
    for power in range(scale.low, scale.high + 1):
        x = scale.x(10**power)
        out.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="{FAINT}"/>')
        words = f"{10 ** (power % 3)} {('B', 'kB', 'MB', 'GB', 'TB')[power // 3]}"
        out.append(text(x, HEIGHT - BOTTOM + 20, words))
    step = 0.005 if scale.top - scale.bottom < 0.05 else 0.02
    score = math.ceil(scale.bottom / step) * step
    while score <= scale.top:
        y = scale.y(score)
        out.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{FAINT}"/>')
        out.append(text(LEFT - 8, y + 4, f"{score:.3f}", anchor="end"))
        score += step
    middle = (LEFT + WIDTH - RIGHT) / 2
    out.append(text(middle, HEIGHT - 14, "bytes of the embeddings (serving)"))
    out.append(text(LEFT - 50, 26, "test AUC", anchor="start", more='font-weight="bold"'))
    return out


def series(name: str, rows: Sequence[Line], colour: str, scale: Scale) -> list[str]:
    """One method: a line through its budgets."""
    rows = sorted(rows, key=lambda row: row.means["bytes"])
    spots = [(scale.x(row.means["bytes"]), scale.y(row.means["auc"])) for row in rows]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    out = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    for row, (x, y) in zip(rows, spots, strict=True):
        about = f"{name} {row.budget}: AUC {row.means['auc']:.4f}, {size(row.means['bytes'])}"
        out.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}">'
            f"<title>{escape(about)}</title></circle>"
        )
        out.append(
            text(x, y - 10, f"{row.budget}  {row.means['auc']:.4f}", more=f'fill="{colour}"')
        )
    return out


def draw(rows: Sequence[Line]) -> str:
    """The picture of a board's lines."""
    rows = [row for row in rows if "auc" in row.means]
    scale = Scale(rows)
    out = axes(scale)
    names = list(dict.fromkeys(row.method for row in rows))
    for place, name in enumerate(names):
        colour = INK if name == FULL else COLOURS[(place - 1) % len(COLOURS)]
        mine = [row for row in rows if row.method == name]
        if name == FULL:
            y = scale.y(mine[0].means["auc"])
            out.append(
                f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{INK}" stroke-dasharray="5 4"/>'
            )
        out += series(name, mine, colour, scale)
        y = TOP + 14 + 22 * place
        out.append(f'<circle cx="{WIDTH - RIGHT + 22}" cy="{y - 4}" r="4.5" fill="{colour}"/>')
        out.append(text(WIDTH - RIGHT + 34, y, name, anchor="start"))
    body = "\n".join(out)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{INK}">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    board = json.loads(source.read_text(encoding="utf-8"))
    target.write_text(draw(lines(board["results"], board["refused"])), encoding="utf-8")
    print(f"{target} drawn from {source}")
