"""Files of rows on their way: written piece after piece, read once, deleted."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl


def append_frame(path: Path, frame: "pl.DataFrame") -> None:
    """Append rows to a file: each piece is an Arrow stream of its own.

    Files are closed between pieces, so that their number is not bound by open handles.
    """
    import pyarrow as pa

    table = frame.to_arrow()
    with path.open("ab") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)


def read_frames(path: Path) -> "pl.DataFrame":
    """All rows of a file of pieces."""
    import polars as pl
    import pyarrow as pa

    return pl.DataFrame(pa.concat_tables(list(_tables(path)))).rechunk()


def each_frame(path: Path) -> "Iterator[pl.DataFrame]":
    """The pieces of a file, one after another."""
    import polars as pl

    for table in _tables(path):
        yield pl.DataFrame(table)


def _tables(path: Path) -> Iterator[Any]:
    import pyarrow as pa

    size = path.stat().st_size
    with pa.OSFile(str(path), "rb") as file:
        while file.tell() < size:
            with pa.ipc.open_stream(file) as stream:
                yield stream.read_all()
