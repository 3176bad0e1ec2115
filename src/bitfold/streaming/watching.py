"""What is watched beside the model, and goes into its checkpoint: seen ids, rows of new owners."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bitfold.embedder.contract import Embedder
from bitfold.pool.moved import RowMove
from bitfold.streaming.seen import filter_bytes


class Watched(nn.Module):
    """The ids that were seen, and the rows whose owner has changed since the window began.

    Args:
        parts: the embedders of the model.
        distinct: distinct ids of the first window.
    """

    seen: Tensor

    def __init__(self, parts: Sequence[Embedder], distinct: int) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(filter_bytes(distinct), dtype=torch.uint8))
        self._living = [part for part in parts if part.observes or part.every or part.owned]
        self._names: dict[int, str] = {}
        for part in self._living:
            for table in part.tables():
                name = f"changed_{len(self._names)}"
                rows = torch.zeros(table.weight.shape[0], dtype=torch.bool)
                self.register_buffer(name, rows)
                self._names[id(table.weight)] = name

    def moved(self, part: Embedder, moves: Sequence[RowMove]) -> None:
        """Note which rows have new owners.

        Where an embedder says which rows are owned, a row that comes from one of them keeps its
        owner. Where it does not, one that comes from another row that is filled again does.
        """
        for move in moves:
            name = self._names.get(id(move.weight))
            if name is None:
                continue
            changed = self.get_buffer(name)
            source, target = move.source.cpu(), move.target.cpu()
            kept = source < part.owned if part.owned else torch.isin(source, target)
            kept &= source >= 0
            before = changed[source.clamp_min(0)]
            owned = target < part.owned if part.owned else torch.ones_like(kept)
            changed[target] = torch.where(kept, before, True) & owned

    def churn(self) -> float | None:
        """The share of owned rows whose owner changed; None where no ids own rows that move."""
        changed = total = 0
        for part in self._living:
            tables = list(part.tables())
            for table in tables[: 1 if part.owned else None]:
                rows = self.get_buffer(self._names[id(table.weight)])
                rows = rows[: part.owned] if part.owned else rows
                changed, total = changed + int(rows.sum()), total + len(rows)
        return changed / total if total else None

    def begin(self) -> None:
        """A window begins."""
        for name in self._names.values():
            self.get_buffer(name).zero_()
