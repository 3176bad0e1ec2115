"""Rows whose terms are multiplied: each term's rows in turn, or all of them by Gauss-Newton.

With the others held fixed, a vector is linear in the rows of one term, and where no id reads a row
twice those are weighted means again: `sum c o y / sum c o^2`, with `o` the product of the others.
So the error falls with every turn. Two digits make a matrix of ids' values column by column, of
which this is the power iteration to its first singular vectors.

Where terms share rows, steps are taken in all rows at once: the products are made linear around
where they are, the linear system is solved by a few conjugate gradients, and the step is halved
until the error falls.
"""

from functools import partial

import torch
from torch import Tensor

from bitfold.fitting.linear import add, conjugate
from bitfold.fitting.reading import Read, Reading, energy, loss, pieces_of

TURNS, LEAST = 40, 1e-4
"""How often every term has its turn at most, and by how much of the error a turn must help."""
STEPS, INNER = 12, 6
SPREAD = 0.1
RIDGE, SMALL = 1e-9, 1e-3


def blocks(reading: Reading) -> list[int] | None:
    """The terms whose rows are no other term's: `[0, 1]`; None where ids may read one twice.

    Terms are numbered by their place in a chunk.
    """
    spans: dict[int, list[tuple[int, int]]] = {}
    for lookups, terms in zip(reading.lookups, reading.terms, strict=True):
        for position, lookup in enumerate(lookups):
            at = reading.place_of(lookup)
            spans.setdefault(position % terms, []).append((at, at + lookup.span))
    owner = torch.full((reading.rows,), -1, dtype=torch.int16)
    for term, each in sorted(spans.items()):
        for begin, end in each:
            if reading.flat or not bool(
                ((owner[begin:end] == -1) | (owner[begin:end] == term)).all()
            ):
                return None
            owner[begin:end] = term
    return sorted(spans)


def multiply(reading: Reading, generator: torch.Generator) -> str:
    """Put the rows whose products come nearest to the tables; returns how."""
    terms = blocks(reading)
    if terms is None:
        return _gauss_newton(reading, generator)
    rows = _started(reading, generator)
    whole, before = energy(reading), float("inf")
    for _ in range(TURNS):
        for term in terms:
            left = whole - turn(reading, rows, rows, term)
        if before - left <= LEAST * left:
            break
        before = left
    reading.put(rows)
    return "alternating least squares"


def turn(reading: Reading, rows: Tensor, others: Tensor, term: int) -> float:
    """Write the best rows of one term, in place; returns by how much that explains the tables.

    Args:
        reading: who reads what.
        rows: `[R, w]`.
        others: what the other terms read, of the same shape: rounded, or the rows themselves.
        term: which.

    Returns:
        For products, the weighted sum of squares that is explained. For sums nothing of meaning.
    """
    wanted, weight = torch.zeros_like(rows), torch.zeros_like(rows)
    explained = 0.0
    for read in reading:
        if term >= read.cells.shape[2]:
            continue
        target, along = _apart(read, others, term, reading.product)
        cells = read.cells[:, :, term]
        add(wanted, cells, read.weights * along * target)
        add(weight, cells, (read.weights * along.square()).expand_as(target))
    # Where the others are nearly zero, a row would have to be huge to be of any use.
    least = RIDGE * weight.amax(0)
    found = wanted / (weight + least).where(weight > 0, weight.new_ones(()))
    explained = float((wanted * found).sum())
    rows.copy_(torch.where(weight > 0, found, rows))
    return explained


def _apart(read: Read, others: Tensor, term: int, product: bool) -> tuple[Tensor, Tensor]:
    """What one term should give `[n, C, w]`, and what it is multiplied with."""
    kept = [k for k in range(read.cells.shape[2]) if k != term]
    own = None if read.factors is None else read.factors[:, :, term, None]
    if not kept:
        along = torch.ones_like(read.wanted) if own is None else own.expand_as(read.wanted)
        return read.wanted, along
    factors = None if read.factors is None else read.factors[:, :, kept]
    rest = Read(read.ids, read.cells[:, :, kept], factors, read.wanted, read.weights)
    pieces = pieces_of(others, rest)
    if product:
        along = pieces.prod(2)
        return read.wanted, along if own is None else along * own
    target = read.wanted - pieces.sum(2)
    return target, torch.ones_like(target) if own is None else own.expand_as(target)


def _started(reading: Reading, generator: torch.Generator) -> Tensor:
    """Later terms around 1, as fresh ones are; the first is fitted to them."""
    shape = reading.rows, reading.width
    noise = torch.randn(shape, generator=generator, dtype=torch.float32)
    return (1 + SPREAD * noise).to(reading.device, reading.dtype)


def _gauss_newton(reading: Reading, generator: torch.Generator) -> str:
    shape, terms = (reading.rows, reading.width), max(reading.terms)
    noise = torch.randn(shape, generator=generator, dtype=torch.float32)
    size = (energy(reading) / max(len(reading.numbers), 1) / reading.tables[0].dim) ** 0.5
    rows = (noise * size ** (1 / terms)).to(reading.device, reading.dtype)
    # Factors that are far from each other in size round badly: rows are kept small, a little.
    small = SMALL * energy(reading) / float(rows.square().sum())
    error, damping = loss(reading, rows) + small * float(rows.square().sum()), 1e-3
    for _ in range(STEPS):
        wanted, weight = torch.zeros_like(rows), torch.zeros_like(rows)
        for read in reading:
            pieces = pieces_of(rows, read)
            off = read.weights * (read.wanted - pieces.prod(2))
            slopes = _slopes(pieces, read)
            add(wanted, read.cells, slopes * off.unsqueeze(2))
            add(weight, read.cells, slopes.square() * read.weights.unsqueeze(2))
        more = damping * weight + small
        wanted -= small * rows
        way = conjugate(
            partial(_curvature, reading, rows, more), wanted, weight + more, error, INNER
        )
        before, length = error, 1.0
        while length > 1e-3:
            tried = rows + length * way
            error = loss(reading, tried) + small * float(tried.square().sum())
            if error < before:
                rows = tried
                break
            length, error = length / 2, before
        damping = damping / 3 if length == 1 else damping * 3
        if before - error <= LEAST * before:
            break
    reading.put(rows)
    return "Gauss-Newton steps"


def _slopes(pieces: Tensor, read: Read) -> Tensor:
    """What each term is multiplied with, `[n, C, K, w]`."""
    terms = pieces.shape[2]
    found = [pieces[:, :, [k for k in range(terms) if k != term]].prod(2) for term in range(terms)]
    slopes = torch.stack(found, 2)
    return slopes if read.factors is None else slopes * read.factors.unsqueeze(-1)


def _curvature(reading: Reading, rows: Tensor, more: Tensor, way: Tensor) -> Tensor:
    found = more * way
    for read in reading.passing(False):
        slopes = _slopes(pieces_of(rows, read), read)
        out = read.weights * (slopes * way[read.cells]).sum(2)
        add(found, read.cells, slopes * out.unsqueeze(2))
    return found
