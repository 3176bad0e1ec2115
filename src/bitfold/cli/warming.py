"""`bitfold warm`: kernels compiled ahead."""

import click

from bitfold.bars import drawing
from bitfold.cli.options import ConfigCommand
from bitfold.cli.tables import show


@click.command(cls=ConfigCommand, short_help="Compile the kernels of scoring ahead.")
@click.argument("runs", nargs=-1, metavar="[RUN...]", type=click.Path())
@click.option(
    "--all", "everything", is_flag=True, help="Other widths and bits, too, and training: minutes."
)
def warm(runs: tuple[str, ...], everything: bool) -> None:
    """Compile the kernels that score RUN ahead, so that later processes only read them.

    They are kept in NUMBA_CACHE_DIR if it is set, else beside the package. Without RUN those of the
    usual forms are compiled: vectors of 16 numbers in 32, 8 and 4 bits.

    \b
    bitfold warm RUN
    """
    from bitfold.training.ahead import warm as compile_ahead

    with drawing() as progress:
        done = compile_ahead(runs, everything=everything, progress=progress)
    kinds = ", ".join(f"{count} {name}" for name, count in done.kinds.items())
    told = f"compiled {kinds}" if done.made else "nothing to compile"
    show(f"{done.folder}: {told}; {done.there} others are there; {done.seconds:.1f} s")
