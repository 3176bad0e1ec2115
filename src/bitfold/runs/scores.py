"""Scores to a file or to stdout, with the columns that are carried along."""

import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO

import numpy as np
import numpy.typing as npt

from bitfold.errors import BitfoldError

if TYPE_CHECKING:
    import polars as pl

STDOUT = "-"
"""What `--out` calls stdout."""


@dataclass(frozen=True)
class Scored:
    """Some rows' scores `[B]`, and the columns that are carried along, if any are."""

    scores: npt.NDArray[np.float32]
    kept: "pl.DataFrame | None"


class Encoding:
    """A stream of text that takes bytes, for a stdout that was replaced by one."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> None:
        """Write UTF-8."""
        self._stream.write(data.decode())


def writer_of(out: Path) -> Callable[[Path, Iterator[Scored]], None]:
    """What writes a file of the kind that its name tells.

    Raises:
        BitfoldError: the name tells none.
    """
    name = out.name.lower()
    if name.endswith((".parquet", ".pq")):
        return _write_parquet
    if name.endswith(".csv"):
        return _write_csv
    if name.endswith(".csv.gz"):
        return _write_csv_gz
    raise BitfoldError(
        f"the name of {out} does not tell its format",
        got=out.name,
        expected="a name that ends in .parquet, .csv or .csv.gz",
    )


def _write_parquet(path: Path, parts: Iterator[Scored]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer: Any = None
    try:
        for part in parts:
            columns = {"score": pa.array(part.scores)}
            if part.kept is not None:
                kept = part.kept.to_arrow()
                columns = dict(zip(kept.column_names, kept.columns, strict=True)) | columns
            table = pa.table(columns)
            if writer is None:
                writer = pq.ParquetWriter(path, table.schema)
            writer.write_table(table.cast(writer.schema))
        if writer is None:
            writer = pq.ParquetWriter(path, pa.schema([("score", pa.float32())]))
    except pa.ArrowInvalid as error:
        raise BitfoldError(
            "the columns to keep are not of one type in all files",
            got=str(error).splitlines()[0],
            expected="one type a column",
            fix="write CSV, or give the files one by one",
        ) from error
    finally:
        if writer is not None:
            writer.close()


def _write_csv(path: Path, parts: Iterator[Scored]) -> None:
    with path.open("wb") as file:
        write_csv(file, parts)


def _write_csv_gz(path: Path, parts: Iterator[Scored]) -> None:
    with gzip.open(path, "wb") as file:
        write_csv(file, parts)


def write_csv(file: IO[bytes] | gzip.GzipFile | Encoding, parts: Iterator[Scored]) -> None:
    """Write parts as lines of text, after a header."""
    first = True
    for part in parts:
        # Nine digits bring back every float32.
        texts = [f"{score:.9g}" for score in part.scores.tolist()]
        if part.kept is None:
            lines = [*(["score"] if first else []), *texts]
            file.write(("\n".join(lines) + "\n").encode())
        else:
            import polars as pl

            for name, kind in part.kept.schema.items():
                if kind.is_nested():
                    raise BitfoldError(
                        f"the column {name!r} holds lists, which CSV cannot keep",
                        got=str(kind),
                        expected="one value a row",
                        fix="name an output that ends in .parquet",
                    )
            frame = part.kept.with_columns(pl.Series("score", texts, dtype=pl.String))
            file.write(frame.write_csv(include_header=first).encode())
        first = False
    if first:
        file.write(b"score\n")
