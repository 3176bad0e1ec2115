"""A pass over a table's rows: which hold nothing but zeros, and which hold NaN or infinities.

Numbers are looked at as bits, so that every floating type is read alike, and none is converted.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from bitfold.weights.tables import FoundTable
from bitfold.weights.tensors import EXPONENTS

CHUNK = 16 << 20
"""Bytes of rows that are in memory at a time."""


def count_rows(table: FoundTable, tell: Callable[[int], None]) -> dict[str, int]:
    """How many rows are zeros alone, and how many hold a number that is not finite.

    Args:
        table: whose rows; nothing is counted where its numbers are not in the file.
        tell: is told how many bytes were read, chunk by chunk.
    """
    read = table.tensor.read
    if read is None:
        return {}
    word, exponent = EXPONENTS[table.tensor.dtype]
    mask: Any = word(exponent)
    magnitude: Any = word(np.iinfo(word).max >> 1)
    step = max(CHUNK // max(table.width * word().itemsize, 1), 1)
    zero = broken = 0
    for start in range(0, table.rows, step):
        words = read(start, min(start + step, table.rows))
        zero += int((words & magnitude == 0).all(axis=1).sum())
        broken += int((words & mask == mask).any(axis=1).sum())
        tell(words.nbytes)
    return {"zero_rows": zero if table.width else 0, "nonfinite_rows": broken}
