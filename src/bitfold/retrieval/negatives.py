"""Negatives beside a batch's own items: drawn alike, unseen ones of a user, hard ones.

Everything is drawn from `(seed, epoch, step)`: a resumed training draws what it would have.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bitfold.ranking.candidates import Ints
from bitfold.ranking.questions import blocks
from bitfold.retrieval.positives import Positives

TRIES = 20  # draws of an item that the user did not take, before one that was is let through
SCORES = 1 << 24  # scores that are held at once


def unseen(positives: Positives, users: Ints, count: int, draw: np.random.Generator) -> Ints:
    """Items that users did not take, drawn alike: int64 `[n, count]`.

    Of a user who took nearly all, some are taken ones.
    """
    size = len(positives.items.ids)
    found = draw.integers(0, size, (len(users), count))
    for _ in range(TRIES):
        taken = positives.has(users[:, None], found)
        if not taken.any():
            break
        found[taken] = draw.integers(0, size, int(taken.sum()))
    return found


@torch.no_grad()
def nearest(
    positives: Positives, users: Tensor, items: Tensor, depth: int
) -> npt.NDArray[np.int32]:
    """The nearest items of each user that the user did not take.

    Args:
        positives: what was taken.
        users: `[U, D]`, a vector of each user.
        items: `[I, D]`.
        depth: how many.

    Returns:
        int32 `[U, min(depth, I)]`, the nearest first. Where a user took nearly all, taken ones
        come last.
    """
    depth = min(depth, len(items))
    out = np.empty((len(users), depth), np.int32)
    for start, stop in blocks(len(users), max(SCORES // len(items), 1)):
        scores = users[start:stop] @ items.T
        counts = np.diff(positives.starts[start : stop + 1])
        row = np.repeat(np.arange(stop - start), counts)
        mine = positives.taken[positives.starts[start] : positives.starts[stop]]
        scores[torch.from_numpy(row), torch.from_numpy(mine)] = -torch.inf
        out[start:stop] = scores.topk(depth, dim=1).indices.numpy()
    return out


def hard(
    positives: Positives,
    near: npt.NDArray[np.int32],
    users: Ints,
    count: int,
    draw: np.random.Generator,
) -> Ints:
    """`count` of each user's nearest items, drawn alike from those not taken: int64 `[n, count]`.

    Of a user who took all items they are taken ones.
    """
    taken = positives.starts[users + 1] - positives.starts[users]
    room = np.clip(len(positives.items.ids) - taken, 1, near.shape[1])
    which = draw.integers(0, room[:, None], (len(users), count))
    found: Any = near[users[:, None], which]
    return np.asarray(found, np.int64)
