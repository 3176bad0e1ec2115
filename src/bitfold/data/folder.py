"""The folder of a prepared log: what may be in it, and whether a folder is one."""

from pathlib import Path

from bitfold.data.manifest import PARTS
from bitfold.data.newness import KNOWN_FILE
from bitfold.data.schema import SCHEMA_FILE, VOCABULARY_FILE
from bitfold.data.stats import REPORT_FILE
from bitfold.outputs import Kind


def looks_prepared(path: Path) -> bool:
    """Whether a folder calls itself a prepared log, whole or not."""
    return (path / SCHEMA_FILE).is_file() and (path / "log.json").is_file()


PREPARED = Kind(
    "prepared log",
    (
        *("log.json", "schema.json", "stats.json", VOCABULARY_FILE, KNOWN_FILE, REPORT_FILE),
        *(f"{part}/*.parquet" for part in PARTS),
    ),
    looks_prepared,
)
"""A prepared log as an output."""
