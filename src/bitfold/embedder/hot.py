"""Hot ids that own rows: a corridor whose pool begins with them, found by one map of all fields."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bitfold.address import Mapped
from bitfold.embedder.contract import Progress
from bitfold.embedder.corridor import Corridor
from bitfold.planning.plan import Plan
from bitfold.planning.statistics import Statistics
from bitfold.pool.moved import RowMove


class Hot(Corridor):
    """A corridor in which the most frequent ids, of all fields together, have rows of their own.

    Lookups read one map, of `n` ids of all fields that have it, and the first of each field reads
    one slice of the pool: rows `0..n-1` are those of hot ids, the others are shared.

    Args:
        plan: one group, of such a program.
        how: as for every corridor.
    """

    def __init__(self, plan: Plan, **how: Any) -> None:
        first = [lookups[0].source for lookups in plan.program.fields]
        self.maps = {f: each for f, each in enumerate(first) if isinstance(each, Mapped)}
        self.source = next(iter(self.maps.values()))  # that of any field has the map
        super().__init__(plan, **how)

    @property
    def hot(self) -> int:
        """How many rows hot ids own."""
        return self.source.ids

    @property
    def owned(self) -> int:  # type: ignore[override]
        """The rows that single ids own."""
        return self.hot

    def prepare(self, stats: Statistics) -> None:
        """Give the most frequent ids of all fields rows of their own."""
        names = [field.name for field in self.plan.fields]
        tops = [stats.top(name, self.hot) for name in names]
        counts = np.concatenate([counts for _, counts in tops])
        chosen = np.zeros(len(counts), bool)
        chosen[np.argsort(-counts, kind="stable")[: self.hot]] = True
        parts = np.split(chosen, np.cumsum([len(ids) for ids, _ in tops])[:-1])
        keys = [self.keys(f, tops[f][0][part]) for f, part in enumerate(parts)]
        self.put_map(np.concatenate(keys))

    def keys(self, field: int, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """What the map knows ids of a field by."""
        found: NDArray[np.int64] = self.maps[field].of.code_torch(torch.tensor(ids), {}).numpy()
        return found

    def put_map(self, keys: NDArray[np.int64]) -> None:
        """Have the map hold these keys, `n` at most."""
        from bitfold.kernels.map_building import build_map  # with Numba, which loads late

        source = self.source
        self.stored.put(source.table, torch.from_numpy(build_map(source.map, keys)))
        self.waits = False

    def maintain(self, at: Progress) -> Sequence[RowMove]:
        """Nothing: ids that training lacks read rows that others train."""
        return ()

    @torch.no_grad()
    def _draw(self, std: float, generator: torch.Generator) -> None:
        """A hot row counts once for each of its lookups that are added: it starts as their mean."""
        super()._draw(std, generator)
        most = max(self.program.terms)
        if self.fuse.share(0, most) is not None:
            self.pool.weight[: self.hot] /= most**0.5
        self.pool.refresh()
