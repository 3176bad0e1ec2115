"""One file of a log: where it lies, and how it is written."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LogFile:
    """One file of a log.

    Args:
        path: as the user named it.
        kind: `csv` (any text file with separators), `sequences` or `parquet`.
        packing: `gzip`, `zstd`, `zip` or None.
        separator: what parts its columns; empty for Parquet.
        size: bytes on the disk.
        spool: where its bytes lie, if `path` is a pipe that was copied.
        alone: whether the log has no other file; an empty one is then an error.
    """

    path: Path
    kind: str
    packing: str | None
    separator: str
    size: int
    spool: Path | None = None
    alone: bool = True

    @property
    def real(self) -> Path:
        """The file that is opened."""
        return self.spool or self.path
