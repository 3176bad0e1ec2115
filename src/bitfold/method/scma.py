"""SCMA: ids share memory as their company overlaps, by minhash signatures of it.

Source: Desai, Pan, Sun, Chou, Shrivastava, "Semantically Constrained Memory Allocation (SCMA) for
Embedding in Efficient Recommendation Systems" (LMA), 2021, arXiv 2103.06124. Component `i` of an
id's vector is cell `h_i(id)` of one array, and `h_i` is sensitive to locality: the least hash of
the set of rows, or of ids, that the id appears with. The paper computes it when it is read; here
signatures are made once and stored, and counted.

A signature has `n` elements of `b` bits. Components that share an element read it through shifts
of their own, drawn at random: component `c` reads cell `(s_c + element) % R`. Two values of one
component never meet, those of two components meet in one of `R` cases.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from bitfold.address import Lookup, Program, Raw, Stored
from bitfold.address.mixing import derive_salt, field_salt
from bitfold.address.stored import stored_bytes
from bitfold.config import option
from bitfold.embedder.contract import Embedder
from bitfold.embedder.signatures import Signatures
from bitfold.errors import BitfoldError
from bitfold.method.allocation import check_minimum
from bitfold.method.base import Forms, Method, Traits, check_options, dense_only
from bitfold.method.hash import field_sizes
from bitfold.planning.ask import Ask
from bitfold.planning.plan import Plan
from bitfold.planning.spec import Group, StoredSpec

ELEMENTS = (8, 4, 2, 1)
MOST_BITS = 31  # of an element


@dataclass(frozen=True)
class Scma(Method):
    """Pieces of one array for all fields, chosen by a stored signature of each id."""

    elements: int | None = option(
        None,
        help="n, the elements of a signature; when not said the most of 8, 4, 2 and 1 that take "
        "no more than half of the budget; the paper has one for each component",
    )
    element_bits: int | None = option(
        None, help="b, the bits of an element; as many as reach the whole array when not said"
    )
    chunk: int | None = option(
        None,
        help="numbers that are read at once; 1: a flat array of single numbers, as in the paper; "
        "when not said each element chooses one piece",
    )
    of: str = option(
        "ids",
        help="what an id's set holds: the other `ids` of its rows, or the `rows` themselves, as in "
        "the paper, where ids of one field overlap in bags alone",
        choices=("ids", "rows"),
    )
    power: int = option(
        4,
        help="least hashes that make an element: higher where frequent ids overlap by their mere "
        "number; 1: memory follows the overlap itself",
    )
    rare: int = option(2, help="ids of fewer training rows are hashed by their number alone")
    most_rows: int | None = option(
        None, help="training rows that signatures are made of, drawn by chance; all when not said"
    )

    name: ClassVar[str] = "scma"
    summary: ClassVar[str] = "ids share memory as far as they keep the same company"
    when: ClassVar[str] = "ids meet in groups that are alike; a signature an id can be afforded"
    traits: ClassVar[Traits] = Traits(hashed_ids=False)
    forms: ClassVar[Forms] = (
        {},
        {"chunk": 1, "elements": 4, "power": 1, "of": "rows", "most_rows": 500},
        {"bits": 4, "element_bits": 5},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(
            self.name, vars(self), elements=1, element_bits=1, chunk=1, power=(1, 64), rare=0,
            most_rows=1,
        )  # fmt: skip
        if self.element_bits is not None and self.element_bits > MOST_BITS:
            raise BitfoldError(
                "element_bits is out of range", got=self.element_bits, expected=f"1 to {MOST_BITS}"
            )

    def plan(self, ask: Ask) -> Group:
        """As large an array as the budget buys beside the signatures; small fields are whole."""
        sizes = field_sizes(self.name, ask.fields, ask.budget)
        dense_only(self.name, ask.fields)
        assert ask.budget is not None
        whole = self.whole(ask)
        if whole is not None and whole.bytes(ask.dim) <= ask.budget:
            return whole
        forms = list(self._forms(ask, sizes))
        least = min(form.least for form in forms)
        least = least if whole is None else min(least, whole.bytes(ask.dim))
        check_minimum(self.name, least, ask.budget)
        fits = [form for form in forms if form.least <= ask.budget]
        cheap = [form for form in fits if form.cheap]
        form = (cheap or fits[-1:])[0]
        program = form.program()
        stored = [StoredSpec(*table) for table in program.tables.values()]
        step = int(form.width == 1 and not ask.packed)
        return self.finish(ask, program, "sum", stored=stored, step=step)

    def build(
        self, plan: Plan, *, seed: int | None, device: torch.device | str | None, sparse: bool
    ) -> Embedder:
        """The corridor that reads signatures, or a whole table."""
        if not any(each.kind == "signatures" for each in plan.group.stored):
            return super().build(plan, seed=seed, device=device, sparse=sparse)
        return Signatures(
            plan, of=self.of, power=self.power, rare=self.rare, most_rows=self.most_rows,
            std=self.std, seed=seed, device=device, sparse=sparse,
        )  # fmt: skip

    def _forms(self, ask: Ask, sizes: Sequence[int]) -> Iterator["_Form"]:
        """What is tried: signatures of fewer and fewer elements, fields whole or not."""
        if self.chunk and ask.dim % self.chunk:
            raise _no_pieces(ask.dim, f"pieces of {self.chunk}")
        tried = [self.elements] if self.elements else ELEMENTS
        for elements in tried:
            if self.chunk is None and ask.dim % elements == 0:
                width = ask.dim // elements
            elif self.chunk is not None and elements <= ask.dim // self.chunk:
                width = self.chunk
            elif self.elements:
                raise _no_pieces(ask.dim, f"{elements} elements")
            else:
                continue
            yield _form(ask, sizes, (elements, width, self.element_bits, self.of == "ids"))


def _no_pieces(dim: int, got: str) -> BitfoldError:
    return BitfoldError(
        "a vector has no such pieces",
        got=f"width {dim}, {got}",
        expected="pieces of one width, and no more elements than pieces",
    )


def _form(ask: Ask, sizes: Sequence[int], kind: tuple[int, int, int | None, bool]) -> "_Form":
    """Signatures of a kind, with as many small fields whole as is fair and fits."""
    assert ask.budget is not None
    ordered = sorted(range(len(sizes)), key=lambda number: sizes[number])
    small, left, width = 0, ask.budget, kind[1]
    for number in ordered[:-1]:
        size = sizes[number] * ask.row_bytes(width) * (ask.dim // width)
        if size * (len(sizes) - small) > left:
            break
        small, left = small + 1, left - size
    form = _Form(ask, sizes, frozenset(ordered[:small]), *kind)
    while form.least > ask.budget and small:
        small -= 1
        form = _Form(ask, sizes, frozenset(ordered[:small]), *kind)
    return form


class _Form:
    """What fields take with signatures of some form, in bytes.

    Args:
        ask: with a budget.
        sizes: the fields' ids.
        whole: the fields that have a row for each id.
        elements: of a signature.
        width: numbers of a piece.
        bits: of an element, or None for as many as reach the whole array.
        apart: whether fields read the array from places of their own on.
    """

    def __init__(
        self,
        ask: Ask,
        sizes: Sequence[int],
        whole: frozenset[int],
        elements: int,
        width: int,
        bits: int | None,
        apart: bool,
    ) -> None:
        self.ask, self.sizes, self.whole, self.width = ask, sizes, whole, width
        self.elements, self.pieces = elements, ask.dim // width
        self.row = ask.row_bytes(width)
        self.signed = [size for number, size in enumerate(sizes) if number not in whole]
        self.apart = apart
        self.windows = self.pieces * (len(self.signed) if apart else 1)
        owned = sum(sizes[number] for number in whole)
        slices = 1 + len(whole) * self.pieces
        self.fixed = ask.fixed_bytes(slices, width) + owned * self.pieces * self.row
        self.least = self.fixed + self.signatures(bits or 1) + self.row
        self.said = bits is not None
        self.bits = self._needed(bits) if bits else self._bits()

    def signatures(self, bits: int) -> int:
        """Bytes of the signatures, with elements of so many bits."""
        return self.elements * sum(stored_bytes(size, bits) for size in self.signed)

    def rows(self, bits: int) -> int:
        """Pieces of the array: what the budget buys, and no more than elements reach."""
        return min(self._room(bits), self.windows << bits)

    def _room(self, bits: int) -> int:
        """Pieces that the budget buys beside elements of so many bits; no more than ids have."""
        room = ((self.ask.budget or 0) - self.fixed - self.signatures(bits)) // self.row
        return max(1, min(room, sum(self.signed) * self.pieces, 1 << MOST_BITS))

    @property
    def cheap(self) -> bool:
        """Whether signatures take no more than half of the budget, and reach the whole array."""
        half = 2 * self.signatures(self.bits) <= (self.ask.budget or 0)
        return half and (self.said or self._reach(self.bits))

    def _reach(self, bits: int) -> bool:
        """Whether components with elements of so many bits reach each piece twice."""
        return self.windows << bits >= 2 * self._room(bits)

    def _bits(self) -> int:
        """The fewest with which components reach each piece twice, as far as they fit."""
        bits, budget = 1, self.ask.budget or 0
        while not self._reach(bits):
            if self.fixed + self.signatures(bits + 1) + self.row > budget:
                break
            bits += 1
        return self._needed(bits)

    def _needed(self, bits: int) -> int:
        """So many, without those that no number of a piece has."""
        while bits > 1 and 1 << bits - 1 >= self._room(bits - 1):
            bits -= 1
        return bits

    def program(self) -> Program:
        """Pieces of whole fields, then the array."""
        rows, pieces, fields, end = self.rows(self.bits), range(self.pieces), [], 0
        ways, at = min(1 << self.bits, rows), 0
        base = sum(self.sizes[number] for number in self.whole) * self.pieces
        for number, size in enumerate(self.sizes):
            if number in self.whole:
                fields.append(tuple(Lookup(Raw(), size, end + c * size) for c in pieces))
                end += self.pieces * size
                continue
            lookups = []
            for c in pieces:
                table = f"signatures_{number}_{c % self.elements}"
                source = Stored(table, size, self.bits, kind="signatures")
                shift = self._shift(number, at + c, rows, ways)
                lookups.append(Lookup(source, ways, base, offset=shift, span=rows))
            fields.append(tuple(lookups))
            at += self.pieces * self.apart
        return Program(self.pieces, tuple(fields), base + rows)

    def _shift(self, number: int, at: int, rows: int, ways: int) -> int:
        """Where component `at` begins to read: in its even share of the array, by chance as far
        as the next one's window leaves no gap.
        """
        seed, name = self.ask.seed, self.ask.fields[number].name
        salt = field_salt(seed, name, at) if self.apart else derive_salt(seed, at)
        share = -(-rows // self.windows)
        return (at * rows // self.windows + (salt * min(share, ways - share) >> 64)) % rows
