"""`bitfold delta` and `apply`: what changed between two runs, and the new run made of it."""

import click

from bitfold.cli.options import ConfigCommand
from bitfold.cli.tables import show


@click.command(cls=ConfigCommand, short_help="Write what changed between two runs.")
@click.argument("old", metavar="OLD", type=click.Path())
@click.argument("new", metavar="NEW", type=click.Path())
@click.option("--out", required=True, metavar="FILE", help="The delta to write.")
@click.option("--force", is_flag=True, help="Replace --out if it exists.")
def delta(old: str, new: str, out: str, force: bool) -> None:
    """Write what changed from the run OLD to the run NEW as one small file.

    Of tables of the same shape it has the rows that changed. `bitfold apply OLD FILE` makes NEW of
    it, to the byte.

    \b
    bitfold delta monday tuesday --out tuesday.delta
    """
    from bitfold.runs.delta import delta as write

    made = write(old, new, out, force=force)
    show(
        f"{out}: {made.bytes:,} bytes, {made.bytes / made.run_bytes:.1%} of the run's "
        f"{made.run_bytes:,}; {made.same} of {made.files} files are the same",
        f"next: bitfold apply {old} {out} --out RUN",
    )


@click.command(cls=ConfigCommand, short_help="Make the new run of an old one and a delta.")
@click.argument("run", metavar="RUN")
@click.argument("file", metavar="FILE")
@click.option("--out", required=True, metavar="RUN", help="The new run to write.")
@click.option("--force", is_flag=True, help="Replace the run in --out.")
def apply(run: str, file: str, out: str, force: bool) -> None:
    """Make the new run of RUN and of FILE, which `bitfold delta` wrote.

    The new run appears when every file of it is the one that FILE was made of, to the byte. A delta
    of another run than RUN is refused.

    \b
    bitfold apply monday tuesday.delta --out tuesday
    """
    from bitfold.runs.delta import apply as make

    made = make(run, file, out, force=force)
    show(f"{made}: the run of {file}, to the byte")
