"""MPE: ids are grouped by frequency, and each group has the number of bits that it prefers.

Source: Li et al., "Mixed-Precision Embeddings for Large-Scale Recommendation Models", 2024, arXiv
2409.20305. The paper pays for bits by a penalty; here a budget says how many there are, and which
groups have them is a knapsack over what was searched. Rows of one precision lie in a pool; a
group's class is the number of its pool, and places there follow.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from bitfold.config import option, to_json
from bitfold.embedder.contract import Embedder
from bitfold.embedder.precision_search import PrecisionSearch, liking
from bitfold.embedder.precisions import Precisions, groups_of, zipf
from bitfold.embedder.prefixes import CLASSES, REST, row_cost
from bitfold.errors import BitfoldError
from bitfold.method.allocation import check_minimum
from bitfold.method.base import Forms, Method, Phase, Traits, check_options, dense_only
from bitfold.method.hash import field_sizes
from bitfold.method.knapsack import knapsack
from bitfold.planning.ask import Ask
from bitfold.planning.plan import Plan
from bitfold.planning.spec import FINGERPRINT_BYTES, OWN, Group, PoolSpec, StoredSpec

WIDTHS = (0, 1, 2, 3, 4, 8)
"""The precisions: bits of a number."""
REST_BITS = 8


@dataclass(frozen=True)
class Mpe(Method):
    """A row an id, of 0 to 8 bits a number by how frequent it is. Needs dense ids."""

    groups_each: int = option(
        32, help="groups of a field's ids at most; more follow the frequency more closely"
    )
    spread: float = option(
        2.0,
        help="groups end at (k / groups) ** spread of a field's ids: small ones for frequent ids; "
        "1: all of one size, as in the paper",
    )
    order: str = option(
        "ids",
        help="what tells frequent ids: their own order, as a vocabulary makes them, or `counts`, "
        "with a class stored for each id",
        choices=("ids", "counts"),
    )
    rest: str = option(
        "shared",
        help="what ids of 0 bits read: a row that those of a field share, or `zeros`, as in the "
        "paper",
        choices=("shared", "zeros"),
    )
    alpha: float = option(
        0.5,
        help="precisions start from the frequency to that power: alpha / 2 bits less where ids "
        "are half as frequent",
    )
    temperature: float = option(
        0.5, help="of the softmax over precisions; smaller: nearer to one of them"
    )
    lean: float = option(
        0.1,
        help="what is learned counts so much beside what precisions start from; 1 with a penalty "
        "is the paper's",
    )
    penalty: float | None = option(
        None,
        help="the paper's weight of a number's mean bits in the loss, from even preferences; "
        "when not said a price keeps the expected bytes at the budget",
    )
    steps: str = option(
        "rows",
        help="steps of the search: by the rows' deviation, or `learned` factors of it, one a "
        "precision",
        choices=("rows", "learned"),
    )
    search: float = option(
        0.3, help="the share of the epochs in which precisions are learned; 0: as they start"
    )
    retrain: str = option(
        "carry",
        help="what follows the search: its rows, or `fresh` ones, as in the paper",
        choices=("carry", "fresh"),
    )
    chosen: str = option(
        "",
        help="bits of each group, a digit each, field by field, which a search replaces and "
        "search=0 keeps; as frequencies say when not said",
    )

    name: ClassVar[str] = "mpe"
    summary: ClassVar[str] = "rows of 0 to 8 bits a number, by how frequent an id is"
    when: ClassVar[str] = "rows of one precision do not fit, or frequencies differ a lot"
    traits: ClassVar[Traits] = Traits(
        hashed_ids=False,
        narrow=False,
        why_wide="each group of ids has bits of its own, 8 at most",
    )
    forms: ClassVar[Forms] = (
        {},
        {
            "spread": 1.0, "rest": "zeros", "penalty": 0.1, "lean": 1.0, "steps": "learned",
            "retrain": "fresh", "budget": "12x",
        },
        {"order": "counts", "search": 0.0, "budget": "16x"},
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self.name, vars(self), groups_each=(1, 65_536), penalty=0)
        for name, least, most in (
            ("spread", 0, 8),
            ("alpha", -1, 4),
            ("lean", -1, 100),
            ("temperature", 1e-6, 100),
        ):
            got = getattr(self, name)
            if not max(least, 0) <= got <= most or got == least:
                raise BitfoldError(f"{name} is out of range", got=got, expected=f"up to {most}")
        if not 0 <= self.search < 1:
            raise BitfoldError("search is out of range", got=self.search, expected="0 to below 1")
        self.refuse_map("a row for each dense id")
        unknown = set(self.chosen) - {*map(str, WIDTHS)}
        if unknown or (self.chosen and not self.chosen.strip("0")):
            raise BitfoldError(
                "chosen is not bits of groups",
                got=self.chosen[:40],
                expected="digits of " + ", ".join(map(str, WIDTHS)) + ", not all 0",
            )

    def plan(self, ask: Ask) -> Group:
        """The precisions that the budget buys, where ids are as frequent as Zipf says.

        The search finds others: see `advance`.
        """
        sizes = field_sizes(self.name, ask.fields, ask.budget)
        dense_only(self.name, ask.fields)
        assert ask.budget is not None
        whole = self.whole(ask)
        if whole is not None and whole.bytes(ask.dim) <= ask.budget:
            return replace(whole, options=to_json(replace(self, chosen="")))
        costs = self._costs(ask.dim)
        parts = groups_of(sizes, self.groups_each, self.spread)
        if self.chosen:
            if len(self.chosen) != len(parts):
                raise BitfoldError(
                    "chosen is of other groups",
                    got=f"{len(self.chosen)} digits",
                    expected=f"{len(parts)}, one a group",
                )
            found = [WIDTHS.index(int(each)) for each in self.chosen]
        else:
            least = self._fixed(sizes, parts, ask.dim, [0, 1]) + min(parts) * costs[1]
            if len(parts) == 1:
                least = self._fixed(sizes, parts, ask.dim, [1]) + parts[0] * costs[1]
            least = least if whole is None else min(least, whole.bytes(ask.dim))
            check_minimum(self.name, least, ask.budget)
            density = torch.from_numpy(zipf(sizes, parts))
            values = liking(
                density, torch.tensor(WIDTHS, device="cpu").double(), self.alpha
            ).numpy()
            found = self._best(values, sizes, parts, ask.dim, ask.budget)
        group = self._group(sizes, parts, found, ask.dim, ask.dtype)
        check_minimum(self.name, group.bytes(ask.dim), ask.budget)
        return group

    def build(
        self, plan: Plan, *, seed: int | None, device: torch.device | str | None, sparse: bool
    ) -> Embedder:
        """A whole table, the search, or rows of the precisions that it has found."""
        if plan.group.fusion != OWN:
            return super().build(plan, seed=seed, device=device, sparse=sparse)
        sizes = [field.num_embeddings or 0 for field in plan.fields]
        bits = [int(each) for each in self.chosen]
        more: dict[str, Any] = {
            "sizes": groups_of(sizes, self.groups_each, self.spread),
            "chosen": [([0, *_taken(bits)]).index(each) for each in bits],
            "counted": self.order == "counts",
            "std": self.std, "seed": seed, "device": device, "sparse": sparse,
        }  # fmt: skip
        if plan.phase or not self.search:
            return Precisions(plan, carries=self.retrain == "carry", **more)
        first = int("0" not in self.chosen)
        return PrecisionSearch(
            plan, widths=WIDTHS[first:], costs=tuple(self._costs(plan.embedding_dim)[first:]),
            alpha=self.alpha, temperature=self.temperature, lean=self.lean,
            penalty=self.penalty, learned=self.steps == "learned", **more,
        )  # fmt: skip

    def phases(self, group: Group) -> Sequence[Phase]:
        """A search, and the training of rows at the precisions that it has found."""
        if group.fusion != OWN or not self.search:
            return ()
        return Phase("search", self.search), Phase("retrain", 1 - self.search, start=self.retrain)

    def advance(self, group: Group, embedder: Embedder, phase: Phase) -> Group:
        """The precisions that groups prefer most within the same bytes."""
        if not isinstance(embedder, PrecisionSearch):
            return group
        values = embedder.preferences().detach().double().cpu().numpy()
        if not np.isfinite(values).all():
            return group
        # Where the plan has no ids of 0 bits, there was nothing that they would share.
        values = np.pad(
            values, ((0, 0), (len(WIDTHS) - values.shape[1], 0)), constant_values=np.nan
        )
        sizes, parts = embedder.sizes, embedder.group_sizes
        budget = group.bytes(group.width)
        found = self._best(values, sizes, parts, group.width, budget)
        return self._group(sizes, parts, found, group.width, group.dtype)

    def _costs(self, dim: int) -> list[int]:
        """Bytes of a row of each precision."""
        return [0, *(row_cost(self._pool("pool", 1, dim, bits), dim) for bits in WIDTHS[1:])]

    def _pool(self, name: str, rows: int, dim: int, bits: int) -> PoolSpec:
        return PoolSpec(name, rows, dim, f"q{bits}", slices=(0,), scale=self.scale)

    def _kept(
        self, sizes: Sequence[int], parts: Sequence[int], dim: int, used: Sequence[int]
    ) -> tuple[list[PoolSpec], StoredSpec]:
        """What lies beside the rows of precisions, by their numbers: a shared row, the classes."""
        count = len([each for each in used if each])
        units = sum(sizes) if self.order == "counts" else len(parts)
        pools = []
        if 0 in used and self.rest == "shared":
            pools.append(self._pool(REST, len(sizes), dim, REST_BITS))
        return pools, StoredSpec(CLASSES, units, max(1, count.bit_length()), "pointers")

    def _fixed(
        self, sizes: Sequence[int], parts: Sequence[int], dim: int, used: Sequence[int]
    ) -> int:
        """Bytes beside the rows."""
        pools, stored = self._kept(sizes, parts, dim, used)
        steps = self._pool("pool", 1, dim, 8).bytes - row_cost(self._pool("pool", 1, dim, 8), dim)
        count = len([each for each in used if each])
        fixed = FINGERPRINT_BYTES + stored.bytes + sum(pool.bytes for pool in pools)
        return fixed + count * steps

    def _best(
        self,
        values: NDArray[np.float64],
        sizes: Sequence[int],
        parts: Sequence[int],
        dim: int,
        budget: int,
    ) -> list[int]:
        """The number of each group's precision, the most valued within a budget.

        A pool and the shared rows take bytes of their own, so every set of precisions is tried.
        """
        ids, costs = np.array(parts, np.float64), np.array(self._costs(dim), np.float64)
        every = [each for each in range(len(WIDTHS)) if np.isfinite(values[:, each]).all()]
        best, found = -np.inf, None
        for count in range(len(every), 0, -1):
            for used in itertools.combinations(every, count):
                left = budget - self._fixed(sizes, parts, dim, used)
                if not any(used) or left < 0:
                    continue
                some = list(used)
                made = knapsack(values[:, some], costs[some], ids, left)
                if made is None:
                    continue
                chosen = np.array(some)[made[0]]
                if not chosen.any():
                    continue
                worth = float((values[np.arange(len(ids)), chosen] * ids).sum())
                if worth > best:
                    best, found = worth, chosen
        if found is None:  # no more than the smallest group of one bit fits
            found = np.zeros(len(ids), np.int64)
            found[int(ids.argmin())] = 1
        return [int(each) for each in found]

    def _group(
        self, sizes: Sequence[int], parts: Sequence[int], found: Sequence[int], dim: int, dtype: str
    ) -> Group:
        """A pool of as many rows as ids have each precision."""
        bits = [WIDTHS[each] for each in found]
        pools = [
            self._pool(
                f"bits_{width}",
                sum(part for part, each in zip(parts, bits, strict=True) if each == width),
                dim, width,
            )
            for width in _taken(bits)
        ]  # fmt: skip
        beside, stored = self._kept(sizes, parts, dim, sorted({*found}))
        return Group(
            fields=tuple(range(len(sizes))),
            method=self.name,
            version=self.version,
            options=to_json(replace(self, chosen="".join(map(str, bits)))),
            program=None,
            pools=(*pools, *beside),
            stored=(stored,),
            fusion=OWN,
            width=dim,
            dtype=dtype,
            own={"fingerprint": FINGERPRINT_BYTES},
        )


def _taken(bits: Sequence[int]) -> list[int]:
    """The precisions that some group has, ascending, without 0."""
    return sorted({*bits} - {0})
