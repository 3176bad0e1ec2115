"""Rows of few bits that are read together: each term makes up for the rounding of the others.

Levels are those that training would take of the rows. Of one term alone the nearest levels are the
best; of several, the rows of each are fitted once more to what the others read as they are rounded.
"""

import torch

from bitfold.fitting.products import blocks, turn
from bitfold.fitting.reading import Reading, loss

TURNS = 2


@torch.no_grad()
def make_up(reading: Reading) -> bool:
    """Fit every term's rows to the others as they are read, where the error falls.

    Levels follow the rows after each turn, so the next training finds those that it would take.

    Returns:
        False where terms share rows, so that none can be fitted to the others.
    """
    if reading.diagonal:
        return True
    terms = blocks(reading)
    if terms is None:
        return False
    rows = reading.take()
    error = loss(reading, reading.read())
    for _ in range(TURNS):
        for term in reversed(terms):  # the first term, with most rows, has the last word
            kept = rows.clone()
            turn(reading, rows, reading.read(), term)
            reading.put(rows)
            now = loss(reading, reading.read())
            if now > error:
                rows = kept
                reading.put(rows)
            error = min(now, error)
    return True
