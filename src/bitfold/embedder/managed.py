"""Ids that own rows once they came often enough, until others need them more.

The idea is that of managed collision modules (TorchRec, `ZchModule`): ids are remapped to rows
without collisions, by rules of admission and eviction, while training.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitfold.address import Mapped
from bitfold.embedder.admission import DEPTH, MOST, SLOTS, CountMin, Waiting
from bitfold.embedder.contract import Progress
from bitfold.embedder.owners import OWNS, Keys, Owning
from bitfold.planning.plan import Plan
from bitfold.pool.moved import RowMove

OWNERS, COUNTS, STAMPS = "owners", "counts", "stamps"
"""Of each row of an id: its owner's key, how often that came, the step by which it came last."""
COUNTERS, WAITING, CELLS = "counters", "waiting", "waiting_cells"
"""The sketch that others are counted in, who waits for a row, and the later shared row of each."""
CLOCK, TIMES = "clock", 5
"""Five numbers: steps so far, steps when it was last told, steps when counts were last halved, ids
admitted and ids evicted."""
SMALL = 0.1  # what nothing is divided by
_MET = np.uint32(0xFFFFFFFF)  # the stamp of an owner that came since the last turn


class Rules(NamedTuple):
    """When ids own rows.

    Args:
        admit: how often an id must come.
        evict: who gives way where all rows have owners: `lfu`, `lru` or `none`.
        ttl: steps after which an owner that did not come gives its row up; 0: never.
        half: steps after which counts are halved.
    """

    admit: int
    evict: str
    ttl: int
    half: int


class Managed(Owning):
    """A corridor in which ids own rows by rules, and read shared rows before and after.

    Args:
        plan: one group, of a program of hot ids, with the tables that the rules need.
        rules: when ids own rows.
        how: as for every corridor whose rows change their owners.
    """

    def __init__(self, plan: Plan, *, rules: Rules, **how: Any) -> None:
        self.rules = rules
        super().__init__(plan, **how)

    @property
    def rows_in_use(self) -> int:
        """How many ids own rows."""
        return int(np.count_nonzero(self.noted(OWNERS, np.uint32)))

    def used_bytes(self) -> int:
        """Serving bytes but for rows that nobody owns, and what is kept for each of them.

        That is what a table that grows row by row would take; `bytes` counts all that is reserved.
        """
        spec, free = self.plan.group.pools[0], self.hot - self.rows_in_use
        per_row = spec.row_bytes + 2 * (spec.packed and spec.scale == "row")
        each = [table for table in self.plan.group.stored if table.name != CLOCK]
        beside = sum(table.bytes for table in each) * free // self.hot
        return sum(self.bytes().values()) - free * per_row - beside

    @torch.no_grad()
    def observe(self, ids: Tensor, field: Tensor, grad: Tensor) -> None:
        """Count the ids of a step: owners beside their rows, the others in the sketch."""
        keys = self.known(ids, field).masked_fill(~grad.any(1), -1).cpu().numpy()
        keys, first, times = np.unique(keys, return_index=True, return_counts=True)
        keys, first, times = (each[keys >= 0] for each in (keys, first, times))
        tables = self.tables_of_rules()
        owners, places = tables[OWNERS], self.places(keys)
        owns = (places >= 0) & (owners[places] == (keys.astype(np.uint32) | OWNS))
        if COUNTS in tables:
            now = tables[COUNTS][places[owns]] + times[owns]
            tables[COUNTS][places[owns]] = np.minimum(now, MOST)
        if STAMPS in tables:
            tables[STAMPS][places[owns]] = _MET
        keys, first, times = keys[~owns], first[~owns], times[~owns]
        if COUNTERS in tables:
            sketch = self._sketch(tables)
            asking = sketch.add(keys, times) >= self.rules.admit
            keys, first = keys[asking], first[asking]
            if sketch.crowded:
                sketch.halve()
        chosen = torch.from_numpy(first).to(ids.device)
        cells = self._later_cells(ids[chosen], field[chosen]) if CELLS in tables else None
        self._waiting(tables).add(keys, cells)
        self.note(tables)

    @torch.no_grad()
    def maintain(self, at: Progress) -> Sequence[RowMove]:
        """Give rows to those that wait, as the rules have it; theirs begin as what they read."""
        tables = self.tables_of_rules()
        clock = tables[CLOCK]
        clock[0] += at.step - clock[1] if at.step >= clock[1] else at.step  # from 0 in a new loop
        clock[1] = at.step
        old = np.flatnonzero(tables[OWNERS])
        before = (tables[OWNERS][old] & ~OWNS).astype(np.int64)
        ages = np.zeros(len(old), np.int64)
        if STAMPS in tables:
            stamps = tables[STAMPS]
            stamps[stamps == _MET] = clock[0]
            ages = clock[0] - stamps[old].astype(np.int64)
        counts = tables[COUNTS][old].astype(np.int64) if COUNTS in tables else ages
        stays = ages < self.rules.ttl if self.rules.ttl else np.ones(len(old), bool)
        waiting = self._waiting(tables)
        new, cells = waiting.keys, waiting.cells if CELLS in tables else None
        came = self._sketch(tables).counts(new) if COUNTERS in tables else np.ones(len(new), int)
        order = np.lexsort((new, -came))
        room = self.hot - int(stays.sum())
        more = self._displaced(stays, counts, ages, came[order[room:]])
        chosen = order[: room + len(more)]
        stays[more] = False
        now = np.concatenate([before[stays], new[chosen]])
        moves = self.hand_over(before, now, None if cells is None else self._factors(cells[chosen]))
        places = self.places(now)
        told = {
            OWNERS: now.astype(np.uint32) | OWNS,
            COUNTS: np.concatenate([counts[stays], came[chosen]]),
            STAMPS: np.concatenate([(clock[0] - ages)[stays], np.full(len(chosen), clock[0])]),
        }
        for name in told.keys() & tables.keys():
            tables[name][:] = 0
            tables[name][places] = told[name]
        waiting.clear()
        clock[3:] += len(chosen), len(old) - int(stays.sum())
        if clock[0] - clock[2] >= self.rules.half:
            clock[2] = clock[0]
            for name in {COUNTS, COUNTERS} & tables.keys():
                tables[name] >>= 1
        self.note(tables)
        return moves

    def _displaced(
        self, stays: NDArray[np.bool_], counts: Keys, ages: Keys, came: Keys
    ) -> NDArray[np.int64]:
        """Which owners give way to newcomers that came so often, the most frequent first."""
        if self.rules.evict == "none":
            return np.empty(0, np.int64)
        weak = -ages if self.rules.evict == "lru" else counts
        victims = np.flatnonzero(stays)
        victims = victims[np.argsort(weak[victims], kind="stable")][: len(came)]
        if self.rules.evict == "lru":  # newcomers came since the last turn
            better = ages[victims] > 0
        else:
            better = counts[victims] < came[: len(victims)]
        return victims[: int(np.logical_and.accumulate(better).sum())]

    def _factors(self, cells: NDArray[np.int64]) -> Tensor:
        """What the later rows at cells are, over what all owners of the field read there."""
        weight = self.pool.weight
        bases = np.array(sorted(each.base for each in self._laters().values()))
        ones = bases[np.searchsorted(bases, cells, "right") - 1]
        later, one = (weight[torch.from_numpy(at).to(weight.device)] for at in (cells, ones))
        return torch.where(one.abs() > SMALL, later / one, later)

    def tables_of_rules(self) -> dict[str, NDArray[Any]]:
        """What is noted, by name; changes are kept by `note`."""
        kinds: dict[str, Any] = {
            OWNERS: np.uint32, COUNTS: np.uint8, STAMPS: np.uint32, COUNTERS: np.uint8,
            WAITING: np.uint32, CELLS: np.uint32, CLOCK: np.int64,
        }  # fmt: skip
        return {
            name: self.noted(name, kind)
            for name, kind in kinds.items()
            if name in self.stored.named()
        }

    def _sketch(self, tables: dict[str, NDArray[Any]]) -> CountMin:
        return CountMin(tables[COUNTERS].reshape(DEPTH, -1))

    def _waiting(self, tables: dict[str, NDArray[Any]]) -> Waiting:
        cells = tables[CELLS].reshape(-1, SLOTS) if CELLS in tables else None
        return Waiting(tables[WAITING].reshape(-1, SLOTS), cells)

    def _laters(self) -> dict[int, Any]:
        """The second lookup of each field that has one."""
        return {f: each[1] for f, each in enumerate(self.program.fields) if len(each) > 1}

    def _later_cells(self, ids: Tensor, field: Tensor) -> NDArray[np.int64]:
        """The row that ids `[n]` without an own one read second."""
        cells = torch.zeros_like(ids)
        for number, lookup in self._laters().items():
            here, source = field == number, lookup.source
            assert isinstance(source, Mapped)
            code = source.ids + source.miss.scaled_torch(ids[here], source.misses)
            cells[here] = lookup.base + code // lookup.divisor % lookup.radix
        found: NDArray[np.int64] = cells.cpu().numpy()
        return found
