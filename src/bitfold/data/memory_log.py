"""Rows in memory that are read as a file is."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from bitfold.data.config import DataConfig
from bitfold.data.files import pick
from bitfold.data.rows import Rows

if TYPE_CHECKING:
    import polars as pl

CHUNK_ROWS = 65_536
NAME = Path("the data given")
"""What messages call rows that come from no file."""

Chunks: TypeAlias = (
    "Callable[[DataConfig, Sequence[str], Sequence[str], int], Iterator[pl.DataFrame]]"
)
Plain: TypeAlias = "Callable[[Sequence[str], int], Iterator[list[Mapping[str, Any]]] | None]"


class MemoryLog:
    """Rows in memory that are read as a file is.

    Args:
        names: of the columns, for messages; None where the rows decide.
        rows: how many there are; None if only reading them tells.
        chunks: given a configuration, the columns that must be there, those that may, and the rows
            of a chunk: the chunks in order.
        plain: given column names and rows a chunk, the same rows as dictionaries; None where they
            would lose something.
    """

    def __init__(
        self,
        names: Sequence[str] | None,
        rows: int | None,
        chunks: "Chunks",
        plain: "Plain",
    ) -> None:
        self.names, self._rows, self._chunks, self._plain = names, rows, chunks, plain

    @property
    def rows(self) -> int:
        """How many rows there are; 0 if that is not known."""
        return self._rows or 0

    def is_few(self, most: int) -> bool:
        """Whether there are `most` rows or fewer, as far as is known without reading them."""
        return self._rows is not None and self._rows <= most

    def read(
        self,
        config: DataConfig,
        required: Sequence[str],
        optional: Sequence[str] = (),
        chunk_rows: int = CHUNK_ROWS,
    ) -> Iterator[Rows]:
        """The rows in order.

        Raises:
            BitfoldError: a column is missing, is there twice, or holds what cannot be read.
        """
        names = self.names
        if names is not None:
            pick(names, required, NAME)
            optional = [name for name in optional if name in names]
        first = 0
        for frame in self._chunks(config, required, optional, chunk_rows):
            yield Rows(frame, NAME, first, False, first + frame.height)
            first += frame.height

    def records(
        self, required: Sequence[str], size: int
    ) -> Iterator[list[Mapping[str, Any]]] | None:
        """The rows as dictionaries, `size` at a time; None where they would lose something.

        Raises:
            BitfoldError: a column is missing, or is there twice.
        """
        if self.names is not None:
            pick(self.names, required, NAME)
        return self._plain(required, size)

    def fingerprint(self, config: DataConfig) -> str:
        """What tells these rows from others, for a training that is resumed."""
        from bitfold.data.columns import Encoder
        from bitfold.data.formats import with_defaults

        config = with_defaults(config)
        columns = Encoder(config).required
        digest = hashlib.blake2b(digest_size=12)
        for rows in self.read(config, columns):
            digest.update(rows.frame.write_ipc(None, compression="uncompressed").getbuffer())
        return f"memory:{digest.hexdigest()}"
