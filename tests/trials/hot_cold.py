"""Trial: frequent ids have rows of their own, found through a compact map; the others share.

Maps are built by the corridor, of the statistics that it is prepared with.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from bitfold.extending import (
    Ask,
    Group,
    Lookup,
    Mapped,
    Method,
    Mixed,
    Program,
    Raw,
    StoredSpec,
    Traits,
    allocate,
    check_minimum,
    derive_salt,
    field_sizes,
    option,
    place,
)


@dataclass(frozen=True)
class TrialHotCold(Method):
    """Half of a field's rows for as many hot ids, half for all the others."""

    hot: float = option(0.5, help="the share of a field's rows that hot ids have")

    name: ClassVar[str] = "trial-hot-cold"
    summary: ClassVar[str] = "rows of their own for hot ids, a hash for the others"
    when: ClassVar[str] = "never: a trial of what methods are written with"
    traits: ClassVar[Traits] = Traits(needs_counts=True)

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
