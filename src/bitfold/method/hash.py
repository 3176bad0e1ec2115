"""The hash trick: every id shares a row with the ids that hash to it.

Source: Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from bitfold.address import Lookup, Mixed, Program, Raw
from bitfold.address.mixing import derive_salt, field_salt
from bitfold.address.program import place
from bitfold.config import option
from bitfold.errors import BitfoldError
from bitfold.method.allocation import allocate, check_minimum
from bitfold.method.base import Forms, Method
from bitfold.planning.ask import Ask
from bitfold.planning.field import Field
from bitfold.planning.spec import FINGERPRINT_BYTES, Group


@dataclass(frozen=True)
class Hash(Method):
    """`row = mix(id) * R_f / 2**64`, rounded down, in each field's own `R_f` rows."""

    allocation: float = option(
        0.0, help="rows go to fields by size**allocation; 1: one ratio for all, 0: small ones whole"
    )

    name: ClassVar[str] = "hash"
    summary: ClassVar[str] = "the hash trick: ids that hash alike share one row"
    when: ClassVar[str] = "as the baseline; ids that collide can't be told apart"
    forms: ClassVar[Forms] = ({}, {"allocation": 0.5}, {"bits": 2})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_allocation(self.allocation)

    def plan(self, ask: Ask) -> Group:
        """Rows in proportion to a power of the fields' sizes."""
        rows = hashed_rows(self.name, ask, self.allocation)
        bases, end = place(rows)
        lookups = []
        for index, (field, size, base) in enumerate(zip(ask.fields, rows, bases, strict=True)):
            whole = field.num_embeddings == size
            source = Raw() if whole else Mixed(derive_salt(ask.seed, index))
            lookups.append((Lookup(source, size, base, leading=not whole),))
        program = Program(1, tuple(lookups), end)
        return self.finish(ask, program, "sum")


def check_allocation(exponent: float) -> None:
    """Raise unless the exponent lies between 0 and 1."""
    if not 0 <= exponent <= 1:
        raise BitfoldError("allocation is out of range", got=exponent, expected="0 to 1")


def field_sizes(method: str, fields: Sequence[Field], budget: int | None) -> list[int]:
    """Each field's ids; hashed fields of unknown size count alike."""
    if budget is None:
        raise BitfoldError(
            f"method {method!r} needs a budget",
            got="none",
            expected='bytes, "64MiB" or a ratio such as "100x"',
        )
    known = [field.size for field in fields if field.size is not None]
    guess = max(known, default=2**40)
    return [field.size or guess for field in fields]


def hashed_rows(
    method: str, ask: Ask, exponent: float, *, part: int = 1, least: int = 1
) -> list[int]:
    """Rows of each field when any number of rows works; a row holds `dim / part` numbers."""
    sizes = field_sizes(method, ask.fields, ask.budget)
    assert ask.budget is not None
    width = ask.dim // part
    unit = ask.row_bytes(width)
    fixed = ask.fixed_bytes(len(sizes) * part, width)
    minimum = len(sizes) * least * unit + fixed
    if all(not field.hashed for field in ask.fields):
        # whole tables of one chunk need no fingerprint
        every = sum(sizes) * part * unit + fixed - FINGERPRINT_BYTES * (part == 1)
        if every <= ask.budget:
            return [size * part for size in sizes]
        minimum = min(minimum, every)
    check_minimum(method, minimum, ask.budget)
    room = (ask.budget - fixed) // unit
    most = [max(least, size * part) for size in sizes]
    return allocate(sizes, [least] * len(sizes), most, room, exponent)


def one_pool(ask: Ask, rows: int, count: int, chunks: int = 1, *, signed: bool = False) -> Program:
    """`count` hashed lookups for every field, in one pool; the hashes follow from fields' names."""
    fields = tuple(
        tuple(
            Lookup(Mixed(field_salt(ask.seed, each.name, k)), rows, 0, leading=True, signed=signed)
            for k in range(count)
        )
        for each in ask.fields
    )
    return Program(chunks, fields, rows)
