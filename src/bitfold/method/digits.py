"""The digits of a binary code: which code a field has, and its radices within some rows."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bitfold.address import Lookup, Mixed, Program, Raw, Source
from bitfold.address.codes import block_lengths, succession_lengths
from bitfold.address.mixing import derive_salt
from bitfold.address.radices import (
    MOST_BLOCKS,
    coprime_radices,
    divisors,
    fewest_blocks,
    fit_radices,
    least_radices,
    least_rows,
)
from bitfold.errors import BitfoldError
from bitfold.planning.field import Field

SPARE_BITS = 10  # 2**10 codes an id: under 0.1 % of the ids share theirs
UNKNOWN_IDS = 1 << 40  # a hashed field that does not say how many ids it has counts as large
LEAST_SPARE_BITS = 2  # what a hashed code keeps when the budget is tight
HASHED_BITS = 63  # the widest code that trailing digits read: torch divides signed numbers
WHOLE = 4  # with one pool, a field is whole if it takes so small a part of an even share
MOST_HASHED_BLOCKS = 4  # of a code whose ids nobody counted: it takes what bits four blocks allow

FewestBlocks = Callable[[int, int], int | None]  # (codes, most blocks) -> fewest blocks


@dataclass(frozen=True)
class Digits:
    """One field's digits: their source and radices, and the divisors before them."""

    source: Source
    radices: tuple[int, ...]
    divisors: tuple[int, ...]
    slices: bool = False  # whether each digit reads its own slice whatever the sharing
    leading: bool = False  # whether they are taken from the code's upper end


@dataclass(frozen=True)
class Code:
    """The code of one field.

    Args:
        ids: how many ids the field has.
        dense: whether ids are `0..ids-1`.
        size: how many codes must be told apart.
        bits: `S`, the bits of the code.
        least_bits: the fewest bits the code may shrink to.
        salt: what the mixer is salted with, None for raw ids.
        skip: whether the bits are dealt round-robin.
    """

    ids: int
    dense: bool
    size: int
    bits: int
    least_bits: int
    salt: int | None
    skip: bool

    @property
    def _salt(self) -> int:
        assert self.salt is not None, "hashed ids are mixed"
        return self.salt

    def most_rows(self, chunks: int, least: int) -> int:
        """The rows beyond which the field has no use for more."""
        return max(least, self.ids * chunks)

    def capped(self, rows: int, chunks: int) -> int:
        """`rows`, or fewer where a dense field is whole with fewer."""
        return min(rows, self.ids * chunks) if self.dense else rows

    def source(self, radices: Sequence[int], leading: bool = False) -> Source:
        """Where digits with these radices come from."""
        if self.dense:
            bits, deal = self.bits, len(radices) if self.skip else 1
            if self.salt is None:
                return Raw(bits, deal) if self.skip else Raw()
            return Mixed(self.salt, bits, bits, deal)
        if self.skip:
            return Mixed(self._salt, 64, min(HASHED_BITS, _floor_log2(radices)), len(radices))
        exact = self.least_bits == self.bits
        most = 64 if leading else HASHED_BITS
        return Mixed(self._salt, 64, min(most, self.bits) if exact else most)

    def binary(self, strategy: str, blocks: int | None, block_bits: int | None) -> Digits:
        """Power-of-two blocks, as in the paper."""
        if block_bits is not None and strategy == "succession":
            lengths = succession_lengths(self.bits, block_bits)
        else:
            count = blocks or -(-self.bits // (block_bits or 1))
            lengths = block_lengths(self.bits, count)
        shifts = [sum(lengths[:m]) for m in range(len(lengths))]
        radices = [1 << length for length in lengths]
        if self.dense and self.salt is None and not self.skip:  # rows no id reaches are not made
            radices = [
                min(radix, ((self.size - 1) >> shift) + 1)
                for radix, shift in zip(radices, shifts, strict=True)
            ]
        if self.dense:
            source = self.source(radices)
        else:
            source = Mixed(self._salt, 64, self.bits, len(radices) if self.skip else 1)
        return Digits(source, tuple(radices), tuple(1 << shift for shift in shifts))

    def sliced(self, rows: int, blocks: int | None, digits: str, balance: float) -> Digits:
        """Digits that each read a slice of their own; the slices add up to `rows`."""

        def fewest(size: int, most: int) -> int | None:
            if blocks is None:
                return fewest_blocks(size, rows, most)
            return blocks if sum(least_radices(size, blocks)) <= rows else None

        size, count = self._fit(fewest, blocks)
        fit = coprime_radices if digits == "residues" and not self.skip else fit_radices
        radices = fit(size, count, rows, balance) or fit_radices(size, count, rows, balance)
        assert radices is not None, "the caller checks the minimum"
        return self._digits(radices, digits == "residues" and not self.skip and _coprime(radices))

    def shared(self, rows: int, blocks: int | None, digits: str) -> Digits:
        """Digits that all read the same `rows` rows."""

        def fewest(size: int, most: int) -> int | None:
            for count in range(2, most + 1):
                if rows**count >= size:
                    return count
            return 1 if rows >= size else None

        size, count = self._fit(fewest, blocks)
        if digits == "residues" and not self.skip:
            residues = _descending_coprimes(rows, count)
            if math.prod(residues) >= size:
                return self._digits(residues, residues=True)
        return self._digits((rows,) * count, residues=False)

    def positional(self, radices: tuple[int, ...]) -> Digits:
        """Positional digits with these radices."""
        return self._digits(radices, residues=False)

    def _digits(self, radices: tuple[int, ...], residues: bool) -> Digits:
        """Residues, or positional digits: of hashed ids they are leading ones."""
        leading = not self.dense and not residues
        before = (1,) * len(radices) if residues else divisors(radices)
        return Digits(self.source(radices, leading), radices, before, leading=leading)

    def _fit(self, fewest: FewestBlocks, blocks: int | None) -> tuple[int, int]:
        """The codes to tell apart, and the blocks for it."""
        if self.dense:
            return self.size, blocks or fewest(self.size, MOST_BLOCKS) or 1
        most = MOST_HASHED_BLOCKS
        if self.ids != UNKNOWN_IDS:  # the fewest blocks that tell the ids apart
            most = fewest(1 << self.least_bits, MOST_BLOCKS) or MOST_BLOCKS
        for bits in range(self.bits, self.least_bits - 1, -1):  # as wide a code as they allow
            count = fewest(1 << bits, blocks or most)
            if count is not None:
                return 1 << bits, blocks or count
        size = 1 << self.least_bits
        return size, blocks or fewest(size, MOST_BLOCKS) or 1


def code_of(
    field: Field, index: int, seed: int, strategy: str, mix: bool, code_bits: int | None
) -> Code:
    """The code of a field's ids."""
    skip = strategy == "skip"
    if field.num_embeddings is not None:
        ids = field.num_embeddings
        bits = max(1, (ids - 1).bit_length())
        salt = derive_salt(seed, index) if mix else None
        size = 1 << bits if mix or skip else ids
        return Code(ids, True, size, bits, bits, salt, skip)
    salt = derive_salt(seed, index)
    if code_bits is None and field.distinct is None:  # as wide a code as the budget allows
        return Code(UNKNOWN_IDS, False, 1 << HASHED_BITS, HASHED_BITS, 1, salt, skip)
    ids = field.distinct or 1 << min(60, code_bits or 60)
    needed = (ids - 1).bit_length()
    bits = code_bits or min(HASHED_BITS, needed + SPARE_BITS)
    least = code_bits or min(HASHED_BITS, needed + LEAST_SPARE_BITS)
    return Code(ids, False, 1 << bits, bits, least, salt, skip)


def check_width(field: Field, code_bits: int | None) -> None:
    """Raise if nothing says how wide a field's code is: no ids, no bits, no budget."""
    if field.hashed and code_bits is None and field.distinct is None:
        raise BitfoldError(
            f"field {field.name!r} has hashed ids and no known width of code",
            got="neither distinct nor code_bits, and no budget",
            expected="a budget, Field(..., distinct=n), or code_bits=S",
            fix="S = ceil(log2 n) + 10 bits keep under 0.1 % of n ids from sharing a code",
        )


def least_rows_of(code: Code, blocks: int | None, shared: bool) -> int:
    """The fewest rows with which every code keeps digits of its own."""
    size = code.size if code.dense else 1 << code.least_bits
    counts = [blocks] if blocks else range(1, MOST_BLOCKS + 1)
    if shared:
        return min(least_radices(size, count)[0] for count in counts)
    return sum(least_radices(size, blocks)) if blocks else least_rows(size)


def most_lookups_of(code: Code, rows: int, blocks: int | None, chunks: int, shared: bool) -> int:
    """The most lookups that a field has with `rows` rows or more."""
    if blocks:
        return blocks
    size = code.size if code.dense else 1 << code.least_bits
    if shared:
        count = next((m for m in range(2, MOST_BLOCKS + 1) if rows**m >= size), MOST_BLOCKS)
    else:
        count = fewest_blocks(size, rows) or chunks  # None: a dense field that is whole
    return max(count, MOST_HASHED_BLOCKS) if code.ids == UNKNOWN_IDS else count


def whole(ids: int, chunks: int) -> Digits:
    """A row of its own for every dense id: a slice for each chunk."""
    return Digits(Raw(), (ids,) * chunks, (1,) * chunks, slices=True)


def lay_out(parts: Sequence[Digits], chunks: int, sharing: str, seed: int) -> Program:
    """Place every digit's rows in one pool.

    Args:
        parts: the digits of each field.
        chunks: `C`.
        sharing: `slices`: one a digit; `shared`: one a field; `fields`: one for all; `first`: one
            for the first digits of all fields, and one for each later digit.
        seed: what turns digits that share rows with other fields.
    """
    pooled = [part for part in parts if not part.slices]
    common = 0
    if sharing == "fields":
        common = max((max(part.radices) for part in pooled), default=0)
    elif sharing == "first":
        common = max((part.radices[0] for part in pooled), default=0)
    end, turns = common, 0
    fields = []
    for index, part in enumerate(parts):
        lookups: list[Lookup] = []
        own = max(part.radices) if sharing == "shared" and not part.slices else 0
        start = end
        end += own
        for m, radix in enumerate(part.radices):
            base, span, offset = start, own, 0
            if not part.slices and (sharing == "fields" or (sharing == "first" and m == 0)):
                base, span = 0, common
                offset = derive_salt(seed, index, m) % span
                if sharing == "first":  # frequent ids, which come first, as far apart as they can
                    offset = turns * common // len(pooled)
            elif not own:
                base, span = end, radix
                end += radix
            lookups.append(
                Lookup(part.source, radix, base, part.divisors[m], offset, span, part.leading)
            )
        turns += not part.slices
        fields.append(tuple(lookups))
    return Program(chunks, tuple(fields), end)


def _coprime(radices: Sequence[int]) -> bool:
    pairs = [(a, b) for i, a in enumerate(radices) for b in radices[i + 1 :]]
    return all(math.gcd(a, b) == 1 for a, b in pairs)


def _descending_coprimes(start: int, count: int) -> tuple[int, ...]:
    chosen: list[int] = []
    candidate = start
    while len(chosen) < count and candidate > 1:
        if all(math.gcd(candidate, other) == 1 for other in chosen):
            chosen.append(candidate)
        candidate -= 1
    return tuple(chosen) + (1,) * (count - len(chosen))


def _floor_log2(radices: Sequence[int]) -> int:
    return math.prod(radices).bit_length() - 1
