"""Trained tables: rows that are read by slices, checked before anything is fitted to them."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from bitfold.errors import BitfoldError
from bitfold.planning.field import Field

FLOOR = 1e-3
"""What an id that was never met counts, of the mean count: it has a vector all the same."""


class Rows(Protocol):
    """What gives rows by slices: a tensor, an array, a memory-mapped file."""

    @property
    def shape(self) -> Any:
        """`[V, D]`."""

    def __getitem__(self, rows: Any, /) -> Any:
        """The rows of a slice, as a tensor or an array."""


class Chunk(NamedTuple):
    """Some ids of a table.

    Args:
        ids: int64 `[n]`.
        vectors: float32 or float64 `[n, D]`.
        weights: float64 `[n]`, what each counts in a fit.
        counts: float64 `[n]`, how often each occurs; what its error counts.
    """

    ids: Tensor
    vectors: Tensor
    weights: Tensor
    counts: Tensor


class Trained:
    """The trained table of one field.

    Args:
        field: whose it is.
        table: `[V, D]` for the ids `0..V-1`, or a pair of ids int64 `[N]` and vectors `[N, D]`.
        dim: `D`.
        counts: how often each of the ids occurs; None: all alike.
        padding: an id that is left out.
        device: where chunks are handed out.

    Raises:
        BitfoldError: for shapes and types that do not fit, and for what is not a number.
    """

    def __init__(
        self,
        field: Field,
        table: Any,
        dim: int,
        counts: Any = None,
        padding: int | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.field, self.dim, self.padding, self.device = field, dim, padding, device
        ids, self.rows = table if isinstance(table, tuple | list) else (None, table)
        self.ids = None if ids is None else torch.as_tensor(ids)
        self._check_shape()
        self.counts = self._counted(counts)
        total = 0.0 if self.counts is None else float(self.counts.sum(dtype=torch.float64))
        if not total:  # nothing was met: all are alike
            self.counts = None
        self.floor = FLOOR * total / max(len(self), 1)
        self.energy = 0.0
        """The sum of squares, each id as often as it occurs."""
        self.mass = 0.0
        """What all ids count together."""
        self._measure()

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    @property
    def distinct(self) -> bool:
        """Whether every id has one vector."""
        return self.ids is None or len(torch.unique(self.ids)) == len(self)

    def chunks(self, rows: int) -> Iterator[Chunk]:
        """The table, so many rows at a time; without the padding id."""
        for begin in range(0, len(self), rows):
            yield self.chunk(begin, min(begin + rows, len(self)))

    def chunk(self, begin: int, end: int, vectors: bool = True) -> Chunk:
        """The rows of a slice; without the padding id. Vectors that nobody needs are not read."""
        part = slice(begin, end)
        if vectors:
            found = as_floats(self.rows[part]).to(self.device)
        else:
            found = torch.empty(end - begin, 0)
        if self.ids is None:
            ids = torch.arange(begin, end, device=self.device)
        else:
            ids = self.ids[part].to(self.device, torch.int64)
        if self.counts is None:
            counts = torch.ones(end - begin, dtype=torch.float64, device=self.device)
        else:
            counts = self.counts[part].to(self.device, torch.float64)
        if self.padding is not None:
            keep = ids != self.padding
            if not bool(keep.all()):
                ids, found, counts = ids[keep], found[keep], counts[keep]
        return Chunk(ids, found, counts + self.floor, counts)

    def _check_shape(self) -> None:
        shape = tuple(int(size) for size in getattr(self.rows, "shape", ()))
        known = self.field.num_embeddings
        name = self.field.name
        if self.ids is None and known is None:
            raise BitfoldError(
                f"field {name!r} has hashed ids, so a table does not say whose rows it has",
                got=f"a table {list(shape)}",
                expected="a pair: ids int64 [N], vectors [N, D]",
            )
        rows = known if self.ids is None else self.ids.shape[0] if self.ids.dim() == 1 else -1
        if shape != (rows, self.dim):
            got = f"{list(shape)}" if shape else type(self.rows).__name__
            raise BitfoldError(
                f"the table of field {name!r} has another shape",
                got=got if self.ids is None else f"ids {list(self.ids.shape)}, vectors {got}",
                expected=f"[{rows if rows != -1 else 'N'}, {self.dim}], a row for each id",
                fix="give the table of this very field, in the order of its ids",
            )
        if self.ids is None:
            return
        if self.ids.dtype not in (torch.int64, torch.int32):
            raise BitfoldError(
                f"the ids of field {name!r} are no integers",
                got=self.ids.dtype,
                expected="torch.int64",
            )
        if known is not None and len(self.ids):
            least, most = int(self.ids.min()), int(self.ids.max())
            if least < 0 or most >= known:
                raise BitfoldError(
                    f"an id of field {name!r} is out of range",
                    got=f"{least} to {most}",
                    expected=f"0 to {known - 1}",
                )

    def _counted(self, counts: Any) -> Tensor | None:
        if counts is None:
            return None
        found = torch.as_tensor(counts).detach()
        good = found.shape == (len(self),) and not found.is_complex()
        if not good:
            raise BitfoldError(
                f"the counts of field {self.field.name!r} are not one for each row",
                got=f"{found.dtype} {list(found.shape)}",
                expected=f"numbers [{len(self)}]",
            )
        if len(found) and not bool(((found >= 0) & (found < float("inf"))).all()):
            raise BitfoldError(
                f"the counts of field {self.field.name!r} cannot be",
                got=f"{float(found.min())} to {float(found.max())}",
                expected="finite numbers from 0 on",
            )
        return found

    def _measure(self) -> None:
        """One pass: the energy, and whether all is numbers."""
        for begin in range(0, len(self), self.at_once()):
            end = min(begin + self.at_once(), len(self))
            rows = self.rows[begin:end]
            floating = isinstance(rows, Tensor) and rows.dtype.is_floating_point
            if not floating and getattr(getattr(rows, "dtype", None), "kind", "") != "f":
                raise BitfoldError(
                    f"the table of field {self.field.name!r} is not of floating numbers",
                    got=getattr(rows, "dtype", type(rows).__name__),
                    expected="float32, float64, float16 or bfloat16",
                )
            if tuple(rows.shape) != (end - begin, self.dim):
                raise BitfoldError(
                    f"the table of field {self.field.name!r} gives other rows than asked for",
                    got=f"{list(rows.shape)} for rows {begin} to {end - 1}",
                    expected=[end - begin, self.dim],
                )
            chunk = self.chunk(begin, end)
            squares = chunk.vectors.double().square().sum(1)
            if not bool(squares.isfinite().all()):
                place = (~squares.isfinite()).nonzero()[0]
                raise BitfoldError(
                    f"the table of field {self.field.name!r} holds what is not a number",
                    got=f"the row of id {int(chunk.ids[place])}",
                    expected="finite numbers",
                    fix="give a table that training did not break",
                )
            self.energy += float((squares * chunk.counts).sum())
            self.mass += float(chunk.weights.sum())

    def at_once(self, numbers: int = 1 << 18) -> int:
        """How many rows have about so many numbers."""
        return max(256, numbers // max(self.dim, 1))


def as_floats(rows: Any) -> Tensor:
    """Rows of a tensor or an array as a tensor, float64 as it is, all others as float32."""
    if not isinstance(rows, Tensor):
        rows = torch.from_numpy(np.array(rows))
    found: Tensor = rows.detach()
    return found if found.dtype == torch.float64 else found.float()
