"""The page of a comparison: one HTML file that anybody can open, or pictures for slides.

reading     what results.json and compare.json say, put in order
words       what was found, in sentences
look        colours, shapes, sizes, and the pieces that charts share
charts      quality, training curves, frequencies of ids, differences
parts       bytes, collapse, speed, unseen ids, the grid
sections    words, chart and table of each section
again       the command that makes the comparison again
drawing     charts as SVG and PNG
page        the page itself, with page.html and page.css

Everything follows from results.json and compare.json; nothing is trained or measured here.
"""

from pathlib import Path

from bitfold.outputs import new_file
from bitfold.report.drawing import INSTALL, check_packages, missing

PAGE = "board.html"

__all__ = ["INSTALL", "PAGE", "check_packages", "missing", "write_page", "write_pictures"]


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


def write_pictures(out: Path) -> list[Path]:
    """Write one PNG for each chart into `out`, and return their paths.

    Raises:
        BitfoldError: as `write_page`.
    """
    from bitfold.report.drawing import png
    from bitfold.report.look import SLIDE
    from bitfold.report.reading import read_board
    from bitfold.report.sections import sections

    check_packages()
    board = read_board(out)
    paths = []
    for section in sections(board):
        for made in section.parts:
            if made.chart is None:
                continue
            path = out / f"board-{made.chart.name}.png"
            with new_file(path, force=True, wait=True) as part:
                part.write_bytes(png(made.chart.draw(SLIDE), SLIDE, made.chart.title))
            paths.append(path)
    return paths
