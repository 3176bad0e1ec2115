"""How many threads share a batch."""

import torch

from bitfold.forks import forked
from bitfold.threads import agree, most_threads

SERIAL_NUMBERS = 1 << 15  # outputs below which waking a second thread costs more than it saves


def threads_for(rows: int) -> int:
    """How many threads share a batch: torch's number, which Numba must not change."""
    threads = torch.get_num_threads()
    if min(threads, most_threads()) <= 1 or rows <= 1 or forked():
        return 1  # and Numba is not even asked, see `bitfold.threads`
    agree(threads)
    return min(threads, rows)


def threads_of(numbers: int, rows: int) -> int:
    """How many threads share so many numbers in so many rows."""
    return 1 if numbers < SERIAL_NUMBERS else threads_for(rows)
