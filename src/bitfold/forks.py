"""Forked children: a fork copies one thread, and whoever waits for the others waits for ever.

OpenMP, which torch and Numba share their work by, takes its threads for still there. A child runs
on one thread from its first instruction on, torch's operations too: as torch's own loaders do in
their workers. A child that says `torch.set_num_threads(2)` is on its own.
"""

import os
import sys

_children = {"forked": False}


def _alone() -> None:
    _children["forked"] = True
    say = getattr(sys.modules.get("torch"), "set_num_threads", None)
    if say is not None:  # else torch is not imported, or not yet
        say(1)


os.register_at_fork(after_in_child=_alone)


def forked() -> bool:
    """Whether this process is a forked child."""
    return _children["forked"]
