"""Hot and cold ids: the frequent ones own rows, the others share by one hash or several.

Source: Zhang, Liu, Xie, Ktena, Tejani, Gupta, Myana, Dilipkumar, Paul, Ihara, Upadhyaya, Huszar,
Shi, "Model Size Reduction Using Frequency Based Double Hashing for Recommender Systems", RecSys
2020, arXiv 2007.14523: a cold id has two hashed rows. Here hot ids are those of all fields that
occur most, found by a compact map.

A map takes 10.5 bits a hot id; pointers for every dense id would take log2(rows) bits an id, which
is more wherever the table does not nearly fit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from bitfold.address import Lookup, Mapped, Mixed, Program
from bitfold.address.compact_map import MOST_IDS, CompactMap
from bitfold.address.mixing import derive_salt, field_salt
from bitfold.address.source import MOST_MISSES
from bitfold.config import option
from bitfold.embedder.contract import Embedder
from bitfold.embedder.hot import Hot
from bitfold.errors import BitfoldError
from bitfold.method.allocation import check_minimum
from bitfold.method.base import Forms, Method, Traits, check_options
from bitfold.method.hash import field_sizes
from bitfold.planning.ask import Ask
from bitfold.planning.plan import Plan
from bitfold.planning.spec import Group, StoredSpec


@dataclass(frozen=True)
class HotCold(Method):
    """Rows of their own for the most frequent ids; the mean of `hashes` shared rows for others."""

    hot: float = option(0.5, help="the share of the budget that rows of hot ids take")
    hashes: int = option(2, help="k, the shared rows of a cold id; a hot one reads its own")

    name: ClassVar[str] = "hot-cold"
    summary: ClassVar[str] = "frequent ids own rows, the others share"
    when: ClassVar[str] = "few ids make most of the rows; needs counts"
    traits: ClassVar[Traits] = Traits(needs_counts=True)
    forms: ClassVar[Forms] = ({}, {"hashes": 1, "hot": 0.8}, {"hashes": 3, "hot": 0.2, "bits": 4})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self.name, vars(self), hashes=1)
        check_share("hot", self.hot)

    def plan(self, ask: Ask) -> Group:
        """As many hot rows as their share of the budget buys, and shared rows for the rest."""
        field_sizes(self.name, ask.fields, ask.budget)
        whole = self.whole(ask)
        if whole is not None and whole.bytes(ask.dim) <= (ask.budget or 0):
            return whole
        hot, shared = split(self.name, ask, self.hot, whole)
        fields = tuple(
            tuple(hot_lookup(ask, name, hot, shared, k) for k in range(self.hashes))
            for name in (field.name for field in ask.fields)
        )
        program = Program(1, fields, hot + shared)
        stored = [StoredSpec(*table) for table in program.tables.values()]
        return self.finish(ask, program, "mean", stored=stored)

    def build(
        self, plan: Plan, *, seed: int | None, device: torch.device | str | None, sparse: bool
    ) -> Embedder:
        """The corridor that chooses hot ids, or a whole table."""
        if not plan.group.stored:
            return super().build(plan, seed=seed, device=device, sparse=sparse)
        return Hot(plan, std=self.std, seed=seed, device=device, sparse=sparse)


def check_share(name: str, share: float) -> None:
    """Raise unless a share lies between 0 and 1."""
    if not 0 < share < 1:
        raise BitfoldError(f"{name} is out of range", got=share, expected="between 0 and 1")


def map_bytes(hot: int) -> int:
    """Bytes of the map of so many ids."""
    return CompactMap(hot, 0).bytes


def split(
    method: str,
    ask: Ask,
    share: float,
    whole: Group | None,
    beside: Callable[[int], int] = map_bytes,
) -> tuple[int, int]:
    """How many rows hot ids own, and how many the others share.

    Args:
        method: whose they are, for errors.
        ask: what it was asked for.
        share: of the budget, for rows of hot ids and what is kept of them beside.
        whole: the full table, which may be less than the least of the two.
        beside: what is kept beside the rows of so many hot ids, in bytes.

    Raises:
        BudgetTooSmall: for a row of each kind.
    """
    unit, fixed = ask.row_bytes(), ask.fixed_bytes(1)

    def taken(hot: int) -> int:
        return hot * unit + beside(hot)

    least = fixed + taken(1) + unit
    least = least if whole is None else min(least, whole.bytes(ask.dim))
    assert ask.budget is not None
    check_minimum(method, least, ask.budget)
    room = ask.budget - fixed
    sizes = [field.size for field in ask.fields]
    most = MOST_IDS if None in sizes else sum(filter(None, sizes))
    hot = min(most, max(1, int(share * room * 1024 / taken(1024))))
    while hot > 1 and taken(hot) + unit > room:
        hot -= 1
    return hot, min((room - taken(hot)) // unit, MOST_MISSES)


def hot_lookup(ask: Ask, field: str, hot: int, shared: int, k: int, bits: int = 64) -> Lookup:
    """The lookup of a field: a hot id's row, or the `k`-th shared one of another.

    Args:
        ask: with the seed of the salts.
        field: its name. The map of all fields holds ids mixed by it.
        hot: rows of hot ids.
        shared: rows of the others.
        k: which of a cold id's rows; the first follows from what the map knows it by.
        bits: of what the map knows an id by.
    """
    key = Mixed(field_salt(ask.seed, field), 64, bits)
    miss = Mixed(field_salt(ask.seed, field, k), 64, bits) if k else key
    source = Mapped("hot", hot, derive_salt(ask.seed, 0), miss, shared, key)
    return Lookup(source, hot + shared, 0)
