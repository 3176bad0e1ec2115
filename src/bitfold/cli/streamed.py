"""`bitfold stream`: a log in time order, each window scored before it is trained on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from bitfold.bars import drawing
from bitfold.cli.options import ConfigCommand, build, file_options, options, read_config
from bitfold.cli.plugins import plugins
from bitfold.cli.tables import is_narrow, show, size, table
from bitfold.data.config import DataConfig
from bitfold.errors import BitfoldError
from bitfold.runs.options import TrainConfig
from bitfold.settings import options_of
from bitfold.streaming.config import WITHOUT, StreamConfig
from bitfold.streaming.record import Course, Line

KINDS = (StreamConfig, TrainConfig, DataConfig)


@click.command(cls=ConfigCommand, short_help="Score and train on a log window by window.")
@click.argument("data", nargs=-1, metavar="LOG...")
@click.option("--out", required=True, metavar="RUN", help="The run to write.")
@click.option("--resume", is_flag=True, help="Go on with the stream in --out that was stopped.")
@click.option("--force", is_flag=True, help="Replace the run in --out.")
@click.option(
    "--strategies",
    metavar="A,B,...",
    help="Go through the log once with each of these, into OUT/NAME, and draw one page of all.",
)
@options(*KINDS, without=WITHOUT)
@plugins
def stream(
    data: tuple[str, ...],
    out: str,
    resume: bool,
    force: bool,
    strategies: str | None,
    config_file: str | None,
    **given: Any,
) -> None:
    """Go through a log in time order: each window is first scored, then trained on.

    LOG is raw files in time order. RUN/stream.json gets a line a window, as it ends: quality,
    bytes to serve, the share of new ids, how many rows changed their owners. RUN/stream.html is
    the page; at the end RUN is a run like any other. With --resume, what is not said is as it was.

    \b
    bitfold stream clicks/*.csv.gz --label clicked --fields user,item --time time --window 1d \\
        --method cafe --budget 10MiB --out RUN
    """
    from bitfold.cli.strategies import names_of, run_strategies
    from bitfold.report import stream_page_of
    from bitfold.streaming import stream as run

    known = [name for kind in KINDS for name in options_of(kind)]
    names = None if strategies is None else names_of(strategies, given.get("strategy"))
    saved, paths = _saved(out, names, known) if resume else ({}, ())
    file = saved | file_options(config_file, known)
    file = {name: value for name, value in file.items() if name not in WITHOUT}
    data = data or paths
    if not data:
        raise BitfoldError("there is no log to go through", expected="LOG: raw files, in order")
    words = build(DataConfig, given, file), build(TrainConfig, given, file)
    stream_words = build(StreamConfig, given, file)
    if names is not None:
        run_strategies(names, data, (*words, stream_words), out, resume=resume, force=force)
        return
    with drawing(keep=("windows",)) as progress:
        found = run(
            data,
            *words,
            stream_words,
            out,
            resume=resume,
            force=force,
            progress=progress,
            page=stream_page_of,
        )
    course = found.course
    show(
        stream_table(f"{out}: {course.title}", course, narrow=is_narrow()),
        *_told(course),
        *([f"page: {found.page}"] if found.page else []),
        f"next: bitfold predict {out} ROWS --out scores.parquet",
    )


def _saved(
    out: str, names: Sequence[str] | None, known: Sequence[str]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What the stream to resume, or the first of some strategies, was begun with; and its log."""
    from bitfold.streaming.several import runs_in

    if names is not None:
        said = (_begun_with(str(Path(out) / name), known) for name in names)
        return next((found for found in said if found[1]), ({}, ()))
    found = _begun_with(out, known)
    if not found[1] and (several := runs_in(Path(out))):
        raise BitfoldError(
            f"{out} has a stream of each strategy",
            got=", ".join(path.name for path in several),
            expected="one stream",
            fix=f"say --strategies {','.join(path.name for path in several)}",
        )
    return found


def _begun_with(out: str, known: Sequence[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    from bitfold.runs.manifest import CONFIG
    from bitfold.streaming.expand import without_heads
    from bitfold.streaming.folder import begun
    from bitfold.training.folder import under_way

    found = begun(Path(out))
    if found is None:
        return {}, ()
    config, record = found
    said = read_config(str(under_way(Path(out)) / CONFIG), known)
    said["network_set"] = without_heads(said["network_set"])
    said |= {"window": record.window, "passes": record.passes}
    return said | dict(record.beside), config.paths


def stream_table(title: str, course: Course, *, narrow: bool = False) -> Table:
    """A stream, a line a window."""
    names = ["window", "rows", "AUC", "log loss", "new values", "churn", "bytes"]
    made = table(title, names if narrow else [*names, "training bytes", "rows/s"], left=1)
    for line in course.lines:
        texts = [line.window, f"{line.rows:,}", *_figures(line)]
        made.add_row(*(texts[:7] if narrow else texts))
    return made


def _figures(line: Line) -> list[str]:
    def text(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    def weight(value: int | None) -> str:
        return "-" if value is None else size(value)

    return [
        text(line.auc, ".4f"),
        text(line.logloss, ".4f"),
        text(line.new_values, ".1%"),
        text(line.churn, ".1%"),
        weight(line.bytes),
        weight(line.training_bytes),
        text(line.rows_per_second, ",.0f"),
    ]


def _told(course: Course) -> list[str]:
    """What the whole came to."""
    if course.logloss is None or course.most_bytes is None:
        return ["no window was scored: a stream needs two, with clicks and without"]
    if course.auc is None:
        return [f"no window has an AUC: each is of one class; log loss {course.logloss:.4f}"]
    budget = "" if course.budget_bytes is None else f" of a budget of {course.budget_bytes:,}"
    held = "in all" if course.memory == "aligned" else "to serve"
    return [
        f"mean AUC {course.auc:.4f} over {len(course.scored)} windows, log loss "
        f"{course.logloss:.4f}; at most {course.most_bytes:,} bytes {held}{budget}"
    ]
