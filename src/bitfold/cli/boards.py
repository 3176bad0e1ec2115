"""`bitfold compare` and `bitfold report`: methods at equal bytes on one log, and their page."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bitfold.bars import drawing
from bitfold.cli.compared import differences_table, grid_note, grid_table, unseen_note
from bitfold.cli.options import ConfigCommand, build, file_options, options
from bitfold.cli.plugins import plugins
from bitfold.cli.tables import board_table, is_narrow, show
from bitfold.comparison.config import CompareConfig
from bitfold.data.asked import check_settled
from bitfold.data.config import DataConfig
from bitfold.runs.options import TrainConfig
from bitfold.settings import options_of, said

if TYPE_CHECKING:
    from bitfold.comparison.compare import Comparison

CELL = ("method", "budget")  # each cell's own: said by --methods and --budgets


@click.command(cls=ConfigCommand, short_help="Compare methods at equal bytes.")
@click.argument("data", nargs=-1, required=True, metavar="DATA...")
@click.option("--out", required=True, metavar="DIR", help="Where the results are written.")
@click.option("--resume", is_flag=True, help="Go on with --out: finished cells are kept.")
@click.option("--force", is_flag=True, help="Replace the comparison in --out.")
@options(CompareConfig, TrainConfig, DataConfig, without=CELL)
@plugins
def compare(
    data: tuple[str, ...],
    out: str,
    resume: bool,
    force: bool,
    config_file: str | None,
    **given: Any,
) -> None:
    """Train methods at equal bytes on one log with one split, and table quality against bytes.

    DATA is a prepared log, or raw files read as `bitfold prepare` reads them. `full` is the
    full table at its best epoch; it appears once, as budget 1x. Options of a method:
    `--set blocks=3` (each method that has it), `--set binary-code.blocks=3` (that method), or
    in the list itself, `--methods hash,binary-code:strategy=skip`.

    \b
    bitfold compare clicks.csv.gz --label 'rating>=4' --fields user,item,age \\
        --methods full,hash,binary-code --budgets 10x,100x --seeds 3 --out board
    """
    from bitfold.comparison.compare import compare as run
    from bitfold.report import page_of

    kinds = (CompareConfig, TrainConfig, DataConfig)
    file = file_options(config_file, [name for kind in kinds for name in options_of(kind)])
    file = {name: value for name, value in file.items() if name not in CELL}
    board = build(CompareConfig, given, file)
    training = build(TrainConfig, given, file)
    reading = build(DataConfig, given, file)
    check_settled(data, said(DataConfig, given))
    with drawing(keep=("cells",)) as progress:
        found = run(
            data,
            reading,
            training,
            board,
            out,
            resume=resume,
            force=force,
            progress=progress,
            page=page_of,
        )
    grid = found.more["grid"]
    differences, narrow = found.more["differences"], is_narrow()
    page = f"page: {found.page}" if found.page else no_page(found.out, found.page_problem)
    show(
        board_table("Quality at equal bytes", found.lines, narrow=narrow),
        *([differences_table(differences, narrow=narrow)] if differences else []),
        *[grid_table(grid)] * grid["searched"],
        grid_note(grid),
        unseen_note(found.more["unseen"]),
        f"results: {found.out}/results.json, {found.out}/results.csv",
        *([page] if page else []),
        *_decision(found),
    )


def _decision(found: "Comparison") -> list[str]:
    """What to take, as the page says it first; nothing where no cell could be built."""
    from bitfold.report.decision import decision
    from bitfold.report.reading import Board

    board = Board(found.results, found.refused, found.more)
    if not board.lines:
        return []
    first, notes = decision(board)
    return ["", first, *notes]


def no_page(out: Path, problem: str | None = None) -> str | None:
    """How to get the page; None if nothing is missing but figures."""
    from bitfold.report import INSTALL, missing

    if problem is not None:
        again = f"the results are whole; `bitfold report {out}` tries again"
        return f"warning: no page: {problem}\n{again}"
    return f"no page: {INSTALL}, then bitfold report {out}" if missing() else None


@click.command(cls=ConfigCommand, short_help="Make the page of a comparison or stream again.")
@click.argument("out", metavar="OUT")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["html", "png"]),
    default="html",
    show_default=True,
    help="html: one page that needs nothing else; png: a picture of each chart, for slides.",
)
def report(out: str, kind: str) -> None:
    """Make the page of a comparison or a stream from its figures, without training.

    OUT is what `bitfold compare` or `bitfold stream` wrote; what is not finished gives a page of
    what is there.

    \b
    bitfold report board
    bitfold report board --format png
    """
    from bitfold.report import write_page, write_pictures
    from bitfold.report.stream_page import (
        write_stream_page,
        write_stream_pictures,
        write_streams_page,
    )
    from bitfold.streaming.record import FILE
    from bitfold.streaming.several import runs_in

    folder = Path(out)
    if (folder / FILE).is_file():
        paths = [write_stream_page(folder)] if kind == "html" else write_stream_pictures(folder)
    elif kind == "html" and runs_in(folder):
        paths = [write_streams_page(runs_in(folder), folder)]
    else:
        paths = [write_page(folder)] if kind == "html" else write_pictures(folder)
    show(*(f"{'page' if kind == 'html' else 'picture'}: {path}" for path in paths))
