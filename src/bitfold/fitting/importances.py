"""Importances that are learned for ids: they and the rows that they weigh are fitted in turns.

With the rows held fixed, a vector is linear in its id's `k` importances: least squares with `k`
unknowns for each row of importances, of the `w` numbers of every id that reads it.
"""

import torch
from torch import Tensor

from bitfold.embedder.importances import Importances
from bitfold.fitting.linear import least_squares
from bitfold.fitting.reading import Reading

TURNS = 3
RIDGE = 1e-3
"""How much importances stay as they are, of what the tables say of them."""


def weigh(part: Importances, reading: Reading) -> None:
    """Fit importances and rows in turns, beginning with importances."""
    for _ in range(TURNS):
        rows = reading.take()
        for place, number in enumerate(reading.numbers):
            if part.rows[number]:
                _weigh(part, reading, rows, place)
        least_squares(reading)


def _weigh(part: Importances, reading: Reading, rows: Tensor, place: int) -> None:
    number, terms = reading.numbers[place], reading.terms[place]
    (lookup,) = part.places.program.fields[number]
    size = lookup.radix
    square = torch.zeros(size, terms, terms, dtype=torch.float64, device=rows.device)
    cross = torch.zeros(size, terms, dtype=torch.float64, device=rows.device)
    for read in reading.of(place):
        cells = part.places.cells(read.ids, torch.full_like(read.ids, number)).reshape(-1)
        pieces = rows[read.cells].double().squeeze(1)  # one chunk: [n, k, w]
        counted = pieces * read.weights.double()
        square.index_add_(0, cells - lookup.base, counted @ pieces.transpose(1, 2))
        target = (counted @ read.wanted.double().transpose(1, 2)).squeeze(2)
        cross.index_add_(0, cells - lookup.base, target)
    here = torch.arange(lookup.base, lookup.base + size, device=rows.device)
    before = part.importance.numbers(here)[:, :terms].double()
    ridge = RIDGE * square.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-30)[:, None]
    square.diagonal(dim1=1, dim2=2).add_(ridge)
    found = torch.linalg.solve(square, cross + ridge * before)
    numbers = part.importance.numbers(here)
    numbers[:, :terms] = found.to(numbers.dtype)
    part.importance.put(here, numbers)
