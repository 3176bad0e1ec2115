"""The page of a comparison, or of a stream: one HTML file that anybody can open, or pictures.

reading     what results.json and compare.json say, put in order
sentences   what was found, in sentences
look        colours, shapes, sizes, and the pieces that charts share
quality     the chart of quality against bytes
curves      of quality over epochs
frequencies  of quality by how often an id was met
differences  of differences between methods
sizes       of bytes
parts       of collapse, speed and the grid
layout      what a section is made of
findings    the sections of quality and differences
sections    all sections, in order
again       the command that makes the comparison again
figures     which figures can be drawn; what cannot is left out, with a note
drawing     charts as SVG and PNG
renderer    the process that draws them, which may die without ours
page        the page itself, with page.html, macros.html and page.css
stream_charts, stream_page   the page of a stream, from its stream.json, with stream.html

Everything follows from results.json and compare.json; nothing is trained or measured here.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bitfold.errors import BitfoldError
from bitfold.outputs import new_file
from bitfold.report.drawing import INSTALL, check_packages, missing
from bitfold.report.figures import listed

if TYPE_CHECKING:
    from bitfold.report.layout import Chart

PAGE = "board.html"

__all__ = [
    "INSTALL",
    "PAGE",
    "check_packages",
    "missing",
    "page_of",
    "stream_page_of",
    "write_page",
    "write_pictures",
]


def write_page(out: Path, name: Path | None = None) -> Path:
    """Write `out/board.html` from the figures in `out`, and return its path.

    `name` is what the folder will be called, where it is not in its place yet.

    Raises:
        BitfoldError: `out` holds no comparison with a finished run, or a package is missing.
    """
    from bitfold.report.page import page
    from bitfold.report.reading import read_board

    check_packages()
    text = page(read_board(out), str(name or out))
    with new_file(out / PAGE, force=True, wait=True) as part:
        part.write_text(text, encoding="utf-8")
    return out / PAGE


def page_of(out: Path, name: Path) -> Path | None:
    """As `write_page`; None without the packages that draw."""
    return None if missing() else write_page(out, name)


def write_pictures(out: Path) -> list[Path]:
    """Write one PNG for each chart into `out`, and return their paths.

    Raises:
        BitfoldError: as `write_page`.
    """
    from bitfold.report.reading import read_board
    from bitfold.report.sections import sections

    check_packages()
    board = read_board(out)
    paths = []
    for chart in [part.chart for section in sections(board) for part in section.parts]:
        if chart is None:
            continue
        draw = partial(_picture, chart)
        picture = board.attempt(f"the chart of {chart.title}", draw)
        if picture is not None:
            path = out / f"board-{chart.name}.png"
            with new_file(path, force=True, wait=True) as part:
                part.write_bytes(picture)
            paths.append(path)
    if board.left_out and not paths:
        raise BitfoldError(
            f"no chart of {out} can be drawn",
            got="; ".join(listed(board.left_out, 3)),
            expected="figures that can be drawn",
        )
    return paths


def _picture(chart: "Chart") -> bytes:
    from bitfold.report.drawing import png
    from bitfold.report.look import SLIDE

    return png(chart.draw(SLIDE), SLIDE, chart.title)


def stream_page_of(out: Path, name: Path) -> Path | None:
    """Write the page of the stream in `out`; None without the packages that draw."""
    from bitfold.report.stream_page import write_stream_page

    return None if missing() else write_stream_page(out, name)
