"""Managed collision: ids own rows once they came often enough, and give them up to others.

The idea is that of TorchRec's managed collision modules: which id has which row is decided while
training, by rules of admission and eviction. Ids without a row share others. Rows are found by a
compact map; what the rules need is counted and saved, so that a served model can be trained on.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from bitfold.address import Lookup, Mapped, Mixed, Program, Raw
from bitfold.address.mixing import field_salt
from bitfold.address.source import MOST_MISSES
from bitfold.config import option
from bitfold.embedder.admission import DEPTH, MOST, SLOTS
from bitfold.embedder.contract import Embedder
from bitfold.embedder.managed import (
    CELLS,
    CLOCK,
    COUNTERS,
    COUNTS,
    OWNERS,
    STAMPS,
    TIMES,
    WAITING,
    Managed,
    Rules,
)
from bitfold.embedder.owners import KEY_BITS
from bitfold.errors import BitfoldError, BudgetTooSmall
from bitfold.method.base import Forms, Method, check_options
from bitfold.method.digits import WHOLE
from bitfold.method.hash import field_sizes
from bitfold.method.hot_rows import check_share, hot_lookup, map_bytes, split
from bitfold.planning.ask import Ask
from bitfold.planning.field import Field
from bitfold.planning.plan import Plan
from bitfold.planning.spec import Group, StoredSpec

MANY = 64  # ids for each shared row, where nobody knows
WAITS = 8  # own rows for each id that may wait
LATER = 4  # a field's later digits take so small a part of an even share of the shared rows


@dataclass(frozen=True)
class ManagedCollision(Method):
    """Rows of their own for ids that come often and lately; shared rows for the others."""

    hot: float = option(
        0.5,
        help="the share of the budget that rows of their own take, with all that is kept of them",
    )
    shared: str = option(
        "hash", help="what the others read: one hashed row, or two digits of a binary code",
        choices=("hash", "digits"),
    )  # fmt: skip
    admit: int = option(2, help="how often an id must come to get a row; 1: at once")
    evict: str = option(
        "lfu", help="who gives way where all rows are taken: who came least, or longest ago",
        choices=("lfu", "lru", "none"),
    )  # fmt: skip
    ttl: int = option(0, help="steps after which an id that did not come loses its row; 0: never")
    half: int = option(1000, help="steps after which counts are halved, to follow changes")
    sketch: float = option(2.0, help="bytes for each own row that the others are counted in")
    every: int = option(100, help="after how many steps rows change their owners")
    capacity: int | None = option(
        None, help="own rows that are reserved; what hot buys when not said"
    )

    name: ClassVar[str] = "managed-collision"
    summary: ClassVar[str] = "ids that come often own rows, while they do; the others share"
    when: ClassVar[str] = "ids arrive and leave, as in a stream"
    forms: ClassVar[Forms] = (
        {"every": 3},
        {"every": 2, "shared": "digits", "hot": 0.7},
        {"every": 2, "evict": "lru", "ttl": 4, "admit": 1, "bits": 4},
        {"every": 1, "evict": "none", "admit": 1, "capacity": 40, "budget": None},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self.name, vars(self), admit=1, ttl=0, half=1, every=1, capacity=1)
        check_share("hot", self.hot)
        if self.admit > MOST:
            raise BitfoldError("admit is out of range", got=self.admit, expected=f"1 to {MOST}")
        if not 0 < self.sketch <= MOST:
            raise BitfoldError("sketch is out of range", got=self.sketch, expected="above 0")

    @property
    def oversize(self) -> bool:
        """Rows that are reserved by number, whatever they weigh."""
        return super().oversize or self.capacity is not None

    def plan(self, ask: Ask) -> Group:
        """Own rows with all that is kept of them, and shared rows for the rest of the budget."""
        if ask.budget is None and self.capacity is None:
            try:
                field_sizes(self.name, ask.fields, None)
            except BitfoldError as error:
                raise BitfoldError(
                    f"method {self.name!r} needs a budget or a capacity",
                    got="none",
                    expected="bytes or a ratio, or rows of their own (capacity=N)",
                ) from error
        whole = self.whole(ask)
        fits = whole is not None and ask.budget and whole.bytes(ask.dim) <= ask.budget
        if whole is not None and fits:
            return whole
        small = self._small(ask)
        if small:
            with suppress(BudgetTooSmall):
                return self._planned(ask, small, None)
        return self._planned(ask, (), whole)

    def build(
        self, plan: Plan, *, seed: int | None, device: torch.device | str | None, sparse: bool
    ) -> Embedder:
        """The corridor that manages rows, or a whole table."""
        if not any(each.name == OWNERS for each in plan.group.stored):
            return super().build(plan, seed=seed, device=device, sparse=sparse)
        rules = Rules(self.admit, self.evict, self.ttl, self.half)
        return Managed(
            plan, rules=rules, every=self.every, std=self.std, seed=seed, device=device,
            sparse=sparse,
        )  # fmt: skip

    def _small(self, ask: Ask) -> tuple[int, ...]:
        """The fields of dense ids, by number, that take so little that they are whole."""
        part = (ask.budget or 0) // (WHOLE * len(ask.fields))
        sizes = [field.num_embeddings for field in ask.fields]
        return tuple(f for f, size in enumerate(sizes) if size and size * ask.row_bytes() <= part)

    def _planned(self, ask: Ask, small: tuple[int, ...], whole: Group | None) -> Group:
        """Rows of their own, shared ones, and fields that are whole."""
        numbers = [f for f in range(len(ask.fields)) if f not in small]
        fields, digits = [ask.fields[f] for f in numbers], self.shared == "digits"
        sizes = [ask.fields[f].num_embeddings or 0 for f in small]
        taken = sum(sizes) * ask.row_bytes()
        # How many hashed ids are known says nothing of how many will come.
        coming = tuple(replace(each, distinct=None) for each in fields)
        budget = None if ask.budget is None else ask.budget - taken
        rest = replace(ask, fields=coming, budget=budget)
        slices = 1 + len(small) + digits * len(fields)
        least = 1 + 2 * len(fields) if digits else 1
        hot, shared = split(
            self.name, rest, self.hot, whole, self._beside,
            slices=slices, least=least, rows=self.capacity,
        )  # fmt: skip
        radices = _later_radices(fields, shared, hot) if digits else []
        first = min(shared - sum(radices), MOST_MISSES)
        laid: dict[int, tuple[Lookup, ...]] = {}
        end = hot + first
        for f, size in zip(small, sizes, strict=True):
            laid[f] = (Lookup(Raw(), size, end),)
            end += size
        for k, f in enumerate(numbers):
            name = ask.fields[f].name
            laid[f] = (hot_lookup(ask, name, hot, first, 0, KEY_BITS),)
            if digits:
                laid[f] += (_later_lookup(ask, name, laid[f][0], radices[k], end),)
                end += radices[k]
        program = Program(1, tuple(laid[f] for f in range(len(ask.fields))), end)
        stored = [StoredSpec(*table) for table in program.tables.values()] + self._noted(hot)
        return self.finish(ask, program, "product" if digits else "sum", stored=stored)

    def _beside(self, hot: int) -> int:
        """Bytes beside so many own rows."""
        return map_bytes(hot) + sum(each.bytes for each in self._noted(hot))

    def _noted(self, hot: int) -> list[StoredSpec]:
        """What the rules need, for so many own rows."""
        counted = self.evict == "lfu"
        slots = -(-hot // (WAITS * SLOTS)) * SLOTS
        tables = [(OWNERS, hot, 32)]
        tables += [(COUNTS, hot, 8)] if counted else []
        tables += [(STAMPS, hot, 32)] if self.ttl or self.evict == "lru" else []
        if self.admit > 1 or counted:
            tables += [(COUNTERS, (int(hot * self.sketch) // DEPTH + 1) * DEPTH, 8)]
        tables += [(WAITING, slots, 32)]
        tables += [(CELLS, slots, 32)] if self.shared == "digits" else []
        return [StoredSpec(*each, "sketch") for each in (*tables, (CLOCK, TIMES, 64))]


def _later_radices(fields: Sequence[Field], shared: int, hot: int) -> list[int]:
    """Rows of each field's later digit: one for all owners, and what tells the others apart."""
    most = min(max(1, shared // (LATER * len(fields))), MOST_MISSES // hot)
    sizes = [field.size or MANY * shared for field in fields]
    return [1 + min(most, -(-LATER * size // shared)) for size in sizes]


def _later_lookup(ask: Ask, field: str, first: Lookup, radix: int, base: int) -> Lookup:
    """The second digit of a field: row 0 of its slice for owners, one of the others for others."""
    source = first.source
    assert isinstance(source, Mapped)
    miss = Mixed(field_salt(ask.seed, field, 1), 64, KEY_BITS)
    later = replace(source, miss=miss, misses=source.ids * (radix - 1))
    return Lookup(later, radix, base, divisor=source.ids)
