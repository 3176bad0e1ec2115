"""FIITED: rows in chunks that come and go while training, by how much they are used and pulled at.

Source: Luo, Wang, Zhang, Lai, Mao, Wei, Song, Tsai, Yang, Hu, Qian, "Fine-Grained Embedding
Dimension Optimization During Training for Recommender Systems", 2024, arXiv 2401.04408. The paper
prunes to a ratio; here the budget says how many chunks are held, pointers counted. Utilities are
a part of the training alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from bitfold.address import Lookup, Mixed, Program, Raw, Stored
from bitfold.address.mixing import derive_salt
from bitfold.address.stored import stored_bytes
from bitfold.config import option
from bitfold.embedder.chunks import BareChunks, Chunks
from bitfold.embedder.contract import Embedder
from bitfold.errors import BitfoldError
from bitfold.method.allocation import allocate, check_minimum
from bitfold.method.base import Forms, Method, check_chunks, check_options
from bitfold.method.hash import field_sizes
from bitfold.planning.ask import Ask
from bitfold.planning.plan import Plan
from bitfold.planning.spec import Group, StoredSpec

CHUNKS = (4, 2, 1)
MOST_ROWS = 1 << 31
"""Virtual rows of a field."""
MOST_BITS = 32
SMALLEST = 1e-20
"""What decay may leave of a utility between two evictions: float32 goes no further."""


@dataclass(frozen=True)
class Fiited(Method):
    """Virtual rows of `k` pointers to chunks; those of the highest utilities hold one."""

    chunks: int | None = option(
        None,
        help="k, pieces of a vector that are held or not; when not said the most of 4, 2 and 1 "
        "with which every id has pointers of its own",
    )
    rest: str = option(
        "shared",
        help="what chunks read that hold nothing: rows that they share, or `zeros` as in the "
        "paper, without kernels while training",
        choices=("shared", "zeros"),
    )
    shared: float = option(
        0.5, help="with rest=shared: the share of the pool that those have; 0: one row a chunk"
    )
    pointers: float = option(
        0.25,
        help="the most of the budget that pointers take; where they would be more, ids share "
        "virtual rows by a hash",
    )
    small: float = option(
        0.1, help="the most of the budget that goes to small fields which stay whole; 0: none"
    )
    utility: str = option(
        "lengths",
        help="what a step adds to a chunk's utility: the lengths of its gradients, or `product`, "
        "accesses times the length of their sum, as in the paper",
        choices=("lengths", "product"),
    )
    decay: float = option(0.999, help="what a step leaves of a utility; 1 for all of it")
    every: int = option(100, help="after how many steps chunks are evicted, and others return")
    warmup: int = option(
        0, help="for how many steps utilities are gathered before one that has any is evicted"
    )

    name: ClassVar[str] = "fiited"
    summary: ClassVar[str] = "chunks of rows are held by those that training pulls at most"
    when: ClassVar[str] = "what matters changes; widths should follow it; pointers can be afforded"
    forms: ClassVar[Forms] = (
        {"every": 3},
        {"every": 2, "chunks": 3, "shared": 0.0, "utility": "product", "decay": 0.9, "bits": 4},
        {"every": 3, "chunks": 2, "rest": "zeros", "small": 0.0, "pointers": 0.9},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self.name, vars(self), chunks=1, every=1, warmup=0)
        for name, least, most in (("shared", 0, 0.9), ("pointers", 0.01, 1), ("small", 0, 0.9)):
            if not least <= getattr(self, name) <= most:
                raise BitfoldError(
                    f"{name} is out of range",
                    got=getattr(self, name),
                    expected=f"{least} to {most}",
                )
        if not 0 < self.decay <= 1 or self.decay**self.every < SMALLEST:
            raise BitfoldError(
                "decay is out of range",
                got=f"decay={self.decay}, every={self.every}",
                expected=f"above 0, up to 1, and decay ** every above {SMALLEST}",
            )

    def plan(self, ask: Ask) -> Group:
        """As many chunks as the budget buys beside the pointers."""
        sizes = field_sizes(self.name, ask.fields, ask.budget)
        assert ask.budget is not None
        whole = self.whole(ask)
        if whole is not None and whole.bytes(ask.dim) <= ask.budget:
            return whole
        check_chunks(self.chunks, ask.dim)
        tried = [self.chunks] if self.chunks else [c for c in CHUNKS if ask.dim % c == 0]
        forms = [_Form(self, ask, sizes, chunks) for chunks in tried]
        least = min(form.least() for form in forms)
        least = least if whole is None else min(least, whole.bytes(ask.dim))
        check_minimum(self.name, least, ask.budget)
        fits = [form for form in forms if form.least() <= ask.budget]
        apart = [form for form in fits if form.apart()]
        program = (apart or fits[-1:])[0].program()
        stored = [StoredSpec(*table) for table in program.tables.values()]
        return self.finish(ask, program, "sum", stored=stored)

    def build(
        self, plan: Plan, *, seed: int | None, device: torch.device | str | None, sparse: bool
    ) -> Embedder:
        """The corridor of chunks, or a whole table."""
        program = plan.program
        pointed = [
            [each for each in lookups if isinstance(each.source, Stored)]
            for lookups in program.fields
        ]
        if not any(pointed):
            return super().build(plan, seed=seed, device=device, sparse=sparse)
        how: dict[str, Any] = {
            "period": self.every, "warmup": self.warmup, "decay": self.decay,
            "product": self.utility == "product", "std": self.std, "seed": seed, "device": device,
            "sparse": sparse,
        }  # fmt: skip
        if self.rest == "zeros":
            return BareChunks(plan, **how)
        first = [lookups[0] for lookups in pointed if lookups]
        lengths = [each.source.length for each in first if isinstance(each.source, Stored)]
        rests = self.rests(lengths, first[0].radix, program.chunks)
        return Chunks(plan, rests=rests, **how)

    def rests(self, lengths: Sequence[int], rows: int, chunks: int) -> list[int]:
        """How many rows each chunk of a field shares, of fields of so many virtual rows.

        Example:
            >>> Fiited(shared=0.5).rests([100, 3], 40, 2), Fiited(shared=0.0).rests([9], 40, 2)
            ([7, 3], [1])
        """
        wanted = min(max(int(self.shared * rows) // chunks, len(lengths)), sum(lengths))
        return allocate(lengths, [1] * len(lengths), list(lengths), wanted, 0.0)


class _Form:
    """What fields take in so many chunks, in bytes.

    Args:
        method: with its options.
        ask: with a budget.
        sizes: the fields' ids.
        chunks: pieces of a vector.
    """

    def __init__(self, method: Fiited, ask: Ask, sizes: Sequence[int], chunks: int) -> None:
        self.method, self.ask, self.chunks = method, ask, chunks
        self.budget = ask.budget or 0
        self.width = ask.dim // chunks
        self.row = ask.row_bytes(self.width)
        self.sizes = [min(size, MOST_ROWS) for size in sizes]
        self.whole = self._small()
        if self._least() > self.budget:
            self.whole = frozenset()

    def _small(self) -> frozenset[int]:
        """The smallest fields of dense ids, as many as their share of the budget holds."""
        found, left = set(), self.method.small * self.budget
        for number in sorted(range(len(self.sizes)), key=lambda f: self.sizes[f]):
            left -= self.sizes[number] * self.chunks * self.row
            if left < 0:
                break
            if self.ask.fields[number].num_embeddings is not None:
                found.add(number)
        return frozenset(found) if len(found) < len(self.sizes) else frozenset()

    @property
    def folded(self) -> list[int]:
        """The fields that have pointers."""
        return [f for f in range(len(self.sizes)) if f not in self.whole]

    @property
    def fewest(self) -> int:
        """The fewest rows of the pool: what is shared, and a slot."""
        return 1 + (1 if self.method.rest == "zeros" else self.chunks * len(self.folded))

    def beside(self) -> int:
        """Bytes beside the pool's chunks and the pointers to them."""
        rows = sum(self.sizes[f] for f in self.whole) * self.chunks
        slices = 1 + self.chunks * len(self.whole)
        return self.ask.fixed_bytes(slices, self.width) + rows * self.row

    def least(self) -> int:
        """The fewest bytes that will do, whatever the budget."""
        whole, self.whole = self.whole, frozenset()
        found = self._least()
        self.whole = whole
        return found

    def _least(self) -> int:
        rows = [self.sizes[f] if self.method.map else 1 for f in self.folded]
        return self.beside() + self.fewest * self.row + self.weight(rows, _bits(self.fewest))

    def weight(self, virtual: Sequence[int], bits: int) -> int:
        """Bytes of the pointers of so many virtual rows."""
        return self.chunks * sum(stored_bytes(rows, bits) for rows in virtual)

    def virtual(self, room: float, bits: int) -> list[int]:
        """The virtual rows of each field with pointers, as many as so many bytes hold."""
        sizes = [self.sizes[f] for f in self.folded]
        if self.method.map:
            return sizes
        each = self.chunks * bits
        held = (int(room) - self.chunks * len(sizes)) * 8 // each  # tables end in whole bytes
        return allocate(sizes, [1] * len(sizes), sizes, max(len(sizes), min(held, sum(sizes))), 0.0)

    def rows(self, bits: int) -> tuple[int, list[int]]:
        """How many rows the pool has, with pointers of so many bits, and the virtual rows."""
        room = self.budget - self.beside()
        most = min(self.method.pointers * self.budget, room - self.fewest * self.row)
        virtual = self.virtual(most, bits)
        rows = min((room - self.weight(virtual, bits)) // self.row, 1 << bits)
        rows = min(rows, self.fewest - 1 + self.chunks * sum(virtual))
        # Of what is left, which most often is less than a row.
        more = self.virtual(min(room - rows * self.row, most + self.row), bits)
        return rows, max(virtual, more, key=sum)

    def best(self) -> tuple[int, int, list[int]]:
        """Bits of a pointer, rows of the pool, virtual rows: the most rows, then virtual ones."""
        found = []
        for bits in range(_bits(self.fewest), MOST_BITS + 1):
            rows, virtual = self.rows(bits)
            if rows >= self.fewest:
                found.append((rows, sum(virtual), -bits, virtual))
            if rows < 1 << bits:
                break
        rows, _, bits, virtual = max(found, key=lambda each: each[:3])
        return -bits, rows, virtual

    def apart(self) -> bool:
        """Whether each id has pointers of its own."""
        *_, virtual = self.best()
        return virtual == [self.sizes[f] for f in self.folded]

    def program(self) -> Program:
        """Pointers into the pool's first rows, and behind them the rows of whole fields."""
        bits, rows, virtual = self.best()
        fields, end, place = [], rows, iter(virtual)
        for number, size in enumerate(self.sizes):
            if number in self.whole:
                bases = [end + chunk * size for chunk in range(self.chunks)]
                fields.append(tuple(Lookup(Raw(), size, base) for base in bases))
                end += self.chunks * size
                continue
            length = next(place)
            alone = length == self.ask.fields[number].num_embeddings
            of = Raw() if alone else Mixed(derive_salt(self.ask.seed, number))
            names = [f"pointers_{number}_{chunk}" for chunk in range(self.chunks)]
            sources = [Stored(name, length, bits, of) for name in names]
            fields.append(tuple(Lookup(source, rows, 0) for source in sources))
        return Program(self.chunks, tuple(fields), end)


def _bits(rows: int) -> int:
    return max(1, (rows - 1).bit_length())
