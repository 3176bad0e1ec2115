"""The default: a budget alone, and the best use of it that our boards know.

Precision, sharing and composition multiply, and the boards say in which order to spend (see
docs/results.md, "What auto chooses, and why"):

1. all ids whole in their floating type, where the budget has room for it;
2. all ids whole at 8 or 4 bits a number, the most that fit;
3. where there is room for half of that, all ids have rows of their own at 4 bits, somewhat narrower
   ones the more ids a field has, and a matrix a field lifts them (mixed dimensions);
4. below that, ids share rows, at 4 bits a number: fewer bits buy more rows and lose more than those
   are worth. One pool serves the first digits of all larger fields, and each field has a few rows
   of its own that they are multiplied by; small fields are whole.

Hashed ids are given places of their own first, by a compact map, where statistics will be there to
build it and it takes a small part of the budget; elsewhere their codes have digits.

With `living=true` hashed ids arrive and leave, so that none can be given a place beforehand
(`managed-collision`): all ids known have rows of their own while they come, where these fit whole
or at 8 bits; else those that come often have, at 8 bits, and the others share rows by digits.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from bitfold.config import option
from bitfold.embedder.managed import OWNERS
from bitfold.errors import BitfoldError, BudgetTooSmall
from bitfold.method.base import Method, Traits, only
from bitfold.method.binary_code import BinaryCode
from bitfold.method.full import Full
from bitfold.method.managed_collision import ManagedCollision
from bitfold.method.mapping import map_bytes, mapped, with_places
from bitfold.method.mixed_dimensions import MixedDimensions
from bitfold.planning.ask import Ask
from bitfold.planning.spec import Group

WHOLE_BITS = (8, 4)
"""Bits of a number in which ids are kept whole, where they fit; the most that fit."""
SHARED_BITS = 4
"""Bits of a number where ids share rows."""
LIVING_BITS = 8
"""Bits of a number where ids arrive and leave: rows have one pass to learn in, and few bits learn
more slowly (docs/streaming.md)."""
NARROW, ALPHA = 1 / 2, 0.15
"""The part of the width for which there must be room, if all ids have narrower rows, and how fast
widths fall with a field's ids."""
MAP_SHARE = 0.25
"""The part of a budget that maps may take."""
OWN_SHARE, ALL_SHARE = 0.4, 0.9
"""The part of a budget that rows of living ids take, with what is kept of them: of those that come
often, and where it holds all that are known."""
LEAST_EVERY, OWN_A_STEP = 20, 1000
"""Steps between turns of living rows, at least, and own rows for each: a map of so many is built in
a third of a millisecond."""


@dataclass(frozen=True)
class Auto(Method):
    """The best known use of a budget, by rules."""

    living: bool = option(
        False, help="hashed ids arrive and leave: rows follow those that come often (streams)"
    )

    name: ClassVar[str] = "auto"
    summary: ClassVar[str] = "the best known use of the budget: bits, sharing and maps by rules"
    when: ClassVar[str] = "the default: say how many bytes, and nothing else"
    traits: ClassVar[Traits] = Traits(needs_counts=True)
    needs_bits: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.living and self.low_precision:
            raise BitfoldError(
                "rows that change their owners are floats while they are trained",
                got="living=true, low_precision=true",
                expected="one of them",
            )

    def plan(self, ask: Ask) -> Group:
        """The only group, where all fields are stored alike."""
        return only(self.name, self.groups(ask))

    def groups(self, ask: Ask) -> tuple[Group, ...]:
        """The groups of what was chosen."""
        if ask.budget is None:
            return BinaryCode(std=self.std).groups(ask)
        numbers = self._maps(ask)
        if numbers:
            with suppress(BudgetTooSmall):
                found = self._chosen(with_places(ask, numbers))
                return tuple(mapped(group, ask, numbers) for group in found)
        return self._chosen(ask)

    def _maps(self, ask: Ask) -> Sequence[int]:
        """The hashed fields that have a map of their ids."""
        if ask.stats is None or ask.budget is None or self.living:
            return ()
        known = [i for i, each in enumerate(ask.fields) if each.hashed and each.distinct]
        return known if map_bytes(ask, known) <= MAP_SHARE * ask.budget else ()

    def _chosen(self, ask: Ask) -> tuple[Group, ...]:
        """The first of what may be chosen that fits; the budget is there."""
        try:
            return self._fitting(ask)
        except BudgetTooSmall as error:
            least = error.minimum
            with suppress(BudgetTooSmall):
                while least > 1:  # with more room more may be chosen, and take less
                    less = self._fitting(replace(ask, budget=least - 1))
                    least = sum(group.bytes(ask.dim) for group in less)
            raise error.with_minimum(least) from None

    def _fitting(self, ask: Ask) -> tuple[Group, ...]:
        """The first of what may be chosen that fits, or the refusal that names the least bytes."""
        refusals: list[BudgetTooSmall] = []
        for recipe, numbers in self._choices(ask):
            try:
                return recipe.groups(replace(ask, numbers=numbers, scale=self.scale))
            except BudgetTooSmall as error:
                refusals.append(error)
        raise min(refusals, key=lambda each: each.minimum)

    def _choices(self, ask: Ask) -> Iterator[tuple[Method, str]]:
        """What may be chosen, the best first, and what its numbers are kept in."""
        shared: dict[str, Any] = {
            "std": self.std, "scale": self.scale, "low_precision": self.low_precision
        }  # fmt: skip
        if all(not field.hashed for field in ask.fields):
            if self.bits is None and not self.low_precision:
                yield Full(std=self.std), ask.dtype
            for bits in WHOLE_BITS if self.bits is None else (self.bits,):
                yield Full(bits=bits, **shared), f"q{bits}"
        elif self.living:
            yield from self._living(ask)
        bits = self.bits or SHARED_BITS
        of_bits = replace(ask, numbers=f"q{bits}", scale=self.scale)
        if _has_room_for_narrow(of_bits):
            yield MixedDimensions(bits=bits, alpha=ALPHA, **shared), of_bits.numbers
        for sharing in ("first", "fields"):
            yield BinaryCode(bits=bits, sharing=sharing, **shared), of_bits.numbers

    def _living(self, ask: Ask) -> Iterator[tuple[Method, str]]:
        """What may be chosen where hashed ids arrive and leave, the best first."""
        words: dict[str, Any] = {"std": self.std, "scale": self.scale, "shared": "digits"}
        for bits in (None, LIVING_BITS) if self.bits is None else (self.bits,):
            numbers = ask.dtype if bits is None else f"q{bits}"
            all_known = ManagedCollision(bits=bits, hot=ALL_SHARE, admit=1, evict="lru", **words)
            of_numbers = replace(ask, numbers=numbers, scale=self.scale)
            if _holds_all(all_known, of_numbers):
                yield _lively(all_known, of_numbers), numbers
        bits = self.bits or LIVING_BITS
        often = ManagedCollision(bits=bits, hot=OWN_SHARE, **words)
        yield _lively(often, replace(ask, numbers=f"q{bits}", scale=self.scale)), f"q{bits}"

    def reasons(self, ask: Ask, groups: Sequence[Group]) -> tuple[str, ...]:
        """What was chosen, and by which rule."""
        pool = groups[0].pools[0]
        kept = f"{pool.bits} bits a number"
        widths = sorted({group.width for group in groups})
        if groups[0].method == Full.name:
            said = [f"every id has a row of its own at {kept}: the most that fits"]
        elif groups[0].method == MixedDimensions.name:
            said = [
                f"every id has a row of its own at {kept}, of {_listed(widths)} of {ask.dim} "
                "numbers: whole rows would not fit, half of them do"
            ]
        elif groups[0].method == ManagedCollision.name:
            return (
                f"ids arrive and leave: {_owned(groups[0]):,} of them have rows of their own at "
                f"{kept} while they come often, the others share rows by digits",
            )
        else:
            said = [
                f"ids share rows at {kept}, since tables of narrower rows would not fit: "
                f"{groups[0].options['sharing']} share, rows are fused by {groups[0].fusion}"
            ]
        maps = sum(each.bytes for group in groups for each in group.stored if each.kind == "map")
        if maps:
            said.append(f"hashed ids have places of their own, by maps of {maps:,} bytes")
        elif any(field.hashed for field in ask.fields):
            said.append("hashed ids have codes: maps of them would take too much")
        return tuple(said)


def _owned(group: Group) -> int:
    """The rows that living ids own."""
    return next(table.length for table in group.stored if table.name == OWNERS)


def _lively(recipe: ManagedCollision, ask: Ask) -> ManagedCollision:
    """The same with turns as near to each other as the time allows that a map takes."""
    with suppress(BudgetTooSmall):
        own = _owned(recipe.plan(ask))
        return replace(recipe, every=max(LEAST_EVERY, own // OWN_A_STEP))
    return recipe


def _holds_all(recipe: ManagedCollision, ask: Ask) -> bool:
    """Whether as many living ids as are known would own rows."""
    with suppress(BudgetTooSmall):
        group = recipe.plan(ask)
        fields = zip(ask.fields, group.program.fields if group.program else (), strict=True)
        sizes = [field.size for field, lookups in fields if not lookups[0].plain]
        return None not in sizes and sum(filter(None, sizes)) <= _owned(group)
    return False


def _listed(numbers: Sequence[int]) -> str:
    *others, last = map(str, numbers)
    return f"{', '.join(others)} or {last}" if others else last


def _has_room_for_narrow(ask: Ask) -> bool:
    """Whether every id could have a row of half the width."""
    sizes = [field.num_embeddings or 0 for field in ask.fields]
    narrow = math.ceil(NARROW * ask.dim)
    return all(sizes) and sum(sizes) * ask.row_bytes(narrow) <= (ask.budget or 0)
