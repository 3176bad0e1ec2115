"""How ids read the rows that are fitted: cells, and what each counts, of one compact array.

A vector that is a sum of terms is linear in the rows, one that is a product linear in those of any
one term. So all that a fit needs is, for some ids, which rows they read and with which factor.

Shapes: `n` ids of one field, `C` chunks, `K` terms, `w` numbers of a piece, `R` rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bitfold.address import Address, Lookup
from bitfold.embedder.corridor import Corridor
from bitfold.fitting.tables import Trained

NUMBERS = 1 << 18
"""Numbers of the pieces that are in memory at a time."""
KEPT = 1 << 25
"""Cells that are kept between passes, as int32: mixing ids anew takes longer than reading them."""
EXACT = 1 << 21
"""Numbers up to which rows are fitted in float64: beyond, float32 spares memory and is as good."""


class Run(NamedTuple):
    """Rows `first..end-1` of pool `pool`, which are rows from `at` on in the compact array."""

    pool: int
    first: int
    end: int
    at: int


class Read(NamedTuple):
    """What some ids read.

    Args:
        ids: int64 `[n]`.
        cells: int64 `[n, C, K]`, rows of the compact array.
        factors: `[n, C, K]`, what each piece is multiplied with; None for 1.
        wanted: `[n, C, w]`, what should come out; of a pass without it, anything.
        weights: `[n, 1, 1]`, what each id counts.
    """

    ids: Tensor
    cells: Tensor
    factors: Tensor | None
    wanted: Tensor
    weights: Tensor


class Reading:
    """The rows of some fields of a corridor, as one array `[R, w]`, and who reads them how.

    Args:
        part: the corridor.
        numbers: which of its fields.
        tables: their trained tables.
        turns: for each a matrix `[D, w']` that makes of a vector what the rows should give; None
            where that is the vector.
    """

    def __init__(
        self,
        part: Corridor,
        numbers: Sequence[int],
        tables: Sequence[Trained],
        turns: Sequence[Tensor | None],
    ) -> None:
        self.part, self.tables, self.turns = part, tables, turns
        self.numbers = list(numbers)
        specs = part.plan.group.pools
        self.flat = specs[0].step > 0  # a cell is a number, and a piece begins at any
        self.piece = specs[0].width
        self.width = 1 if self.flat else self.piece
        self.lookups = [part.program.fields[number] for number in numbers]
        self.terms = [len(each) // part.program.chunks for each in self.lookups]
        self.runs = self._runs()
        self.rows = self.runs[-1].at + self.runs[-1].end - self.runs[-1].first
        self.dtype = torch.float64 if self.rows * self.width <= EXACT else torch.float32
        self.device = part.pool.weight.device
        self.addresses = [self._address(lookups) for lookups in self.lookups]
        self.shifts = [self._shift(lookups) for lookups in self.lookups]
        cells = sum(len(t) * len(p) for t, p in zip(tables, self.lookups, strict=True))
        self.keeps = cells * (self.piece if self.flat else 1) <= KEPT and self.rows < 1 << 31
        self.kept: dict[tuple[int, int], Tensor] = {}
        self.shares = [part.fuse.share(f, k) for f, k in zip(numbers, self.terms, strict=True)]

    @property
    def product(self) -> bool:
        """Whether terms are multiplied: then `share` has nothing to say."""
        return any(each is None for each in self.shares)

    @property
    def diagonal(self) -> bool:
        """Whether every number of a vector is read from one place, so that rows are means."""
        return all(terms == 1 for terms in self.terms)

    def __iter__(self) -> Iterator[Read]:
        """All ids of all fields, some at a time."""
        return self.passing(True)

    def passing(self, wanted: bool) -> Iterator[Read]:
        """The same, with nothing `wanted` where the tables need not be read."""
        for place in range(len(self.tables)):
            yield from self.of(place, wanted)

    def of(self, place: int, wanted: bool = True) -> Iterator[Read]:
        """All ids of one field, some at a time."""
        trained = self.tables[place]
        size = max(256, NUMBERS // (trained.dim * self.terms[place]))
        for begin in range(0, len(trained), size):
            yield self._read(place, begin, min(begin + size, len(trained)), wanted)

    def _read(self, place: int, begin: int, end: int, wanted: bool) -> Read:
        trained, turn = self.tables[place], self.turns[place]
        chunk = trained.chunk(begin, end, wanted)
        cells, factors = self._cells(place, begin, chunk.ids)
        weights = (chunk.weights / trained.mass).to(self.dtype)[:, None, None]
        if not wanted:
            return Read(chunk.ids, cells, factors, weights, weights)
        vectors = chunk.vectors if turn is None else chunk.vectors.to(turn.dtype) @ turn
        target = vectors.to(self.dtype).reshape(len(chunk.ids), cells.shape[1], self.width)
        return Read(chunk.ids, cells, factors, target, weights)

    def _cells(self, place: int, begin: int, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """Rows of the compact array that ids of a field read, and the factors of the pieces."""
        cells = self.kept.get((place, begin))
        if cells is None:
            column = ids.unsqueeze(1)
            tables = self.part.stored.named()
            cells = self.addresses[place].cells(column, None, tables).squeeze(1)
            cells = self._numbers(cells + self.shifts[place])
            if self.keeps:
                self.kept[place, begin] = cells.int()
        return cells.long(), self._factors(place, ids)

    def _numbers(self, cells: Tensor) -> Tensor:
        """The numbers of a flat array that pieces at cells have; rows are what they are."""
        if not self.flat:
            return cells
        run = torch.arange(self.piece, device=cells.device)
        return ((cells.unsqueeze(2) + run[:, None]) % self.rows).flatten(1, 2)  # a ring

    def _factors(self, place: int, ids: Tensor) -> Tensor | None:
        """What pieces of ids are multiplied with, `[n, C, K]`; None for 1."""
        part, number, terms = self.part, self.numbers[place], self.terms[place]
        factors = part.factors(ids, torch.full_like(ids, number))
        if factors is not None:
            factors = factors.detach()[..., :terms].to(self.dtype)
        signs, share = self.addresses[place].signs(ids.unsqueeze(1)), self.shares[place]
        if signs is not None:
            signs = signs.squeeze(1).to(self.dtype)
            factors = signs if factors is None else factors * signs
        if share is not None and not bool((share == 1).all()):
            share = share.to(self.device, self.dtype).expand(len(ids), part.program.chunks, terms)
            factors = share if factors is None else factors * share
        if factors is not None and self.flat:
            factors = factors.repeat_interleave(self.piece, 1)
        return factors

    def take(self) -> Tensor:
        """The rows as they are, `[R, w]`."""
        found = torch.empty(self.rows, self.width, dtype=self.dtype, device=self.device)
        for pool, begin, end, at in self._pieces():
            cells = torch.arange(begin, end, device=self.device)
            found[at : at + end - begin] = pool.numbers(cells).to(self.dtype)
        return found

    def read(self) -> Tensor:
        """The rows as they are read, `[R, w]`: rounded where they have few bits."""
        found = torch.empty(self.rows, self.width, dtype=self.dtype, device=self.device)
        for pool, begin, end, at in self._pieces():
            cells = torch.arange(begin, end, device=self.device)
            found[at : at + end - begin] = pool.at(pool.weight.detach(), cells).to(self.dtype)
        return found

    def put(self, rows: Tensor) -> None:
        """Write the rows; their levels follow where they have few bits."""
        for pool, begin, end, at in self._pieces():
            cells = torch.arange(begin, end, device=self.device)
            pool.put(cells, pool.held(cells, rows[at : at + end - begin]))
        for pool in self.part.pools():
            pool.refresh()

    def _pieces(self) -> Iterator[tuple[Any, int, int, int]]:
        """The pools' rows, some at a time, and where they are in the compact array."""
        pools, most = self.part.pools(), max(1, NUMBERS // self.width)
        for run in self.runs:
            for begin in range(run.first, run.end, most):
                yield pools[run.pool], begin, min(begin + most, run.end), run.at + begin - run.first

    def _runs(self) -> list[Run]:
        """The rows that lookups reach, those of each pool together."""
        if self.flat:
            return [Run(0, 0, self.part.program.rows, 0)]
        spans = sorted({(p.pool, p.base, p.base + p.span) for each in self.lookups for p in each})
        merged: list[tuple[int, int, int]] = []
        for pool, first, end in spans:
            if merged and merged[-1][0] == pool and first <= merged[-1][2]:
                merged[-1] = pool, merged[-1][1], max(end, merged[-1][2])
            else:
                merged.append((pool, first, end))
        runs, at = [], 0
        for pool, first, end in merged:
            runs.append(Run(pool, first, end, at))
            at += end - first
        return runs

    def place_of(self, lookup: Lookup) -> int:
        """The row of the compact array where a lookup's slice begins."""
        if self.flat:
            return lookup.base
        for run in self.runs:
            if run.pool == lookup.pool and run.first <= lookup.base < run.end:
                return run.at + lookup.base - run.first
        raise AssertionError("every lookup's rows are in a run")

    def _address(self, lookups: tuple[Lookup, ...]) -> Address:
        return Address(replace(self.part.program, fields=(lookups,)), self.device)

    def _shift(self, lookups: tuple[Lookup, ...]) -> Tensor:
        """What is added to the cells of each lookup, int64 `[C, K]`."""
        shifts = [self.place_of(each) - each.base for each in lookups]
        return torch.tensor(shifts, device=self.device).reshape(self.part.program.chunks, -1)


def pieces_of(rows: Tensor, read: Read) -> Tensor:
    """The pieces `[n, C, K, w]` that are read, times their factors."""
    found = rows[read.cells]
    return found if read.factors is None else found * read.factors.unsqueeze(-1)


def fused(rows: Tensor, read: Read, product: bool) -> Tensor:
    """What comes out, `[n, C, w]`."""
    pieces = pieces_of(rows, read)
    return pieces.prod(2) if product else pieces.sum(2)


def energy(reading: Reading) -> float:
    """The weighted sum of squares of what is wanted."""
    return sum(float((read.weights * read.wanted.square()).sum()) for read in reading)


def loss(reading: Reading, rows: Tensor) -> float:
    """The weighted sum of squared errors."""
    total = 0.0
    for read in reading:
        off = read.wanted - fused(rows, read, reading.product)
        total += float((read.weights * off.square()).sum())
    return total
