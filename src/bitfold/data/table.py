"""Rows ready to be cut into batches: numpy columns, permuted, joined and sliced cheaply."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bitfold.data.batch import Batch

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Bags:
    """The bags of one field: `values` int64 `[T]`, `offsets` int64 `[n + 1]`."""

    values: Ids
    offsets: Ids

    def take(self, order: npt.NDArray[Any]) -> "Bags":
        """The bags of some rows, in the order given."""
        starts = self.offsets[:-1][order]
        lengths = self.offsets[1:][order] - starts
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        place = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return Bags(self.values[place], offsets)

    def cut(self, start: int, stop: int) -> "Bags":
        """The bags of neighbouring rows."""
        offsets = self.offsets[start : stop + 1]
        return Bags(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])

    @staticmethod
    def join(parts: "Sequence[Bags]") -> "Bags":
        """Bags after bags."""
        bases = np.cumsum([0, *(len(part.values) for part in parts[:-1])])
        offsets = [part.offsets[1:] + base for part, base in zip(parts, bases, strict=True)]
        return Bags(
            np.concatenate([part.values for part in parts]),
            np.concatenate([np.zeros(1, np.int64), *offsets]),
        )


@dataclass(frozen=True)
class Table:
    """n rows: `single` int64 `[n, F]`, or `bags` for each of F fields; numbers and the rest."""

    rows: int
    single: Ids | None
    bags: tuple[Bags, ...]
    numeric: Floats
    labels: Floats | None
    weights: Floats | None
    groups: Ids | None

    def cut(self, start: int, stop: int) -> "Table":
        """Neighbouring rows, without a copy where there are no bags."""

        def part(column: Any) -> Any:
            return None if column is None else column[start:stop]

        return Table(
            stop - start,
            part(self.single),
            tuple(bags.cut(start, stop) for bags in self.bags),
            part(self.numeric),
            part(self.labels),
            part(self.weights),
            part(self.groups),
        )

    @staticmethod
    def join(parts: "Sequence[Table]") -> "Table":
        """Rows after rows."""
        if len(parts) == 1:
            return parts[0]

        def whole(name: str) -> Any:
            columns = [getattr(part, name) for part in parts]
            return None if columns[0] is None else np.concatenate(columns)

        return Table(
            sum(part.rows for part in parts),
            whole("single"),
            tuple(Bags.join(field) for field in zip(*(p.bags for p in parts), strict=True)),
            whole("numeric"),
            whole("labels"),
            whole("weights"),
            whole("groups"),
        )

    def batch(self) -> Batch:
        """The rows as tensors (which share memory with the table where they can)."""
        import torch

        def tensor(column: Any) -> Any:
            if column is None:
                return None
            # Columns straight from a file cannot be written to; tensors must be.
            return torch.from_numpy(column if column.flags.writeable else column.copy())

        offsets = None
        if self.single is None:
            joined = Bags.join(self.bags)
            ids, offsets = tensor(joined.values), tensor(joined.offsets)
        else:
            ids = tensor(self.single)
        return Batch(
            ids,
            offsets,
            tensor(self.numeric),
            tensor(self.labels),
            tensor(self.weights),
            tensor(self.groups),
        )


def interleave(columns: Sequence[npt.NDArray[Any]], order: npt.NDArray[Any] | None) -> Any:
    """Columns `[n]` to a row-major matrix `[n, F]`, its rows permuted by `order`."""
    rows = len(columns[0])
    out = np.empty((rows, len(columns)), columns[0].dtype)
    # Blocks of rows, so that the strided writes of all columns stay in the cache.
    for start in range(0, rows, 8192):
        stop = min(start + 8192, rows)
        for index, column in enumerate(columns):
            if order is None:
                out[start:stop, index] = column[start:stop]
            else:
                out[start:stop, index] = np.take(column, order[start:stop])
    return out
