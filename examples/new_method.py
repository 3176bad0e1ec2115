"""A method of one's own: an id's remainders by coprime numbers pick rows, which are added.

    bitfold train ratings.csv --plugin new_method.py --method remainders --budget 10x --out RUN
    pytest --plugin new_method.py

A field's `R` rows are split into tables of pairwise coprime sizes. Ids below their product have no
two remainders all in common (the Chinese remainder theorem), so that every id keeps a sum of its
own. Small fields have a row an id. Hashed ids are mixed first; what they share is chance.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from bitfold.extending import (
    Ask,
    Forms,
    Group,
    Lookup,
    Method,
    Mixed,
    Program,
    Raw,
    allocate,
    check_minimum,
    derive_salt,
    field_sizes,
    option,
    place,
)


@dataclass(frozen=True)
class Remainders(Method):
    """The sum of the rows that an id's remainders pick."""

    tables: int = option(2, help="rows that are added; more of them fit smaller budgets")

    name: ClassVar[str] = "remainders"
    summary: ClassVar[str] = "an id's remainders by coprime numbers pick rows that are added"
    when: ClassVar[str] = "as an example of a method"
    forms: ClassVar[Forms] = ({}, {"tables": 3})

    def plan(self, ask: Ask) -> Group:
        """Rows for every field, within the budget."""
        sizes = field_sizes(self.name, ask.fields, ask.budget)
        assert ask.budget is not None, "field_sizes asks for one"
        least = [min(size, self.least(size)) for size in sizes]
        fixed = ask.fixed_bytes(len(sizes) * self.tables)
        check_minimum(self.name, fixed + sum(least) * ask.row_bytes(), ask.budget)
        bought = (ask.budget - fixed) // ask.row_bytes()
        rows = allocate(sizes, least, sizes, bought, 0.5)
        radices = [
            [size] if size <= given else self.coprime(given)
            for size, given in zip(sizes, rows, strict=True)
        ]
        bases, end = place([radix for each in radices for radix in each])
        base, lookups = iter(bases), []
        for f, each in enumerate(radices):
            hashed = ask.fields[f].num_embeddings is None
            source = Mixed(derive_salt(ask.seed, f), code_bits=62) if hashed else Raw()
            lookups.append(tuple(Lookup(source, radix, next(base)) for radix in each))
        return self.finish(ask, Program(1, tuple(lookups), end), "sum")

    def coprime(self, rows: int) -> list[int]:
        """Sizes without a common factor, of `rows` rows together at most."""
        found: list[int] = []
        for size in range(rows // self.tables, 0, -1):
            if len(found) < self.tables and all(math.gcd(size, each) == 1 for each in found):
                found.append(size)
        return found

    def least(self, ids: int) -> int:
        """Rows with which so many ids stay apart."""
        rows = self.tables * (math.ceil(ids ** (1 / self.tables)) + self.tables**2)
        return rows
