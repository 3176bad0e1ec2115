"""Rows whose terms are added: least squares, by conjugate gradients where rows meet.

Vectors are `A P` of the rows `P`: each of their `w` columns is a linear system of its own with one
sparse matrix. Its normal equations `A'WA P = A'W Y` are solved by conjugate gradients, scaled by
their diagonal, without writing down the matrix. Where every number is read from one place the
matrix is that diagonal: rows are weighted means, and nothing is left to iterate.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from bitfold.fitting.reading import Read, Reading, pieces_of

ROUNDS, LEAST = 60, 1e-4
"""How many steps at most, and by how much of the error the last ones must help."""
NOTHING = 1e-12
"""An error that is none, of what there was."""


def least_squares(reading: Reading) -> str:
    """Put the rows that come nearest to the tables; returns how."""
    before = reading.take()
    wanted, weight = torch.zeros_like(before), before.new_zeros(reading.rows, 1)
    whole = 0.0
    for read in reading:
        whole += float((read.weights * read.wanted.square()).sum())
        one = _spread(read, (read.weights * read.wanted).unsqueeze(2))
        add(wanted, read.cells, one)
        squares = read.weights.unsqueeze(2).expand(*read.cells.shape, 1)
        if read.factors is not None:
            squares = squares * read.factors.unsqueeze(-1).square()
        add(weight, read.cells, squares)
    met = weight.squeeze(1) > 0
    if reading.diagonal:
        rows, how = wanted / weight.where(weight > 0, weight.new_ones(())), "row means"
    else:
        rows = conjugate(lambda p: _normal(reading, p), wanted, weight, whole)
        how = "least squares"
    reading.put(torch.where(met[:, None], rows, before))
    return how


def conjugate(
    normal: Callable[[Tensor], Tensor],
    wanted: Tensor,
    diagonal: Tensor,
    whole: float,
    rounds: int = ROUNDS,
) -> Tensor:
    """The solution `[R, w]` of normal equations, column by column, from zeros on.

    Args:
        normal: what multiplies rows `[R, w]` with the matrix.
        wanted: the right side, `[R, w]`.
        diagonal: of the matrix, `[R, 1]` or `[R, w]`; a row of 0 is left at 0.
        whole: the error of zeros; steps end where they no longer help what is left of it.
        rounds: how many steps at most.

    Example:
        >>> matrix, wanted = torch.tensor([[2.0, 1.0], [1.0, 3.0]]), torch.tensor([[3.0], [4.0]])
        >>> found = conjugate(lambda p: matrix @ p, wanted, matrix.diagonal()[:, None], 8.0)
        >>> torch.allclose(found, torch.ones(2, 1))
        True
    """
    inverse = torch.where(diagonal > 0, 1 / diagonal, 0.0)
    rows, rest = torch.zeros_like(wanted), wanted.clone()
    way = rest * inverse
    now = (rest * way).sum(0)
    left, small = whole, 0
    for _ in range(rounds):
        turned = normal(way)
        along = (way * turned).sum(0)
        step = torch.where(along > 0, now / along, 0.0)
        rows += step * way
        gained = float((step * now).sum())
        left = max(left - gained, 0.0)
        small = small + 1 if gained <= LEAST * left else 0
        if small > 1 or left <= NOTHING * whole or not gained:
            break
        rest -= step * turned
        scaled = rest * inverse
        then = (rest * scaled).sum(0)
        way = scaled + torch.where(now > 0, then / now, 0.0) * way
        now = then
    return rows


def add(into: Tensor, cells: Tensor, numbers: Tensor) -> None:
    """Add numbers `[n, C, K, w]` to the rows at cells `[n, C, K]`."""
    into.index_add_(0, cells.reshape(-1), numbers.reshape(-1, into.shape[1]))


def _normal(reading: Reading, rows: Tensor) -> Tensor:
    """`A'WA` times rows."""
    found = torch.zeros_like(rows)
    for read in reading.passing(False):
        out = pieces_of(rows, read).sum(2)
        add(found, read.cells, _spread(read, (read.weights * out).unsqueeze(2)))
    return found


def _spread(read: Read, numbers: Tensor) -> Tensor:
    """Numbers `[n, C, 1, w]` for each term, times its factor."""
    if read.factors is None:
        return numbers.expand(*read.cells.shape, numbers.shape[-1])
    return numbers * read.factors.unsqueeze(-1)
