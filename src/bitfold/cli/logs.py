"""`bitfold prepare` and `bitfold synth`: logs before training. Nothing here needs torch."""

from typing import TYPE_CHECKING, Any

import click

from bitfold.bars import drawing
from bitfold.cli.options import ConfigCommand, build, file_options, options
from bitfold.cli.tables import figure, show, table
from bitfold.data.config import DataConfig
from bitfold.data.synth.log import SynthConfig
from bitfold.errors import BitfoldError
from bitfold.notes import note
from bitfold.progress import reading
from bitfold.settings import options_of

if TYPE_CHECKING:
    from bitfold.data.prepared import PreparedLog

VALUE_WIDTH = 32


@click.command(cls=ConfigCommand, short_help="Write a prepared log.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--out", required=True, metavar="DIR", help="The prepared log to write.")
@click.option("--force", is_flag=True, help="Replace --out if it exists.")
@options(DataConfig)
def prepare(
    inputs: tuple[str, ...], out: str, force: bool, config_file: str | None, **given: Any
) -> None:
    """Read raw logs once and write a prepared log: ids hashed, rows dealt to train, valid, test.

    INPUT is one or more files or patterns: CSV, TSV or Parquet, also .gz or .zst.

    \b
    bitfold prepare clicks.csv.gz --label 'rating>=4' --fields user,item,age \\
        --group user --split random:0.8,0.1,0.1 --out log
    bitfold prepare train.txt --format sequences --negatives 4 --split last:1,1 --out log
    """
    from bitfold.data.prepare import negatives_told
    from bitfold.data.prepare import prepare as run

    config = build(DataConfig, given, file_options(config_file, list(options_of(DataConfig))))
    with drawing() as progress:
        log = run(inputs, out, config, force=force, progress=reading(progress))
    for text in _part_notes(log):
        note(text)
    rows = ", ".join(f"{count:,} {part}" for part, count in log.rows.items())
    columns = ("field", "distinct ids", "missing", "unseen in test", "most frequent")
    made = table(f"{out}: {rows}", columns)
    for name, stats in log.stats["fields"].items():
        about = "" if stats["exact"] else "about "
        unseen = stats.get("unseen", {}).get("test")
        made.add_row(
            name,
            about + figure("distinct", stats["distinct"]),
            figure("missing", stats["missing"]),
            "-" if unseen is None else f"{unseen:.1%}",
            _head(stats.get("head"), log.rows["train"]),
        )
    show(made, *negatives_told(log))


def _part_notes(log: "PreparedLog") -> list[str]:
    """What training on the log would stumble over: parts that are empty or of one class."""
    from bitfold.training.parts import check_parts

    try:
        return check_parts(log)
    except BitfoldError as error:
        return [error.problem]


def _head(head: list[dict[str, Any]] | None, rows: int) -> str:
    """The most frequent value and its share of the training rows."""
    if not head or not rows:
        return "-"
    top = head[0]
    value = top.get("value", f"id {top['id'] % 2**64:x}")
    value = "(missing)" if value is None else str(value)
    return f"{value[:VALUE_WIDTH]} ({top['count'] / rows:.1%})"


@click.command(cls=ConfigCommand, short_help="Write a synthetic click log.")
@click.option(
    "--out",
    required=True,
    metavar="PATH",
    help="x.parquet, x.csv, x.csv.gz or x.csv.zst; without a suffix a directory of shards.",
)
@click.option("--force", is_flag=True, help="Replace --out if it exists.")
@options(SynthConfig)
def synth(out: str, force: bool, config_file: str | None, **given: Any) -> None:
    """Write a synthetic click log of any size; the best AUC that any model could reach is known.

    \b
    bitfold synth --rows 1e6 --ids 2e6 --out clicks.parquet
    """
    from bitfold.data.synth.log import synthesize

    config = build(SynthConfig, given, file_options(config_file, list(options_of(SynthConfig))))
    with drawing() as progress:
        report = synthesize(
            config, out, force=force, progress=lambda done, total: progress(out, done, total)
        )
    seconds = max(report.seconds, 1e-9)
    show(
        f"{out}: {report.rows:,} rows, {sum(report.distinct.values()):,} distinct ids, "
        f"{report.positive_rate:.1%} clicked, {report.rows / seconds:,.0f} rows/s\n"
        f"best AUC that any model could reach: {report.bayes_auc:.4f}"
    )
