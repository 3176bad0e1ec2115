"""DPQ and MGQE: an id's chunks are centroids that a full row learns to choose; the choice is kept.

Sources: Chen, Li, Sun, "Differentiable Product Quantization for End-to-End Embedding Compression",
ICML 2020, arXiv 1908.09756, the form of vector quantization without its regularization. Kang,
Cheng, Chen, Yi, Lin, Hong, Chi, "Learning Multi-granular Quantized Embeddings for Large-Vocab
Categorical Features in Recommender Systems", WWW 2020 companion, arXiv 2002.08530: rare ids choose
from the first centroids alone, so that their pointers take fewer bits.

Pointers are counted: ceil(log2 K) bits for each id and chunk. Hashed ids need places that pointers
can be kept by: `map=true`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from bitfold.address import Lookup, Program, Raw, Stored
from bitfold.address.stored import stored_bytes
from bitfold.config import option
from bitfold.embedder.contract import Embedder
from bitfold.embedder.quantizing import Quantizing, more_name, pointers_name, popular_name
from bitfold.errors import BitfoldError
from bitfold.method.allocation import check_minimum
from bitfold.method.base import Forms, Method, Traits, check_chunks, check_options, dense_only
from bitfold.method.hash import field_sizes
from bitfold.planning.ask import Ask
from bitfold.planning.plan import Plan
from bitfold.planning.spec import Group, StoredSpec

MOST = 256
"""Centroids of a chunk when nobody says how many: a step's work grows with them."""


@dataclass(frozen=True)
class Dpq(Method):
    """A centroid a chunk of `D / chunks` numbers, of `K` that the field's ids choose from."""

    chunks: int | None = option(
        None,
        help="pieces of a vector, each with centroids of its own; when not said as many as give "
        "the ids the most to choose by, `chunks * log2(centroids)`",
    )
    centroids: int | None = option(
        None, help=f"K, of each chunk; when not said as many as the budget buys, {MOST} at most"
    )

    name: ClassVar[str] = "dpq"
    summary: ClassVar[str] = "centroids that each id learns to choose, chunk by chunk"
    when: ClassVar[str] = "some bytes an id can be afforded, and the full table while training"
    traits: ClassVar[Traits] = Traits(hashed_ids=False)
    forms: ClassVar[Forms] = ({}, {"chunks": 3, "centroids": 5}, {"chunks": 2, "bits": 4})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self.name, vars(self), chunks=1, centroids=2)

    @property
    def tiers(self) -> tuple[float, int]:
        """The share of ids that may choose all centroids, and the bits that others have less."""
        return 1.0, 0

    def plan(self, ask: Ask) -> Group:
        """The chunks and centroids that give ids the most bits; small fields are whole."""
        sizes = field_sizes(self.name, ask.fields, ask.budget)
        dense_only(self.name, ask.fields)
        assert ask.budget is not None
        whole = self.whole(ask)
        if whole is not None and whole.bytes(ask.dim) <= ask.budget:
            return whole
        check_chunks(self.chunks, ask.dim)
        tried = [self.chunks] if self.chunks else _divisors(ask.dim)
        forms = [_Form(ask, sizes, chunks, *self.tiers) for chunks in tried]
        fewest = self.centroids or 2
        least = min(form.bytes(fewest) for form in forms)
        least = least if whole is None else min(least, whole.bytes(ask.dim))
        check_minimum(self.name, least, ask.budget)
        fits = [form for form in forms if form.bytes(fewest) <= ask.budget]
        most = [self.centroids or form.most(ask.budget) for form in fits]
        best, centroids = max(zip(fits, most, strict=True), key=lambda pair: pair[0].says(pair[1]))
        program, stored = best.program(centroids)
        return self.finish(ask, program, "concat", stored=stored)

    def build(
        self, plan: Plan, *, seed: int | None, device: torch.device | str | None, sparse: bool
    ) -> Embedder:
        """What chooses, or a whole table."""
        if not any(isinstance(each.source, Stored) for each in plan.program):
            return super().build(plan, seed=seed, device=device, sparse=sparse)
        return Quantizing(plan, std=self.std, seed=seed, device=device, sparse=sparse)


@dataclass(frozen=True)
class Mgqe(Dpq):
    """The same, where rare ids choose from the first centroids alone."""

    popular: float = option(
        0.1, help="the share of a field's ids that may choose all centroids: the most frequent"
    )
    fewer: int = option(
        2, help="bits that a pointer of another id is shorter by; 2: a quarter of the centroids"
    )

    name: ClassVar[str] = "mgqe"
    summary: ClassVar[str] = "as dpq; rare ids choose from fewer centroids"
    when: ClassVar[str] = "as dpq, where few ids make most of the rows and counts are known"
    forms: ClassVar[Forms] = (
        {},
        {"chunks": 2, "popular": 0.4, "fewer": 1},
        {"chunks": 2, "centroids": 12, "bits": 4},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self.name, vars(self), fewer=1)
        if not 0 < self.popular < 1:
            raise BitfoldError(
                "popular is out of range",
                got=self.popular,
                expected="between 0 and 1",
                fix="of one tier the method is called dpq",
            )

    @property
    def tiers(self) -> tuple[float, int]:
        """The share of ids that may choose all centroids, and the bits that others have less."""
        return self.popular, self.fewer


class _Form:
    """What fields take in so many chunks, in bytes.

    Args:
        ask: with a budget.
        sizes: the fields' ids.
        chunks: pieces of a vector.
        popular: the share of ids whose pointers have all bits.
        fewer: the bits that those of the others have less; 1 is left at least.
    """

    def __init__(
        self, ask: Ask, sizes: Sequence[int], chunks: int, popular: float, fewer: int
    ) -> None:
        self.ask, self.sizes, self.chunks = ask, sizes, chunks
        self.share, self.fewer = popular, fewer
        self.row = ask.row_bytes(ask.dim // chunks)
        self.fixed = ask.fixed_bytes(chunks * len(sizes), ask.dim // chunks)

    def says(self, centroids: int) -> float:
        """Bits that the vector of an id has to choose by, on average."""
        few = min(centroids, 1 << self.bits(centroids))
        mean = self.share * math.log2(centroids) + (1 - self.share) * math.log2(few)
        return self.chunks * mean

    def bits(self, centroids: int) -> int:
        """Bits of a pointer of a rare id."""
        return max(1, _bits(centroids) - self.fewer)

    def stored(self, number: int, size: int, centroids: int) -> list[StoredSpec]:
        """What is kept of a field's choices beside its centroids."""
        all_bits, bits = _bits(centroids), self.bits(centroids)
        chunks = range(self.chunks)
        found = [StoredSpec(pointers_name(number, c), size, bits, "pointers") for c in chunks]
        if bits < all_bits:
            some, more = max(1, round(self.share * size)), all_bits - bits
            found.append(StoredSpec(popular_name(number), size, 1, "mask"))
            found += [StoredSpec(more_name(number, c), some, more, "pointers") for c in chunks]
        return found

    def beside(self, size: int, centroids: int) -> int:
        """Bytes of what is stored of a field; as `stored` lists it, without the list."""
        all_bits, bits = _bits(centroids), self.bits(centroids)
        found = self.chunks * stored_bytes(size, bits)
        if bits < all_bits:
            some = max(1, round(self.share * size))
            found += stored_bytes(size, 1) + self.chunks * stored_bytes(some, all_bits - bits)
        return found

    def folded(self, size: int, centroids: int) -> bool:
        """Whether a field is not whole."""
        table = self.chunks * size * self.row
        return self.chunks * centroids * self.row + self.beside(size, centroids) < table

    def field(self, size: int, centroids: int) -> int:
        """Bytes of a field, folded or whole."""
        if not self.folded(size, centroids):
            return self.chunks * size * self.row
        return self.chunks * centroids * self.row + self.beside(size, centroids)

    def bytes(self, centroids: int) -> int:
        """Bytes of all fields."""
        return self.fixed + sum(self.field(size, centroids) for size in self.sizes)

    def most(self, budget: int) -> int:
        """The most centroids that fit."""
        low, high = 2, MOST
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.bytes(middle) <= budget else (low, middle - 1)
        return low

    def program(self, centroids: int) -> tuple[Program, list[StoredSpec]]:
        """The address, and what is stored beside the pool."""
        fields, stored, end = [], list[StoredSpec](), 0
        for number, size in enumerate(self.sizes):
            folded = self.folded(size, centroids)
            specs = self.stored(number, size, centroids) if folded else []
            rows, lookups = centroids if folded else size, []
            for chunk in range(self.chunks):
                source: Raw | Stored = Raw()
                if folded:
                    source = Stored(specs[chunk].name, size, specs[chunk].bits)
                lookups.append(Lookup(source, rows, end))
                end += rows
            fields.append(tuple(lookups))
            stored += specs
        return Program(self.chunks, tuple(fields), end), stored


def _bits(centroids: int) -> int:
    return max(1, (centroids - 1).bit_length())


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]
