"""What is written beside a file with `--text`: all that turns raw values into its inputs."""

from pathlib import Path
from typing import TYPE_CHECKING

from bitfold.errors import BitfoldError

if TYPE_CHECKING:
    from bitfold.runs.run import Run

ENDING = ".json"


def write_beside(run: "Run", file: Path, out: Path) -> None:
    """Write a run's schema for an exported file.

    Args:
        run: what was exported.
        file: the file, as it is before it takes its place.
        out: where the schema goes.
    """
    raise BitfoldError("schemas beside exported files are not written yet", got=str(run.path))
