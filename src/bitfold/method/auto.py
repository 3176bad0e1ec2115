"""The default: a budget alone, and the best use of it that our boards know.

Precision, sharing and composition multiply, and the boards say in which order to spend (see
docs/results.md, "What auto chooses, and why"):

1. all ids whole in their floating type, where the budget has room for it;
2. all ids whole in 8, 4 or 3 bits a number, the most that fit;
3. below that, ids share rows: one pool of first digits for all larger fields, and for each field a
   few rows of its own that they are multiplied by; small fields whole. A number has 3 bits, and 4
   where more than ten ids share a row: then each row counts for more.

Hashed ids are given places of their own first, by a compact map, where statistics will be there to
build it and it takes a small part of the budget; elsewhere their codes have digits.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar

from bitfold.errors import BudgetTooSmall
from bitfold.method.base import Method, Traits
from bitfold.method.binary_code import BinaryCode
from bitfold.method.full import Full
from bitfold.method.mapping import map_bytes, mapped, with_places
from bitfold.planning.ask import Ask
from bitfold.planning.spec import Group

WHOLE_BITS = (8, 4, 3)
"""Bits of a number in which ids are kept whole, where they fit; the most that fit."""
SHARED_BITS, CROWDED_BITS, CROWD = 3, 4, 10
"""Bits of a number where ids share rows; and where more than so many share each."""
MAP_SHARE = 0.25
"""The part of a budget that maps may take."""


@dataclass(frozen=True)
class Auto(Method):
    """The best known use of a budget, by rules."""

    name: ClassVar[str] = "auto"
    summary: ClassVar[str] = "the best known use of the budget: bits, sharing and maps by rules"
    when: ClassVar[str] = "the default: say how many bytes, and nothing else"
    traits: ClassVar[Traits] = Traits(needs_counts=True)

    def plan(self, ask: Ask) -> Group:
        """One group of all fields."""
        if ask.budget is None:
            return BinaryCode(std=self.std).plan(ask)
        numbers = self._maps(ask)
        if numbers:
            with suppress(BudgetTooSmall):
                return mapped(self._chosen(with_places(ask, numbers)), ask, numbers)
        return self._chosen(ask)

    def _maps(self, ask: Ask) -> Sequence[int]:
        """The hashed fields that have a map of their ids."""
        if ask.stats is None or ask.budget is None:
            return ()
        known = [i for i, each in enumerate(ask.fields) if each.hashed and each.distinct]
        return known if map_bytes(ask, known) <= MAP_SHARE * ask.budget else ()

    def _chosen(self, ask: Ask) -> Group:
        """The first of what may be chosen that fits; the budget is there."""
        refusals: list[BudgetTooSmall] = []
        for recipe, numbers in self._choices(ask):
            try:
                return recipe.plan(replace(ask, numbers=numbers, scale=self.scale))
            except BudgetTooSmall as error:
                refusals.append(error)
        raise min(refusals, key=lambda each: each.minimum)

    def _choices(self, ask: Ask) -> Iterator[tuple[Method, str]]:
        """What may be chosen, the best first, and what its numbers are kept in."""
        if all(not field.hashed for field in ask.fields):
            if self.bits is None:
                yield Full(std=self.std), ask.dtype
            for bits in WHOLE_BITS if self.bits is None else (self.bits,):
                yield Full(std=self.std, bits=bits, scale=self.scale), f"q{bits}"
        bits = self.bits or self._bits(ask)
        for sharing in ("first", "fields"):
            shared = BinaryCode(std=self.std, bits=bits, scale=self.scale, sharing=sharing)
            yield shared, f"q{bits}"

    def _bits(self, ask: Ask) -> int:
        """Bits of a number where ids share rows."""
        ids = sum(field.size or 0 for field in ask.fields)
        rows = (ask.budget or 0) // replace(ask, numbers=f"q{CROWDED_BITS}").row_bytes()
        return CROWDED_BITS if ids > CROWD * rows else SHARED_BITS

    def reasons(self, ask: Ask, groups: Sequence[Group]) -> tuple[str, ...]:
        """What was chosen, and by which rule."""
        said = []
        for group in groups:
            pool = group.pools[0]
            kept = f"{pool.bits} bits a number"
            if group.method == Full.name:
                text = f"every id has a row of its own at {kept}: the most that fits"
            else:
                text = (
                    f"ids share rows at {kept}, since whole tables would not fit: "
                    f"{group.options['sharing']} share, rows are fused by {group.fusion}"
                )
            said.append(text)
            maps = sum(each.bytes for each in group.stored if each.kind == "map")
            if maps:
                said.append(f"hashed ids have places of their own, by maps of {maps:,} bytes")
            elif any(ask.fields[number].hashed for number in group.fields):
                said.append("hashed ids have codes: maps of them would take too much")
        return tuple(said)
