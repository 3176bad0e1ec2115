"""Some raw rows of one file, which know where they lie."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitfold.data.forks import polars_is_lost
from bitfold.errors import BitfoldError

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Rows:
    """Raw columns of some rows of one file.

    Args:
        frame: the wanted columns, in their own types; text files give strings, with null where
            a cell is missing.
        path: the file; "the data given" for rows in memory.
        first: number of the first row within the file, from 0.
        text: whether the file is text, so that what means missing is null already.
        done: bytes of the whole input read so far.
    """

    frame: "pl.DataFrame"
    path: Path
    first: int = 0
    text: bool = True
    done: int = 0

    @property
    def height(self) -> int:
        """How many rows there are."""
        return len(self.frame)

    def refuse(
        self,
        bad: "pl.Series",
        name: str,
        problem: str,
        expected: str,
        *,
        fix: str | None = None,
        shown: "pl.Series | None" = None,
    ) -> None:
        """Raise for the first row of a mask that is true, naming row, column and value."""
        bad = bad.fill_null(False)
        if not bad.any():
            return
        index = int(bad.arg_max() or 0)
        column = self.frame[name] if shown is None else shown
        value = column[index]
        same = len(column) == self.frame.height
        place = f"row {self.first + index + 1} of {self.path}" if same else f"in {self.path}"
        raise BitfoldError(
            f"{problem}: column {name!r}, {place}",
            got="nothing (a missing value)" if value is None else repr(value),
            expected=expected,
            fix=fix,
        )


def frame_of(batch: Any) -> "pl.DataFrame":
    """A batch or table of Arrow's as a frame; as the table where a fork lost Polars' threads."""
    import pyarrow as pa

    table = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
    if polars_is_lost():
        return table  # type: ignore[no-any-return]
    import polars as pl

    return pl.DataFrame(table)
