"""The page: one HTML file, without scripts, that fetches nothing."""

import math
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import bitfold
from bitfold.report import sentences
from bitfold.report.again import CELL, command
from bitfold.report.decision import commands, decision
from bitfold.report.drawing import svg
from bitfold.report.figures import listed
from bitfold.report.layout import Chart, Section, Table
from bitfold.report.look import COLOURS, DARK, LIGHT, NARROW, WIDE, shape
from bitfold.report.numbers import auc_text, share_text, size
from bitfold.report.reading import Board, Series, text_of
from bitfold.report.sections import sections
from bitfold.report.sizes import whole_bytes

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup


def page(board: Board, out: str) -> str:
    """The page of a comparison.

    Args:
        board: the comparison.
        out: its folder, as the commands of the page name it.
    """
    from markupsafe import Markup

    template = template_of("page.html")
    first, notes = board.attempt("the decision", decision, board) or ("Not decided.", [])
    made = sections(board)
    drawings = {
        part.chart.name: drawing
        for section in made
        for part in section.parts
        if part.chart is not None and (drawing := _drawing(board, part.chart)) is not None
    }
    ids = {section.id for section in made}
    return template.render(
        board=board,
        style=Markup(style(read_part("page.css"))),
        first=first,
        notes=notes,
        lead=next((p.chart for s in made[:1] for p in s.parts if p.chart is not None), None),
        commands=board.attempt("the commands of training", commands, board) or [],
        context=board.attempt("what was compared", sentences.context, board) or "",
        questions=board.attempt("the questions", questions, board, ids) or [],
        budgets=board.attempt("the table of budgets", budget_table, board),
        key=[(symbol(series), series) for series in board.series.values()],
        sections=made,
        drawings=drawings,
        left_out=lambda: listed(board.left_out),
        settings=board.attempt("the settings", settings, board) or [],
        machine=board.attempt("the environment", environment_table, board),
        again=board.attempt("the command", command, board.said, out),
        report=f"bitfold report {out}",
        version=bitfold.__version__,
        finished=max((str(row.get("finished") or "") for row in board.rows), default=""),
    )


def read_part(name: str) -> str:
    """A template or style sheet of this folder."""
    return (files("bitfold.report") / name).read_text(encoding="utf-8")


def template_of(name: str) -> "jinja2.Template":
    """A page's template, with the macros that pages share."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FunctionLoader(read_part), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    ).get_template(name)  # fmt: skip


def _drawing(board: Board, chart: Chart) -> "Markup | None":
    """A chart for wide and for narrow screens; None where it cannot be drawn."""
    from markupsafe import Markup

    both = [
        board.attempt(f"the chart of {chart.title}", svg, chart.draw, look, chart.about)
        for look in (WIDE, NARROW)
    ]
    return None if None in both else Markup("".join(text for text in both if text))


def style(text: str) -> str:
    """The style sheet with the colours of both schemes."""
    both = {name: "".join(f"--{k}:{v};" for k, v in colours.items()) for name, colours in (
        ("LIGHT", LIGHT), ("DARK", DARK)
    )}  # fmt: skip
    text = re.sub(r"/\*(LIGHT|DARK)\*/", lambda match: both[match.group(1)], text)
    return re.sub(r"\s*\n\s*", "\n", text)


def questions(board: Board, ids: set[str]) -> list[tuple[str, str, str]]:
    """The five questions that people bring: question, short answer, where it is answered."""
    return [
        ("Which method for my bytes?", sentences.for_my_bytes(board), "quality"),
        ("What do I lose at the tightest budget?", sentences.lost(board), "quality"),
        ("Which field eats the bytes?", sentences.eaters(board), "bytes"),
        (
            "Is the difference real?",
            sentences.is_real(board),
            "differences" if "differences" in ids else "quality",
        ),
        ("How do I run it again?", "One command, at the end of the page.", "again"),
    ]


def budget_table(board: Board) -> Table:
    """The best method of each budget, for the first screen."""
    lines = ([board.full] if board.full else []) + [board.at(each)[0] for each in board.budgets]
    rows = [
        [
            line.budget,
            line.method,
            size(line.means["bytes"]),
            size(whole_bytes(board, line)),
            auc_text(line.means["auc"]),
            share_text(line.kept),
            share_text(line.lift),
        ]
        for line in lines
    ]
    columns = ("budget", "best", "embeddings", "whole model", "AUC", "of full's AUC", "of its lift")
    return Table("The best at each budget", columns, rows, left=2)


def symbol(series: Series) -> "Markup":
    """A method's point as a small drawing."""
    from markupsafe import Markup

    place = 0 if series.whole else 1 + (series.place - 1) % COLOURS
    return Markup(
        f'<svg class="mark" viewBox="-8 -8 16 16" aria-hidden="true">'
        f'<path d="{OUTLINES[shape(series)]}" fill="var(--s{place})"/></svg>'
    )


def _polygon(*corners: tuple[float, float]) -> str:
    return "M" + "L".join(f"{x:g},{y:g}" for x, y in corners) + "Z"


_R = 7 * math.sqrt(3) / 2
OUTLINES = {
    "square": _polygon((-5, -5), (5, -5), (5, 5), (-5, 5)),
    "circle": "M-6,0A6,6 0 1 0 6,0A6,6 0 1 0 -6,0Z",
    "triangle-up": _polygon((-_R, 5), (0, -7), (_R, 5)),
    "triangle-down": _polygon((-_R, -5), (0, 7), (_R, -5)),
    "triangle-right": _polygon((-5, -_R), (7, 0), (-5, _R)),
    "diamond": _polygon((0, -7), (5, 0), (0, 7), (-5, 0)),
    "cross": "M-6,-2H-2V-6H2V-2H6V2H2V6H-2V2H-6Z",
}


def settings(board: Board) -> list[Table]:
    """The options of the comparison, of training and of reading."""
    titles = {"compare": "Comparison", "train": "Training", "data": "Reading"}
    out = []
    for section, title in titles.items():
        values = dict(board.said.get(section) or {})
        if section == "data":  # a prepared log brings its own options
            values = dict(board.rows[0].get("data") or values)
        if section == "train":
            values = {key: value for key, value in values.items() if key not in CELL}
        rows = [[name.replace("_", " "), text_of(value)] for name, value in values.items()]
        if rows:
            out.append(Table(title, ("option", "value"), rows, left=2))
    options = {
        str(row["method"]): text_of(row.get("options")) for row in board.rows if row.get("options")
    }
    if options:
        rows = [[name, text] for name, text in options.items()]
        out.append(Table("Options of the methods", ("method", "options"), rows, left=2))
    return out


def environment_table(board: Board) -> Table:
    """Versions and machine of the runs; several, where they differ."""
    found: dict[str, list[str]] = {}
    for row in board.rows:
        values: dict[str, Any] = {**(row.get("versions") or {}), **(row.get("environment") or {})}
        for name, value in values.items():
            text = text_of(value)
            if text not in found.setdefault(name, []):
                found[name].append(text)
    rows: Sequence[Sequence[str]] = [[name, " and ".join(texts)] for name, texts in found.items()]
    return Table("Environment", ("what", "value"), rows, left=2)


__all__ = ["Section", "page"]
