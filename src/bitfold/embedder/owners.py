"""Rows that change their owners while training: what goes along, and what begins anew."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitfold.embedder.hot import Hot
from bitfold.planning.plan import Plan
from bitfold.planning.statistics import Statistics
from bitfold.pool.moved import RowMove

KEY_BITS = 31
OWNS = np.uint32(1 << KEY_BITS)
"""The bit beside a key that says that it owns a row."""
_SPREAD = np.uint64(0x9E3779B1)
Keys = NDArray[np.int64]


def bucket_of(keys: Keys, buckets: int) -> Keys:
    """The bucket of each key, of a table of so many."""
    hashed = (keys.astype(np.uint64) * _SPREAD & np.uint64(0xFFFFFFFF)).astype(np.int64)
    found: Keys = hashed * buckets >> 32
    return found


class Owning(Hot):
    """A corridor whose rows have owners that training finds; nobody owns one at first.

    Ids are known by keys of 31 bits, which their first shared row follows from. A subclass sees
    gradients, decides in `maintain` who owns rows, and says so by `hand_over`. What it must note
    for that is in stored tables.

    Args:
        plan: one group, of a program of hot ids.
        every: after how many steps rows change their owners.
        how: as for every corridor.
    """

    observes = True
    prepares = False

    def __init__(self, plan: Plan, *, every: int, **how: Any) -> None:
        super().__init__(plan, **how)
        self.every = every
        self.waits = False

    def prepare(self, stats: Statistics) -> None:
        """Nothing: training says who owns rows."""

    def known(self, ids: Tensor, field: Tensor) -> Tensor:
        """What the map knows ids `[n]` by, with the field of each; -1 in fields without a map."""
        keys = torch.full_like(ids, -1)
        for number, source in self.maps.items():
            here = field == number
            keys[here] = source.of.code_torch(ids[here], {})
        return keys

    def places(self, keys: Keys) -> Keys:
        """The rows that the map gives keys; -1 for those that it does not have."""
        table = self.stored.named()[self.source.table].cpu().numpy()
        return self.source.map.places(table, keys)

    def hand_over(
        self, before: Keys, now: Keys, factors: Tensor | None = None
    ) -> Sequence[RowMove]:
        """Have rows owned by other keys: whoever stays keeps its numbers, wherever they lie then.

        A newcomer's row begins as what it has read so far, with the optimizer's state of its
        shared row. Rows that were given up and that nobody takes begin anew, as the mean of the
        shared ones: whoever comes to read them finds nothing of the owner before.

        Args:
            before: distinct keys that own rows.
            now: distinct keys that shall.
            factors: what each newcomer's shared row is multiplied with, `[n, w]`, in the order
                that they have in `now`; None for ones.

        Returns:
            The move, if there is one.
        """
        given, rows = self.places(before), self.places(now)
        owner = np.full(self.hot, -1)
        owner[given] = before
        kept = (rows >= 0) & (owner[rows] == now)
        if len(now) == len(before) and kept.all():
            return ()
        weight, shared = self.pool.weight, self.source.misses
        rows = np.where(kept, rows, self.hot + (now * shared >> KEY_BITS))
        numbers = weight[torch.from_numpy(rows).to(weight.device)]
        if factors is not None:
            numbers[torch.from_numpy(~kept).to(weight.device)] *= factors
        self.put_map(now)
        target = self.places(now)
        owned_no_more = np.zeros(self.hot, bool)
        owned_no_more[given] = True
        owned_no_more[target] = False
        free = np.flatnonzero(owned_no_more)
        moved = torch.from_numpy(np.concatenate([target, free])).to(weight.device)
        mean = weight[self.hot : self.hot + shared].mean(0)
        weight[moved] = torch.cat([numbers, mean.expand(len(free), -1)])
        source = np.concatenate([rows, np.full(len(free), -1)])
        return [RowMove(weight, torch.from_numpy(source).to(weight.device), moved)]

    def noted(self, name: str, kind: Any) -> NDArray[Any]:
        """A stored table as numbers: in its memory, where that is the CPU's."""
        return self.stored.named()[name].cpu().numpy().view(kind)

    def note(self, tables: Mapping[str, NDArray[Any]]) -> None:
        """Keep what was changed in tables that `noted` gave, where they are not in its memory."""
        for name, values in tables.items():
            if not self.stored.named()[name].is_cpu:
                self.stored.put(name, torch.from_numpy(values.reshape(-1).view(np.uint8)))

    def _draw(self, std: float, generator: torch.Generator) -> None:
        """Fresh rows, which nobody owns."""
        super()._draw(std, generator)
        for table in self.stored.named().values():
            table.zero_()

    def _load_from_state_dict(self, *given: Any) -> None:
        super()._load_from_state_dict(*given)
        self.waits = False
