"""Whether this process was forked from one that had loaded Polars.

Polars' threads do not survive a fork: the child's first query waits for them for ever. Scoring
then goes value by value (`single`); whatever cannot do without Polars is refused at once.
"""

import os
import sys

from bitfold.errors import BitfoldError

_lost = False


def _after_fork() -> None:
    global _lost
    _lost = _lost or "polars" in sys.modules


os.register_at_fork(after_in_child=_after_fork)


def polars_is_lost() -> bool:
    """Whether a query of Polars would never end in this process."""
    return _lost


def need_polars(what: str) -> None:
    """Raise if Polars' threads were lost.

    Raises:
        BitfoldError: this process was forked after Polars was loaded.
    """
    if _lost:
        raise BitfoldError(
            f"{what} does not work in a forked process",
            got="a process forked after Polars was loaded, whose threads the fork left behind",
            expected="a process of its own",
            fix="start it with multiprocessing's 'spawn' or 'forkserver'",
        )
