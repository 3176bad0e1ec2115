"""`bitfold export`: a run as one file for another runtime."""

import click

from bitfold.cli.plugins import plugins
from bitfold.cli.tables import show


@click.command(short_help="Write a run as one file that another runtime scores.")
@click.argument("run", metavar="RUN")
@click.option("--to", default="onnx", metavar="FORMAT", show_default=True, help="onnx.")
@click.option("--out", required=True, metavar="FILE", help="The file to write: model.onnx.")
@click.option(
    "--text",
    is_flag=True,
    help="Write what turns raw values into ids and numbers beside it, as FILE.json.",
)
@click.option("--force", is_flag=True, help="Replace --out if it exists.")
@plugins
def export(run: str, to: str, out: str, text: bool, force: bool) -> None:
    """Write a run as one file: ids and numbers in, scores out, with the run's own numbers.

    The file is run by its own runtime and held against the run before it takes its place. Tables
    of few bits are in it as they are served.

    \b
    bitfold export RUN --to onnx --out model.onnx
    """
    from bitfold.exporting import export as write

    path = write(run, out, to, text=text, force=force)
    show(f"{out}: {path.stat().st_size:,} bytes")
