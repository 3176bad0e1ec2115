"""Tables of which some ids have a row: an index of which, and rows as wide as their field's.

Source: Lyu, Tang, Zhu, Guo, Zhang, Tang, Liu, "OptEmbed: Learning Optimal Embedding Table for
Click-through Rate Prediction", CIKM 2022, arXiv 2208.04482. How ids are chosen is in
`bitfold.embedder.row_search`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bitfold.address.tables import StoredTables
from bitfold.address.words import exporting, place_in
from bitfold.embedder.prefixes import Classes, Prefixes
from bitfold.errors import BitfoldError
from bitfold.planning.kept import index_of
from bitfold.pool.indexing import index_bytes, places_of

ROWS = "index"
"""The stored index of which ids have a row."""
FIELD = "field_"
"""What the pools of fields that differ in width are called, before the field's number."""


class KeptRows(Classes):
    """Which ids have a row, as a mask or as places in the code of Elias and Fano.

    All ids of a field that have one have theirs in the same pool, whose number is their class.

    Args:
        sizes: ids of each field.
        pools: the number of each field's pool, from 1 on; 0 for a field without rows.
        kept: how many ids have a row.
        device: where the index lives.

    Example:
        >>> rows = KeptRows([3, 2], [1, 2], 3)
        >>> rows.write(torch.tensor([0, 1, 1, 0, 2]))
        >>> rows.state_dict()["index"].tolist()
        [22]
        >>> rows.at(torch.tensor([2, 3, 4]))
        (tensor([1, 0, 2]), tensor([1, 0, 0]))
    """

    def __init__(
        self,
        sizes: Sequence[int],
        pools: Sequence[int],
        kept: int,
        device: torch.device | str | None = None,
    ) -> None:
        self.sizes, self.numbers, self.kept = list(sizes), list(pools), kept
        self.ids, self.count = sum(sizes), max(pools)
        StoredTables.__init__(self, [(ROWS, index_of(self.ids, kept).bytes)], device)
        self._refresh()

    def at(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Class and place of ids, int64 as their index."""
        if exporting():  # a graph has the index alone; runtimes decode it when they load it
            known = self.all()
            return known[index], self.ranks(known)[index].long()
        return self.known[index].long(), self.places[index].long()

    def all(self) -> Tensor:
        """The class of every id, int64 `[V]`; 0 for all while the index tells none."""
        table = self._tables[ROWS]
        found = torch.zeros(self.ids, dtype=torch.int64, device=table.device)
        if table.is_meta:
            return found
        try:
            places = places_of(table, self.ids, self.kept)
        except BitfoldError:  # not written yet
            return found
        numbers = torch.tensor(self.numbers, device=table.device)
        ends = torch.tensor(self.sizes, device=table.device).cumsum(0)
        return found.scatter(0, places, numbers[place_in(places, ends)])

    def write(self, classes: Tensor) -> None:
        """Give rows to the ids whose class is not 0, int64 `[V]`."""
        self.put(ROWS, index_bytes(classes.nonzero().squeeze(1).cpu(), self.ids))

    @torch.no_grad()
    def _refresh(self) -> None:
        super()._refresh()
        with torch.inference_mode(False):
            self.known = self.all().to(torch.uint8 if self.count < 1 << 8 else torch.int32)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *how: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *how)
        if f"{prefix}{ROWS}" in state_dict and not self._tables[ROWS].is_meta:
            places_of(self._tables[ROWS], self.ids, self.kept)  # or it complains


class RowPools(Prefixes):
    """Ids that have a row, and ids that read zeros or a row that their field shares.

    Rows of one width lie in one pool, in the order of the ids. Where fields differ in width, each
    has a pool, and vectors are filled up with zeros.

    Args:
        plan: one group: the pools, and the index of who has a row.
        more: what `OwnEmbedder` takes.
    """

    def new_stored(self, device: torch.device | str | None) -> Classes:
        """The index of who has a row."""
        kept = sum(spec.rows for spec in self.lengths)
        return KeptRows(self.sizes, self.pool_numbers(), kept, device)

    def pool_numbers(self) -> list[int]:
        """The number of each field's pool, from 1 on; 0 for a field without rows."""
        names = {spec.name: number for number, spec in enumerate(self.lengths, 1)}
        if not any(name.startswith(FIELD) for name in names):
            return [1] * len(self.sizes)
        return [names.get(f"{FIELD}{field}", 0) for field in range(len(self.sizes))]

    def vectors(self, ids: Tensor, field: Tensor | None = None) -> Tensor:
        """The row of each id, and zeros behind it."""
        numbers = self.pool_numbers()
        if field is not None or max(numbers) == 1:
            return super().vectors(ids, field)
        index, field = self.placed(ids, field)
        known, place = self.stored.at(index)
        shared, columns, pools = self.shared(field), [], self.by_length()
        for column, number in enumerate(numbers):  # each column reads its field's pool alone
            found = shared[:, column]
            if number:
                spec, here = self.lengths[number - 1], known[:, column] > 0
                cells = place[:, column].masked_fill(~here, 0).clamp(max=spec.rows - 1)
                rows = F.pad(pools[number - 1](cells), (0, self.dim - spec.width))
                found = torch.where(here.unsqueeze(-1), rows, found)
            columns.append(found)
        return torch.stack(columns, 1)

    def first_classes(self) -> Tensor:
        """Rows for the ids that come first, where nobody has found others."""
        numbers = self.pool_numbers()
        if max(numbers) == 1 and len(self.lengths) == 1 and 0 not in numbers:
            return super().first_classes()
        parts = []
        for size, number in zip(self.sizes, numbers, strict=True):
            part = torch.zeros(size, dtype=torch.int64)
            if number:
                part[: self.lengths[number - 1].rows] = number
            parts.append(part)
        return torch.cat(parts)

    def classes_of(self, widths: Tensor) -> Tensor:
        """The class of each id, where those that should have no row have width 0."""
        numbers = torch.tensor(self.pool_numbers())
        return numbers.repeat_interleave(torch.tensor(self.sizes)) * (widths > 0)
