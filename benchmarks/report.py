"""What every benchmark prints and writes alike: tables, machine, JSON."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import bitfold
from bitfold.comparison.machine import machine as described

Row = dict[str, Any]


def table(title: str, heads: list[str]) -> Table:
    """A table whose first column is text and whose others are numbers."""
    made = Table(title=title, title_justify="left")
    for place, head in enumerate(heads):
        made.add_column(head, justify="right" if place else "left")
    return made


def spread(low: float, high: float) -> str:
    """Two quartiles."""
    digits = 2 if high < 100 else 0
    return f"{low:.{digits}f} - {high:.{digits}f}"


def faster(many: float) -> str:
    """How many times faster."""
    return f"{many:.1f}x" if many >= 1 else f"{many:.2f}x"


def mebibytes(size: float) -> str:
    """Bytes in MiB."""
    return f"{size / 2**20:,.0f}"


def machine(**words: Any) -> Row:
    """What the figures hold for."""
    return {**described(), "bitfold": bitfold.__version__, **words}


def write(out: Path, name: str, results: Row, console: Console) -> None:
    """Leave the figures in `out/name.json`."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    console.print(f"written: {path}")
