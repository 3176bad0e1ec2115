"""What is written beside a file with `--text`: all that turns raw values into its inputs.

`bitfold.data.rules_json` says what is in it; `bitfold.lite` reads it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import bitfold
from bitfold.data.rules_json import to_text
from bitfold.files import sha256

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
    text = to_text(
        run.schema, run.dense, digest=run.digest, file=sha256(file), version=bitfold.__version__
    )
    out.write_text(text, encoding="ascii")
