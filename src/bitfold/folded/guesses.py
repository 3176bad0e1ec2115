"""Where the ids of all tables of a model are, by what was seen of one forward.

A guess is made of a forward in which every table read for itself, and says where the next one's
ids will be: at the same distances in one memory, or in the same places of the model's inputs.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

MOST = 16
"""Columns that may lie in one memory for each of the tables'."""
MOST_PLACES = 512
"""Tensors and columns of a model's inputs that are looked at."""
FORWARDS = 8
"""Forwards after which columns of inputs that were always equal are taken for one."""
DEPTH = 4
"""How deep inputs in inputs are looked for: arguments are in a pair, positional and by name."""


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

    def places(self, ids: Tensor, inputs: Any) -> tuple[list[int], Any] | None:
        """Where the ids of all tables are, of those of the first; or whatever lies there.

        Returns:
            An address, and how many numbers ids are apart, of each; and what keeps that memory.

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
        apart, places = 8 * unit, list[int]()
        for column in self.columns:
            places += (address + apart * column, stride)
        return places, every


class Place(NamedTuple):
    """Where a table's ids are in a model's inputs: keys one after another, and maybe a column."""

    keys: tuple[Any, ...]
    column: int | None

    def of(self, inputs: Any) -> Tensor | None:
        """What is there; None if it is no tensor of numbers, or has no such column."""
        try:
            for key in self.keys:
                inputs = inputs[key]
        except (LookupError, TypeError):
            return None
        if type(inputs) is not Tensor or not _is_leaf(inputs):
            return None
        if self.column is None:
            return inputs
        if inputs.dim() != 2 or self.column >= inputs.shape[1]:
            return None
        return inputs.select(1, self.column)


class OfInputs(NamedTuple):
    """Ids that are what the model is called with, or columns of it, in whole numbers.

    Args:
        first: the table that is read first.
        found: where each table's ids are.
        beside: the whole tables that are read too, by number.
    """

    first: int
    found: tuple[Place, ...]
    beside: dict[int, Any]

    def places(self, ids: Tensor, inputs: Any) -> tuple[list[int], Any] | None:
        """Where the ids of all tables are, of what the model is called with."""
        rows, places, kept = ids.shape[0], list[int](), list[Tensor]()
        for place in self.found:
            each = place.of(inputs)
            if each is None or each.numel() != rows:
                return None
            if each.dtype is not torch.int64:
                each = each.long()
            if each.dim() != 1:
                each = each.reshape(rows)
            places += (each.data_ptr(), each.stride(0))
            kept.append(each)
        return places, kept


Guess = InMemory | OfInputs


class Candidates:
    """Which places of the inputs may be each table's: those that had its ids in every forward."""

    def __init__(self) -> None:
        self.places: dict[int, list[Place]] = {}
        self.forwards = 0

    def guess(self, seen: Mapping[int, Seen], fields: int, inputs: Any) -> OfInputs | None:
        """Look at one more forward; a guess once there is one place for each field."""
        every: list[Place] = []
        _collect(inputs, (), every)
        for number in seen:
            own = seen[number].ids.reshape(-1)
            known = self.places.get(number, every)
            self.places[number] = [place for place in known if _has(place.of(inputs), own)]
        self.forwards += 1
        if not all(self.places.get(field) for field in range(fields)):
            return None
        numbers = [n for n in sorted(seen) if self.places.get(n)]
        if self.forwards < FORWARDS and any(len(self.places[n]) > 1 for n in numbers):
            return None
        found: list[Place] = []
        for n in numbers:
            own_places = self.places[n]
            found.append(next((place for place in own_places if place not in found), own_places[0]))
        beside = {n: seen[n].table for n in numbers if n >= fields}
        return OfInputs(next(iter(seen)), tuple(found), beside)

    @property
    def lost(self) -> bool:
        """Whether a table's ids were nowhere in the inputs."""
        return any(not places for places in self.places.values())


def _has(there: Tensor | None, ids: Tensor) -> bool:
    """Whether these are the ids."""
    if there is None or there.numel() != ids.numel():
        return False
    return torch.equal(there.reshape(-1).long(), ids)


def _is_leaf(tensor: Tensor) -> bool:
    """Whether it may be ids: numbers `[B]` or `[B, N]` in the CPU's memory."""
    return (
        tensor.is_cpu
        and 1 <= tensor.dim() <= 2
        and tensor.layout is torch.strided
        and not tensor.is_complex()
    )


def _collect(inputs: Any, keys: tuple[Any, ...], found: list[Place]) -> None:
    """The places of all tensors, and of their columns."""
    if len(found) >= MOST_PLACES:
        return
    if type(inputs) is Tensor:
        if _is_leaf(inputs):
            if inputs.numel() == inputs.shape[0]:
                found.append(Place(keys, None))
            elif inputs.dim() == 2:
                found += [Place(keys, column) for column in range(inputs.shape[1])][:MOST_PLACES]
    elif len(keys) < DEPTH:
        if isinstance(inputs, Mapping):
            for key, each in inputs.items():
                _collect(each, (*keys, key), found)
        elif isinstance(inputs, list | tuple):
            for n, each in enumerate(inputs):
                _collect(each, (*keys, n), found)
