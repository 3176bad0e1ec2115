"""Prototypes of items: the mean of the vectors of the users who took each, and the relation loss.

Source: ReMarNet, 2020 (arXiv 2006.15366): a relation head, similarity to prototypes that are made
of few examples, and a margin head on one trunk. Here the towers are the trunk, a class is an item,
and its examples are its clicks.

Shapes: `B` rows of a batch, `U` users, `I` items, `D` the width.
"""

import numpy as np
import torch
from torch import Tensor, nn

from bitfold.ranking.candidates import Ints
from bitfold.retrieval.positives import Positives


def prototypes(users: Tensor, positives: Positives, *, unit: bool) -> Tensor:
    """The mean vector `[I, D]` of each item's users; zeros where nobody took it.

    Args:
        users: `[U, D]`, a vector of each user of training.
        positives: who took what.
        unit: whether prototypes get length 1.
    """
    owners = np.repeat(np.arange(len(positives.users)), np.diff(positives.starts))
    places = torch.from_numpy(positives.taken)
    sums = torch.zeros(len(positives.items.ids), users.shape[1])
    sums.index_add_(0, places, users[torch.from_numpy(owners)])
    counts = torch.from_numpy(clicks(positives)).clamp_min(1)
    found = sums / counts[:, None]
    return nn.functional.normalize(found, dim=1) if unit else found


def clicks(positives: Positives) -> Ints:
    """How many users took each item in training, int64 `[I]`."""
    return np.bincount(positives.taken, minlength=len(positives.items.ids))


def batch_prototypes(users: Tensor, owners: Tensor, took: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Prototypes of a batch's items, made of the batch's users alone.

    The batch is the episode: an item that many took is met as one with the few clicks that came
    together. Of a row's own item the pair itself is left out, `(sum - own) / (n - 1)`, with every
    other row of the same user.

    Args:
        users: `[B, D]`.
        owners: int64 `[B]`, which user each row is of.
        took: bool `[B, B]`: the user of row r took the item of row c; true on the diagonal.

    Returns:
        Prototypes `[B, D]` of each row's item; those without the row's user, `[B, D]`; and which
        rows have such a one, bool `[B]`.

    Example:
        >>> users = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> whole, rest, there = batch_prototypes(
        ...     users, torch.tensor([0, 1]), torch.tensor([[True, False], [True, True]])
        ... )
        >>> whole.tolist(), rest[0].tolist(), there.tolist()
        ([[0.5, 0.5], [0.0, 1.0]], [0.0, 1.0], [True, False])
    """
    same = (owners[:, None] == owners[None, :]).to(users.dtype)
    held = took.to(users.dtype)
    sums, counts = held.T @ users, held.sum(0)
    left = counts - same.sum(1)
    rest = (sums - same @ users) / left.clamp_min(1)[:, None]
    return sums / counts[:, None], rest, left > 0


def relation_loss(
    users: Tensor,
    owners: Tensor,
    took: Tensor,
    temperature: float,
    log_q: Tensor | None = None,
    *,
    unit: bool = False,
) -> Tensor:
    """Mean cross entropy of each row's item among the batch's, by similarity to prototypes.

    Gradients go to the users that are asked for and to those that prototypes are made of. What a
    row's user took is no negative; a row whose item nobody else of the batch took is left out.

    Args:
        users: `[B, D]`.
        owners: int64 `[B]`.
        took: bool `[B, B]`, as in `batch_prototypes`.
        temperature: what scores are divided by.
        log_q: `[B]`, the log of each item's share of the positives; None leaves it out.
        unit: whether prototypes get length 1.

    Returns:
        A scalar; 0 where no row is left.
    """
    whole, rest, there = batch_prototypes(users, owners, took)
    if unit:
        whole, rest = nn.functional.normalize(whole, dim=1), nn.functional.normalize(rest, dim=1)
    own = torch.eye(len(users), dtype=torch.bool, device=users.device)
    scores = torch.where(own, (users * rest).sum(1)[:, None], users @ whole.T) / temperature
    if log_q is not None:
        scores = scores - log_q
    scores = scores.masked_fill(took & ~own, -torch.inf)
    target = torch.arange(len(users), device=users.device)
    losses = nn.functional.cross_entropy(scores, target, reduction="none")
    return torch.where(there, losses, 0.0).sum() / there.sum().clamp_min(1)
