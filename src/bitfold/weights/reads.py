"""The ids of a log, column by column: of a prepared log, or of integer columns of raw files."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bitfold.data.folder import looks_prepared
from bitfold.data.prepared import PreparedLog
from bitfold.data.table import Bags
from bitfold.errors import BitfoldError
from bitfold.records import unreadable

Ids = NDArray[np.int64]
RAW = (".parquet", ".csv")


class Reads(Protocol):
    """Where ids come from."""

    @property
    def fields(self) -> list[str]:
        """The names of the columns that hold ids."""

    @property
    def rows(self) -> int | None:
        """How many rows there are, if that is known before they are read."""

    def size(self, field: str) -> int | None:
        """How many ids a field has; None if nobody said."""

    def columns(self, fields: Sequence[str]) -> Iterator[tuple[int, list[Ids]]]:
        """Rows, and the ids of each field in them, a piece of the log at a time."""


def open_reads(path: Path) -> Reads:
    """The ids of a prepared log's training part, or of a Parquet or CSV file.

    Raises:
        BitfoldError: it is neither, or has no ids that could be a table's rows.
    """
    found: Reads
    if looks_prepared(path):
        found = _Prepared(path)
    elif path.suffix.lower() in RAW and path.is_file():
        found = _Raw(path)
    else:
        raise BitfoldError(
            f"{path} is no log",
            got="a file" if path.is_file() else "a folder" if path.is_dir() else "no such file",
            expected="a prepared log, or a Parquet or CSV file whose columns hold rows of tables",
        )
    if not found.fields:
        raise BitfoldError(
            f"no field of {path} has ids that are rows of a table",
            got="hashed ids" if looks_prepared(path) else "no column of integers",
            expected="ids 0 to V-1, as the model reads them",
            fix="`bitfold prepare --ids dense` takes columns of such ids as they are",
        )
    return found


class _Prepared:
    """The training part of a prepared log; hashed ids, which name no rows, are left out."""

    def __init__(self, path: Path) -> None:
        self._log = PreparedLog(path)
        self._sizes = {
            info.name: info.num_embeddings
            for info in self._log.schema.fields
            if info.num_embeddings is not None
        }

    @property
    def fields(self) -> list[str]:
        return list(self._sizes)

    @property
    def rows(self) -> int:
        return self._log.rows["train"]

    def size(self, field: str) -> int | None:
        return self._sizes[field]

    def columns(self, fields: Sequence[str]) -> Iterator[tuple[int, list[Ids]]]:
        names = [f"id:{field}" for field in fields]
        for found in self._log.columns("train", names):
            ids = [found[name] for name in names]
            rows = len(ids[0].offsets) - 1 if isinstance(ids[0], Bags) else len(ids[0])
            yield rows, [each.values if isinstance(each, Bags) else each for each in ids]


class _Raw:
    """Integer columns of a Parquet or CSV file, as they are; lists count value by value."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._opened() as file:
            self._fields = [each.name for each in _schema(file) if _holds_ids(each.type)]
            self._rows = file.metadata.num_rows if self._is_parquet else None

    @property
    def fields(self) -> list[str]:
        return self._fields

    @property
    def rows(self) -> int | None:
        return self._rows

    def size(self, field: str) -> int | None:
        return None

    def columns(self, fields: Sequence[str]) -> Iterator[tuple[int, list[Ids]]]:
        with self._opened(fields) as file:
            batches = (
                file.iter_batches(columns=list(fields), use_threads=False)
                if self._is_parquet
                else file
            )
            try:
                for batch in batches:
                    yield batch.num_rows, [_ids(batch.column(field)) for field in fields]
            except (ValueError, OSError) as error:  # Arrow's errors are among them
                raise self._damaged(error) from None

    @property
    def _is_parquet(self) -> bool:
        return self._path.suffix.lower() == ".parquet"

    def _opened(self, fields: Sequence[str] | None = None) -> Any:
        """The file as Arrow reads it, piece by piece."""
        import pyarrow.csv
        import pyarrow.parquet

        try:
            if self._is_parquet:
                return pyarrow.parquet.ParquetFile(self._path)
            options = pyarrow.csv.ConvertOptions(include_columns=fields)
            return pyarrow.csv.open_csv(self._path, convert_options=options)
        except PermissionError as error:
            raise unreadable(self._path, error) from None
        except (ValueError, OSError) as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> BitfoldError:
        return BitfoldError(
            f"{self._path} cannot be read",
            got=(str(error).splitlines() or [type(error).__name__])[0][:200],
            expected="a whole Parquet or CSV file whose columns of ids are integers throughout",
        )


def _schema(file: Any) -> Any:
    return file.schema_arrow if hasattr(file, "schema_arrow") else file.schema


def _holds_ids(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_integer(kind))


def _ids(column: Any) -> Ids:
    """A column's ids, missing ones left out."""
    import pyarrow as pa

    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        column = column.flatten()
    values: Ids = column.drop_null().to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
    return values
