"""`bitfold retrieve`: two towers, the vectors of users and items, an index."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from bitfold.bars import drawing
from bitfold.cli.options import ConfigCommand, build, file_options, options, read_config
from bitfold.cli.plugins import plugins
from bitfold.cli.tables import metrics_table, show
from bitfold.data.asked import check_settled
from bitfold.data.config import DataConfig
from bitfold.errors import BitfoldError
from bitfold.retrieval.options import RetrieveConfig
from bitfold.settings import options_of, said

SHOWN = (
    *("users", "items", "bytes", "ratio", "towers_bytes", "map_bytes", "index_bytes"),
    *("item_bytes", "index_overlap", "training_bytes", "rows_per_second", "epochs", "best_epoch"),
    "seconds",
)


@click.command(cls=ConfigCommand, short_help="Train two towers for retrieval.")
@click.argument("data", nargs=-1, metavar="DATA...")
@click.option("--out", required=True, metavar="RUN", help="The retriever to write.")
@click.option("--resume", is_flag=True, help="Go on with the training in --out that was stopped.")
@click.option("--force", is_flag=True, help="Replace the retriever in --out.")
@options(RetrieveConfig, DataConfig)
@plugins
def retrieve(
    data: tuple[str, ...],
    out: str,
    resume: bool,
    force: bool,
    config_file: str | None,
    **given: Any,
) -> None:
    """Train a tower of users and one of items within a byte budget, and index the items.

    DATA is a prepared log, or raw files read as `bitfold prepare` reads them: what users took,
    with the user (--group) and the item (--item). All items are ranked for each user of the test
    part, exactly and as the index finds them.

    \b
    bitfold retrieve train.txt --format sequences --split last:1,1 --budget 10x --out RUN
    bitfold retrieve log --method hash --budget 64MiB --memory adaptive --index hnsw --out RUN
    """
    kinds = (RetrieveConfig, DataConfig)
    known = [name for kind in kinds for name in options_of(kind)]
    saved, paths = _saved(out, known) if resume else ({}, ())
    data = data or paths
    file = saved | file_options(config_file, known)
    if not data:
        raise BitfoldError(
            "there is no log to train on", expected="DATA: raw files, or a prepared log"
        )
    config, reading = build(RetrieveConfig, given, file), build(DataConfig, given, file)
    check_settled(data, said(DataConfig, given))

    from bitfold.retrieval.job import retrieve as run

    with drawing() as progress:
        found = run(data, reading, config, out, resume=resume, force=force, progress=progress)
    figures = found.metrics
    few = [metrics_table("By clicks", _by_clicks(figures))] if "by_clicks" in figures else []
    show(
        metrics_table(f"{out}: {config.method}, two towers", _ranked(figures)),
        *few,
        metrics_table("Sizes and speed", {name: figures.get(name) for name in SHOWN}),
    )


def _saved(out: str, known: list[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What config.json says of the training to resume, and its log."""
    from bitfold.outputs import under_way
    from bitfold.retrieval.folder import RETRIEVER, RunConfig
    from bitfold.runs.manifest import CONFIG

    begun = under_way(out, RETRIEVER)
    if begun is None:
        return {}, ()
    found = RunConfig.load(begun / CONFIG)
    return read_config(str(Path(begun / CONFIG)), known), found.paths


def _by_clicks(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of test pairs by the clicks of their items in training."""
    return {
        f"{clicks} clicks: {name}": value
        for clicks, values in figures["by_clicks"].items()
        for name, value in values.items()
    }


def _ranked(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of the rankings: all items, what the index finds, popularity."""
    names = [name for name in figures if name.startswith(("recall@", "ndcg@", "mrr"))]
    shown: dict[str, Any] = {name: figures[name] for name in names}
    shown |= {f"index {name}": figures.get(f"index_{name}") for name in names}
    popular = figures.get("popularity", {})
    return shown | {f"popularity {name}": popular.get(name) for name in names}
