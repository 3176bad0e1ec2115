"""`bitfold train`, `evaluate` and `predict`: make a run, measure it, use it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from bitfold.bars import drawing
from bitfold.cli.options import (
    ConfigCommand,
    build,
    file_options,
    options,
    read_config,
    reading_options,
)
from bitfold.cli.plugins import plugins
from bitfold.cli.tables import cold_figures, metrics_table, show
from bitfold.comparison.board import ranking_figures
from bitfold.comparison.floors import below
from bitfold.data.asked import OPTIONS, check_settled
from bitfold.data.config import DataConfig
from bitfold.errors import BitfoldError
from bitfold.files import without_nan
from bitfold.progress import is_first_process
from bitfold.runs.cold import ColdConfig
from bitfold.runs.options import TrainConfig
from bitfold.runs.teaching import TeacherConfig
from bitfold.settings import options_of, said

CONFIG = "config.json"
RANKED = ("rank", "rank_at", "rank_items", "rank_seen", "rank_users")
SHOWN = (
    *("auc", "logloss", "gauc", "calibration", "ece", "ranking", "bytes", "ratio", "map_bytes"),
    *("training_bytes", "rows_per_second", "epochs", "best_epoch", "seconds"),
)


@click.command(cls=ConfigCommand, short_help="Train a click model.")
@click.argument("data", nargs=-1, metavar="DATA...")
@click.option("--out", required=True, metavar="RUN", help="The run to write.")
@click.option("--resume", is_flag=True, help="Go on with the training in --out that was stopped.")
@click.option(
    "--from", "from_run", metavar="RUN", help="Begin with this run's weights: the next day's log."
)
@click.option("--force", is_flag=True, help="Replace the run in --out.")
@options(TrainConfig, TeacherConfig, ColdConfig, DataConfig)
@plugins
def train(
    data: tuple[str, ...],
    out: str,
    resume: bool,
    from_run: str | None,
    force: bool,
    config_file: str | None,
    **given: Any,
) -> None:
    """Train a click model whose embeddings fit in a byte budget, and save it as a run.

    DATA is a prepared log, or raw files read as `bitfold prepare` reads them. With --resume, what
    is not said is as it was; with --from, it is as that run has it, but for --teacher and --cold.

    \b
    bitfold train clicks.csv.gz --label 'rating>=4' --fields user,item,age --group user \\
        --split random:0.8,0.1,0.1 --method binary-code --budget 10x --width 16 \\
        --network deepfm --epochs 8 --batch-size 2048 --lr 1e-3 --seed 0 --out RUN
    """
    kinds = (TrainConfig, TeacherConfig, ColdConfig, DataConfig)
    known = [name for kind in kinds for name in options_of(kind)]
    saved, paths = _saved(out, from_run, known, resume=resume)
    data = data or paths
    file = saved | file_options(config_file, known)
    if not data and is_first_process():
        raise BitfoldError(
            "there is no log to train on", expected="DATA: raw files, or a prepared log"
        )
    config = build(TrainConfig, given, file)
    taught = build(TeacherConfig, given, file)
    cold = build(ColdConfig, given, file)
    reading = build(DataConfig, given, file)
    check_settled(data, said(DataConfig, given))

    from bitfold.training import train as run

    with drawing() as progress:
        result = run(
            data,
            reading,
            config,
            out,
            resume=resume,
            force=force,
            from_run=from_run,
            taught=taught,
            cold=cold,
            progress=progress,
        )
    figures = {name: result.metrics[name] for name in SHOWN if result.metrics.get(name) is not None}
    figures |= cold_figures(result.metrics)
    popular = result.metrics.get("floors", {}).get("popularity")
    show(
        *below(result.metrics, popular),
        metrics_table(f"{out}: {config.method}, {config.network}{taught.told}{cold.told}", figures),
        *_by_popularity(popular),
    )
    show(f"next: bitfold predict {out} ROWS --out scores.parquet")


def _saved(
    out: str, from_run: str | None, known: Sequence[str], *, resume: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What config.json says of the training to resume, or of the run of --from; and its log.

    Of several processes the first alone must find it: what it says is what all of them do.
    """
    from bitfold.runs.config import RunConfig
    from bitfold.training.folder import under_way

    try:
        begun = under_way(Path(out)) / CONFIG if resume else None
        if begun is not None and begun.is_file():
            paths = RunConfig.load(begun).paths
            return read_config(str(begun), known), paths
        base = None if from_run is None else Path(from_run) / CONFIG
        if base is not None and base.is_file():
            found = read_config(str(base), known)
            # The base's teacher does not teach on, and its prototypes are not made on.
            left = options_of(TeacherConfig).keys() | options_of(ColdConfig).keys()
            return {name: value for name, value in found.items() if name not in left}, ()
    except BitfoldError:
        if is_first_process():
            raise
    return {}, ()


def _by_popularity(popular: Mapping[str, Any] | None) -> list[Table]:
    """The table of popularity's ranking, if anything was ranked."""
    ranked = ranking_figures(popular or {})
    return [metrics_table("Ranking by popularity", ranked)] if ranked else []


@click.command(cls=ConfigCommand, short_help="Measure a run.")
@click.argument("run", metavar="RUN")
@click.argument("data", nargs=-1, required=True, metavar="DATA...")
@click.option(
    "--part",
    default="test",
    metavar="PART",
    help="Of a prepared log: train, valid or test; raw files are measured whole.  [default: test]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@options(TrainConfig, without=[name for name in options_of(TrainConfig) if name not in RANKED])
@reading_options
@plugins
def evaluate(
    run: str,
    data: tuple[str, ...],
    part: str,
    as_json: bool,
    config_file: str | None,
    **given: Any,
) -> None:
    """Measure a run on a log with labels: AUC, log loss, GAUC, calibration.

    DATA is a prepared log (its part) or raw files (all rows): the fields and the label in any
    order; other columns are not looked at. `-` is standard input. With --rank, DATA is the
    prepared log that the run was trained on: all items are ranked for each user.

    \b
    bitfold evaluate RUN log --rank item --rank-at 10,20
    """
    from bitfold.runs.folder import load

    ranking = build(TrainConfig, given, file_options(config_file, RANKED)).ranking
    reading = {name: value for name, value in given.items() if name in OPTIONS}
    with drawing() as progress:
        figures = load(run).evaluate(
            list(data), part, ranking=ranking, progress=progress, **reading
        )
    if as_json:
        click.echo(json.dumps(without_nan(figures), indent=1))
        return
    popular = figures.pop("floors", {}).get("popularity")
    show(
        *below(figures, popular),
        metrics_table(f"{run} on {' '.join(data)}", figures),
        *_by_popularity(popular),
    )


@click.command(cls=ConfigCommand, short_help="Score raw rows.")
@click.argument("run", metavar="RUN")
@click.argument("data", nargs=-1, required=True, metavar="DATA...")
@click.option(
    "--out",
    required=True,
    metavar="FILE",
    help="x.parquet, x.csv or x.csv.gz; - writes CSV to stdout.",
)
@click.option(
    "--keep",
    default="",
    metavar="NAMES",
    help="Columns of DATA to carry along, as they are, before the score: user,item.",
)
@click.option("--force", is_flag=True, help="Replace --out if it exists.")
@reading_options
@plugins
def predict(
    run: str, data: tuple[str, ...], out: str, keep: str, force: bool, **reading: Any
) -> None:
    """Score raw rows with a run: a column `score`, one for each row, in the input's order.

    DATA needs the run's fields alone, in any order; no label, weight, time or user is needed, and
    other columns are not looked at. Values never seen in training work. `-` is standard input.

    \b
    bitfold predict RUN rows.csv.gz --out scores.parquet --keep user,item
    zcat rows.csv.gz | bitfold predict RUN - --out - > scores.csv
    """
    from bitfold.runs.predict import predict as score

    names = [name.strip() for name in keep.split(",") if name.strip()]
    with drawing() as progress:
        rows = score(run, list(data), out, keep=names, force=force, progress=progress, **reading)
    if out != "-":
        show(f"{out}: {rows:,} scores")
