"""Tensor train: a table as a product of three cores, which an id's three digits index.

Source: Yin, Acun, Liu, Wu, "TT-Rec: Tensor Train Compression for Deep Learning Recommendation
Models", MLSys 2021, arXiv 2101.11714. A field's `V` ids are `v1 v2 v3` triples of digits, the width
is `d1 d2 d3`, and the slices `[d1, r1]`, `[r1, d2, r2]`, `[r2, d3]` that the digits pick are
multiplied. The ranks follow from the budget and are one for all fields; a field whose table weighs
less than its slices is whole. Hashed ids are codes of some bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch

from bitfold.address import Lookup, Program
from bitfold.address.program import place
from bitfold.address.radices import least_radices
from bitfold.config import option, to_json
from bitfold.embedder.contract import Embedder
from bitfold.embedder.tensor_train import CORES, TensorTrain, core_widths, factors
from bitfold.method.allocation import check_minimum, largest
from bitfold.method.base import Forms, Method, check_options, only
from bitfold.method.digits import Code, check_width, code_of
from bitfold.method.hash import field_sizes
from bitfold.planning.ask import Ask
from bitfold.planning.plan import Plan
from bitfold.planning.spec import FINGERPRINT_BYTES, OWN, Group, PoolSpec

SPARE_BITS = 2  # of a hashed code, beyond those that it has at least: a 16th of the ids may meet
UNEVEN = 2  # how much larger one rank may be than the other, where that uses the budget better
NAMES = ("first", "middle", "last")
Ranks = tuple[int, int]


@dataclass(frozen=True)
class TensorTrainMethod(Method):
    """Three slices an id, multiplied."""

    rank: int | None = option(
        None, help="r, of both bonds between the cores; the most that the budget buys if not said"
    )
    code_bits: int | None = option(
        None, help="S, bits of a hashed id's code; when not said ceil(log2 n) + 4 for n ids, or "
        "down to 2 fewer where the budget is too small",
    )  # fmt: skip

    name: ClassVar[str] = "tensor-train"
    summary: ClassVar[str] = "an id's three digits pick slices of three cores, multiplied"
    when: ClassVar[str] = "tables that are near to low rank; a lookup costs a few matrix products"
    forms: ClassVar[Forms] = ({}, {"rank": 2, "bits": 4})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self.name, vars(self), rank=1, code_bits=1)

    def plan(self, ask: Ask) -> Group:
        """The only group, where no field is whole or all of them are."""
        return only(self.name, self.groups(ask))

    def groups(self, ask: Ask) -> tuple[Group, ...]:
        """Whole fields, and the cores of the others at the highest ranks that the budget buys."""
        if self.rank is None:
            field_sizes(self.name, ask.fields, ask.budget)
        for field in ask.fields:
            check_width(field, self.code_bits)
        whole = self.whole(ask)
        budget = ask.budget
        if whole is not None and budget is not None and whole.bytes(ask.dim) <= budget:
            return (whole,)
        if budget is None:
            return _Trains(self, ask, SPARE_BITS).groups((self.rank or 1,) * 2)
        for spare in range(SPARE_BITS, -1, -1):
            trains = _Trains(self, ask, spare)
            minimum = trains.bytes((self.rank or 1,) * 2)
            if minimum <= budget:
                break
        if whole is not None:
            minimum = min(minimum, whole.bytes(ask.dim))
        check_minimum(self.name, minimum, budget)
        return trains.groups((self.rank,) * 2 if self.rank else trains.ranks(budget))

    def build(
        self, plan: Plan, *, seed: int | None, device: torch.device | str | None, sparse: bool
    ) -> Embedder:
        """The module of a group: cores, or whole tables."""
        if plan.group.fusion != OWN:
            return super().build(plan, seed=seed, device=device, sparse=sparse)
        return TensorTrain(plan, std=self.std, seed=seed, device=device, sparse=sparse)


class _Trains:
    """The cores of an ask's fields, for any ranks.

    Args:
        method: whose options hold.
        ask: what it was asked for.
        spare: bits of hashed codes beyond those that they have at least.
    """

    def __init__(self, method: TensorTrainMethod, ask: Ask, spare: int) -> None:
        self.method, self.ask = method, ask
        self.codes = [
            code_of(field, index, ask.seed, "succession", mix=False, code_bits=method.code_bits)
            for index, field in enumerate(ask.fields)
        ]
        self.radices = [_radices(code, spare) for code in self.codes]
        self.slices = (0,) if ask.packed else ()
        self._whole_bytes: dict[tuple[int, ...], int] = {}

    def groups(self, ranks: Ranks) -> tuple[Group, ...]:
        """Whole fields, and the cores of the others."""
        trained, kept = self._split(ranks)
        found = [self._whole(kept)] if kept else []
        if trained:
            found.append(self._cores(ranks, trained))
        return tuple(found)

    def bytes(self, ranks: Ranks) -> int:
        """What the groups weigh."""
        trained, kept = self._split(ranks)
        if kept not in self._whole_bytes:
            self._whole_bytes[kept] = self._whole(kept).bytes(self.ask.dim) if kept else 0
        cores = sum(pool.bytes for pool in self._pools(ranks, trained))
        return self._whole_bytes[kept] + (cores + FINGERPRINT_BYTES) * bool(trained)

    def ranks(self, budget: int) -> Ranks:
        """The ranks that use a budget best, of those that are about as large as each other."""
        a, _, c = factors(self.ask.dim)
        # Beyond, the outer cores have more columns than rows.
        most = max(max(radices[0] * a, radices[2] * c) for radices in self.radices)

        def fits(first: int, second: int) -> bool:
            return max(first, second) <= most and self.bytes((first, second)) <= budget

        even = largest(lambda rank: fits(rank, rank))
        best = even, even
        for first in range(round(even / UNEVEN) or 1, round(even * UNEVEN) + 1):
            if fits(first, max(1, round(first / UNEVEN))):
                second = largest(partial(fits, first))
                best = max(best, (first, min(round(first * UNEVEN), second)), key=self.bytes)
        return best

    def _split(self, ranks: Ranks) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Which fields have cores, and which are whole."""
        units = [pool.row_bytes for pool in self._pools(ranks, ())]
        row = self.ask.row_bytes()
        whole = tuple(
            number
            for number, (code, radices) in enumerate(zip(self.codes, self.radices, strict=True))
            if code.dense
            and code.ids * row <= sum(r * unit for r, unit in zip(radices, units, strict=True))
        )
        return tuple(number for number in range(len(self.codes)) if number not in whole), whole

    def _pools(self, ranks: Ranks, trained: Sequence[int]) -> list[PoolSpec]:
        rows = [sum(self.radices[number][m] for number in trained) for m in range(CORES)]
        shapes = zip(NAMES, rows, core_widths(self.ask.dim, *ranks), strict=True)
        scale = self.ask.scale if self.ask.packed else "slice"
        return [
            PoolSpec(*shape, self.ask.numbers, slices=self.slices, scale=scale) for shape in shapes
        ]

    def _whole(self, numbers: tuple[int, ...]) -> Group:
        fields = tuple(self.ask.fields[number] for number in numbers)
        found = self.method.whole(replace(self.ask, fields=fields))
        assert found is not None, "dense fields"
        return replace(found, fields=numbers)

    def _cores(self, ranks: Ranks, trained: tuple[int, ...]) -> Group:
        digits = [self.codes[number].positional(self.radices[number]) for number in trained]
        bases = [place([each.radices[m] for each in digits])[0] for m in range(CORES)]
        pools = tuple(self._pools(ranks, trained))
        fields = tuple(
            tuple(
                Lookup(
                    each.source, each.radices[m], bases[m][index], each.divisors[m],
                    leading=each.leading, pool=m,
                )
                for m in range(CORES)
            )
            for index, each in enumerate(digits)
        )  # fmt: skip
        first, *more = (pool.rows for pool in pools)
        return Group(
            fields=trained,
            method=self.method.name,
            version=self.method.version,
            options=to_json(self.method),
            program=Program(1, fields, first, tuple(more)),
            pools=pools,
            fusion=OWN,
            width=self.ask.dim,
            dtype=self.ask.dtype,
        )


def _radices(code: Code, spare: int) -> tuple[int, ...]:
    """Digits that tell a field's codes apart, the fewest of them in the middle core."""
    size = code.size if code.dense else 1 << min(code.bits, code.least_bits + spare)
    a, b, c = least_radices(size, CORES)
    return a, c, b
