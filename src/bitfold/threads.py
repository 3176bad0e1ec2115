"""Threads: Numba and torch both keep their number in OpenMP, so that one sets the other's.

Numba sets it to the number of cores when it is first asked for its own number, and to its own
number in every loop. Who said one thread, or shares the cores with others, would wait for threads
that nobody wanted in every operation of torch.
"""

import os
import sys
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


@lru_cache(maxsize=1)
def most_threads() -> int:
    """The most threads that Numba can use."""
    config: Any = numba.config
    return int(config.NUMBA_NUM_THREADS)


def agree(threads: int) -> None:
    """Let Numba use torch's number of threads, and torch keep it."""
    import torch

    limit = min(threads, most_threads())
    if numba.get_num_threads() != limit:
        numba.set_num_threads(limit)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def as_many_as_torch(compiled: F) -> F:
    """A parallel function of Numba's in torch's number of threads.

    Where torch is not there and nobody said a number, it uses all cores, as torch will.
    """

    @wraps(compiled)
    def called(*args: Any) -> Any:
        if "torch" in sys.modules or "OMP_NUM_THREADS" in os.environ:
            import torch

            agree(torch.get_num_threads())
        return compiled(*args)

    return called  # type: ignore[return-value]
