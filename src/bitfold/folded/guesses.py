"""Where the ids of all tables of a model are, by what was seen of one forward.

A guess is made of a forward in which every table read for itself, and says where the next one's
ids will be: at the same distances in one memory, or in the same places of the model's inputs.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bitfold.kernels.part import Source

MOST = 16
"""Columns that may lie in one memory for each of the tables'."""
MOST_LEAVES = 512
"""Tensors and columns of a model's inputs that are looked at."""
FORWARDS = 8
"""Forwards after which columns of inputs that were always equal are taken for one."""
DEPTH = 3
"""How deep inputs in inputs are looked for."""


class Seen(NamedTuple):
    """What a table was called with in a forward; `table` is the module of a whole one."""

    ids: Tensor
    table: Any


class InMemory(NamedTuple):
    """Ids that lie in one memory, around those of the table that is read first.

    Args:
        first: that table.
        before: how far the lowest ids lie before its own: in ids, or in columns where `whole`.
        span: how far it is from the lowest ids to the highest, and one more.
        columns: where each table's ids are in that span.
        whole: whether a table's ids follow each other: columns are a batch apart.
        dims: of the ids of a table.
        beside: the whole tables that are read too, by number.
    """

    first: int
    before: int
    span: int
    columns: tuple[int, ...]
    whole: bool
    dims: int
    beside: dict[int, Any]

    @classmethod
    def of(cls, seen: Mapping[int, Seen], fields: int) -> "InMemory | None":
        """The guess of a forward, if there is an order in it: of all fields, numbered first."""
        first = next(iter(seen))
        one = seen[first].ids
        memory = one.untyped_storage().data_ptr()
        alike = [  # what lies elsewhere, or otherwise, is read by itself
            n
            for n in sorted(seen)
            if seen[n].ids.untyped_storage().data_ptr() == memory
            and seen[n].ids.shape == one.shape
            and seen[n].ids.stride() == one.stride()
        ]
        if alike[:fields] != list(range(fields)) or len(alike) < 2:
            return None
        offsets = [seen[n].ids.storage_offset() for n in alike]
        low, rows = min(offsets), one.shape[0]
        # Columns of rows keep their distance whatever the batch; rows of ids are a batch apart.
        whole = one.stride(0) == 1 and rows > 0 and all((at - low) % rows == 0 for at in offsets)
        unit = rows if whole else 1
        columns = [(each - low) // unit for each in offsets]
        if max(columns) >= MOST * len(columns):
            return None
        return cls(
            first, columns[alike.index(first)], max(columns) + 1, tuple(columns), whole, one.dim(),
            {n: seen[n].table for n in alike[fields:]},
        )  # fmt: skip

    def sources(self, ids: Tensor, inputs: Any) -> list[Source] | None:
        """Where the ids of all tables are, of those of the first; or whatever lies there.

        Raises:
            RuntimeError: there is no such memory.
        """
        if ids.dim() != self.dims:
            return None
        rows, stride = ids.shape[0], ids.stride()[0]
        unit = rows if self.whole else 1
        start = ids.storage_offset() - self.before * unit
        if start < 0 or (self.whole and stride != 1):
            return None
        every = ids.as_strided((rows, self.span), (stride, unit), start)
        address = every.data_ptr()
        return [Source(address + 8 * unit * column, stride, every) for column in self.columns]


class OfInputs(NamedTuple):
    """Ids that are what the model is called with, or columns of it, in whole numbers.

    Args:
        first: the table that is read first.
        places: of each table, which of `leaves_of` the inputs, and which column of it.
        beside: the whole tables that are read too, by number.
    """

    first: int
    places: tuple[tuple[int, int | None], ...]
    beside: dict[int, Any]

    def sources(self, ids: Tensor, inputs: Any) -> list[Source] | None:
        """Where the ids of all tables are, of what the model is called with."""
        leaves, rows = leaves_of(inputs), ids.shape[0]
        found: list[Source] = []
        for leaf, column in self.places:
            if leaf >= len(leaves):
                return None
            each = leaves[leaf]
            if column is not None:
                if each.dim() != 2 or column >= each.shape[1]:
                    return None
                each = each.select(1, column)
            if each.shape[0] != rows or each.numel() != rows:
                return None
            if each.dtype is not torch.int64:
                each = each.long()
            if each.dim() != 1:
                each = each.reshape(rows)
            found.append(Source(each.data_ptr(), each.stride(0), each))
        return found


Guess = InMemory | OfInputs


class Candidates:
    """Which places of the inputs may be each table's: those that had its ids in every forward."""

    def __init__(self) -> None:
        self.places: dict[int, list[tuple[int, int | None]]] = {}
        self.forwards = 0

    def guess(self, seen: Mapping[int, Seen], fields: int, inputs: Any) -> OfInputs | None:
        """Look at one more forward; a guess once there is one place for each field."""
        leaves = leaves_of(inputs)
        every: list[tuple[int, int | None]]
        every = [(n, None) for n, leaf in enumerate(leaves) if leaf.numel() == leaf.shape[0]]
        every += [
            (n, column)
            for n, leaf in enumerate(leaves)
            if leaf.dim() == 2 and leaf.shape[1] > 1
            for column in range(leaf.shape[1])
        ]
        for number in seen:
            own = seen[number].ids.reshape(-1)
            known = self.places.get(number, every[:MOST_LEAVES])
            self.places[number] = [place for place in known if _same(leaves, place, own)]
        self.forwards += 1
        if not all(self.places.get(field) for field in range(fields)):
            return None
        numbers = [n for n in sorted(seen) if self.places.get(n)]
        if self.forwards < FORWARDS and any(len(self.places[n]) > 1 for n in numbers):
            return None
        places, taken = [], set()
        for n in numbers:
            place = next((p for p in self.places[n] if p not in taken), self.places[n][0])
            taken.add(place)
            places.append(place)
        beside = {n: seen[n].table for n in numbers if n >= fields}
        return OfInputs(next(iter(seen)), tuple(places), beside)

    @property
    def lost(self) -> bool:
        """Whether a table's ids were nowhere in the inputs."""
        return any(not places for places in self.places.values())


def _same(leaves: Sequence[Tensor], place: tuple[int, int | None], ids: Tensor) -> bool:
    leaf, column = place
    if leaf >= len(leaves):
        return False
    there = leaves[leaf]
    if column is not None:
        if there.dim() != 2 or column >= there.shape[1]:
            return False
        there = there.select(1, column)
    return there.numel() == ids.numel() and torch.equal(there.reshape(-1).long(), ids)


def leaves_of(inputs: Any) -> list[Tensor]:
    """The tensors in what a model is called with, in order: of numbers, on the CPU."""
    found: list[Tensor] = []
    _collect(inputs, found, DEPTH)
    return found


def _collect(inputs: Any, found: list[Tensor], depth: int) -> None:
    if type(inputs) is Tensor:
        plain = inputs.is_cpu and inputs.layout is torch.strided and not inputs.is_complex()
        if plain and 1 <= inputs.dim() <= 2:
            found.append(inputs)
        return
    if depth and len(found) < MOST_LEAVES:
        if isinstance(inputs, Mapping):
            inputs = inputs.values()
        elif not isinstance(inputs, list | tuple):
            return
        for each in inputs:
            _collect(each, found, depth - 1)
