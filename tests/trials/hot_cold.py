"""Trial: frequent ids have rows of their own, found through a compact map; the others share."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from bitfold.extending import (
    Ask,
    Corridor,
    Forms,
    Group,
    Lookup,
    Mapped,
    Method,
    Mixed,
    Plan,
    Program,
    Raw,
    Statistics,
    StoredSpec,
    Traits,
    allocate,
    build_map,
    check_minimum,
    derive_salt,
    field_sizes,
    option,
    place,
)


class HotCold(Corridor):
    """Maps that are built of the most frequent ids, before the first step."""

    prepares = True

    def prepare(self, stats: Statistics) -> None:
        """Give the hottest ids the places of the maps."""
        super().prepare(stats)
        for field, (lookup, *_) in zip(self.plan.fields, self.program.fields, strict=True):
            if isinstance(source := lookup.source, Mapped):
                hot, _ = stats.top(field.name, source.ids)
                self.stored.put(source.table, torch.from_numpy(build_map(source.map, hot)))


@dataclass(frozen=True)
class TrialHotCold(Method):
    """Half of a field's rows for as many hot ids, half for all the others."""

    hot: float = option(0.5, help="the share of a field's rows that hot ids have")

    name: ClassVar[str] = "trial-hot-cold"
    summary: ClassVar[str] = "rows of their own for hot ids, a hash for the others"
    when: ClassVar[str] = "never: a trial of what methods are written with"
    traits: ClassVar[Traits] = Traits(needs_counts=True)
    forms: ClassVar[Forms] = ({}, {"hot": 0.8})

    def plan(self, ask: Ask) -> Group:
        """Rows for every field; two bytes and eight of each are for its map."""
        sizes = field_sizes(self.name, ask.fields, ask.budget)
        assert ask.budget is not None, "field_sizes asks for one"
        fixed, row = ask.fixed_bytes(len(sizes)) + 8 * len(sizes), ask.row_bytes() + 2
        least = [min(size, 2) for size in sizes]
        check_minimum(self.name, fixed + row * sum(least), ask.budget)
        rows = allocate(sizes, least, sizes, (ask.budget - fixed) // row, 0.5)
        bases, end = place(rows)
        lookups, stored = [], []
        for f, (given, base) in enumerate(zip(rows, bases, strict=True)):
            source: Any = Raw()
            if given != ask.fields[f].num_embeddings:
                hot, salt = min(given - 1, max(1, int(given * self.hot))), derive_salt(ask.seed, f)
                source = Mapped(f"hot_{f}", hot, salt, Mixed(salt), given - hot)
                stored.append(StoredSpec(source.table, source.map.bytes, 8, "map"))
            lookups.append((Lookup(source, given, base),))
        return self.finish(ask, Program(1, tuple(lookups), end), "sum", stored=stored)

    def build(self, plan: Plan, **words: Any) -> HotCold:
        """The corridor that is prepared."""
        return HotCold(plan, std=self.std, **words)
