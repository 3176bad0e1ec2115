"""All fields of an embedder, and whole tables beside them, read in one call."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Self

import torch
from torch import Tensor

from bitfold.embedder.contract import Embedder
from bitfold.embedder.corridor import Corridor
from bitfold.errors import BitfoldError
from bitfold.kernels.part import Part, Table


@cache
def _kernels() -> Any:
    from bitfold.kernels import together  # and Numba, which importing a package must not

    return together


class Reader:
    """Reads an embedder's fields and whole tables together, as long as they are as they were.

    Args:
        members: the embedders that have the fields.
        made: what is read.
        slots: where each tensor of it is kept: a module's dictionary, and its name there.
        numbers: the columns' numbers.
        tables: the modules of whole tables.
    """

    def __init__(
        self,
        members: Sequence[Corridor],
        made: Any,
        slots: Sequence[tuple[Mapping[str, Any], str]],
        numbers: Sequence[int],
        tables: Sequence[Any],
    ) -> None:
        self.members, self.made, self.tables = members, made, tables
        self.at = {number: place for place, number in enumerate(numbers)}
        pools: list[Any] = [member.pool for member in members]
        self.pools = [(pool, pool.sparse) for pool in pools]
        self.slots: list[tuple[Mapping[str, Any], str, Tensor, int, torch.Size]] = []
        for place, name in slots:
            tensor = place.get(name)
            if tensor is not None:  # not all rows have steps
                self.slots.append((place, name, tensor, tensor.data_ptr(), tensor.shape))
        self.stored = [(member.stored, member.stored.named()) for member in members if member.reads]
        self.counts = [member for member in members if member.rounds]
        self.words = [(table.padding_idx, table.sparse) for table in tables]

    @classmethod
    def of(cls, embedder: Embedder, columns: Sequence[int], tables: Sequence[Any]) -> Self | None:
        """A reader; None where an embedder needs more than kernels, or a weight is not theirs.

        Args:
            embedder: any that does not observe.
            columns: what the fields and then the tables are called, by number.
            tables: modules of torch's.
        """
        members, parts, numbers = list[Corridor](), list[Part](), list[tuple[int, ...]]()
        for member, fields in embedder.members():
            # A subclass keeps more of its fields than its pools and head.
            if type(member) is not Corridor:
                return None
            part = member.as_part()
            if part is None:
                return None
            members.append(member)
            parts.append(part)
            numbers.append(tuple(fields))
        slots: list[tuple[Mapping[str, Any], str]] = []
        for member in members:
            pool: Any = member.pool
            kept = pool._parameters if "weight" in pool._parameters else pool._buffers
            slots.append((kept, "weight"))
            slots += [(pool._buffers, name) for name in ("centres", "steps") if member.rounds]
            slots += [(member.stored.named(), name) for name in member.reads]
            if member.head is not None:
                slots.append((member.head._parameters, "weight"))
        whole = []
        for table in tables:
            weight = table._parameters.get("weight")
            if weight is None or weight.is_meta or weight.is_inference():
                return None
            slots.append((table._parameters, "weight"))
            whole.append(Table(weight, table.padding_idx, table.sparse))
        try:
            made = _kernels().Together(parts, numbers, whole)
        except BitfoldError:  # each says what is wrong with it when it is read
            return None
        return cls(members, made, slots, columns, tables)

    def holds(self) -> bool:
        """Whether all is as it was held: the same tensors, where they were, and nobody's else."""
        for place, name, tensor, address, shape in self.slots:
            if (
                place.get(name) is not tensor
                or tensor.data_ptr() != address
                or tensor.shape != shape
            ):
                return False
        for stored, named in self.stored:
            if stored.named() is not named:
                return False
        for pool, sparse in self.pools:
            if pool._forward_pre_hooks or pool.moved_by is not None or pool.sparse != sparse:
                return False
        for table, words in zip(self.tables, self.words, strict=True):
            if (table.padding_idx, table.sparse) != words:
                return False
        return not any(member.waits for member in self.members)

    def fits(self, rows: int) -> bool:
        """Whether so many rows are one thread's work."""
        made = self.made
        return bool(rows * made.columns * made.dim <= _kernels().MOST_NUMBERS)

    def read(self, rows: int, places: list[int]) -> tuple[Sequence[Tensor], Tensor]:
        """Vectors `[B, D]` of all fields, then of the tables; and their ids `[N, B]`, flat.

        Args:
            rows: `B`.
            places: of each column, where its ids are, and how many numbers apart.

        Raises:
            IdOutOfRange: for an id that has no row.
        """
        for member in self.counts:
            member.count_forward()
        found: tuple[Sequence[Tensor], Tensor] = _kernels().together(
            self.made, rows, places, torch.is_grad_enabled()
        )
        return found
