"""What towers and their index are worth: rankings of all items, and of what a search finds."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bitfold.progress import Progress, silent
from bitfold.ranking.candidates import Ints
from bitfold.ranking.questions import blocks
from bitfold.ranking.scoring import Ranking
from bitfold.retrieval.index import Index
from bitfold.retrieval.positives import Positives
from bitfold.retrieval.towers import TwoTowers

ROWS = 8192  # that a tower reads at once


@torch.no_grad()
def item_vectors(model: TwoTowers, positives: Positives) -> Tensor:
    """Vectors `[I, D]` of all items met in training."""
    return _items(model, positives, positives.item_columns, positives.items.taken)


@torch.no_grad()
def user_vectors(model: TwoTowers, positives: Positives) -> Tensor:
    """Vectors `[U, D]` of all users, each in the context of its first positive."""
    users = np.arange(len(positives.users))
    return _users(model, positives, positives.context, positives.first, users)


@torch.no_grad()
def asked_vectors(model: TwoTowers, positives: Positives, ranking: Ranking) -> Tensor:
    """Vectors `[Q, D]` of a ranking's questions."""
    asked = ranking.asked
    columns = positives.layout.mapped(asked.columns)
    users = positives.places_of(asked.users)[asked.groups]
    return _users(model, positives, columns, np.arange(len(asked)), users)


@torch.no_grad()
def ranked_vectors(model: TwoTowers, positives: Positives, ranking: Ranking) -> Tensor:
    """Vectors `[I, D]` of the items that are ranked."""
    if len(ranking.items.ids) == len(positives.items.ids):
        return item_vectors(model, positives)
    columns = positives.layout.mapped(ranking.items.columns)
    return _items(model, positives, columns, ranking.items.taken)


def _items(model: TwoTowers, positives: Positives, columns: Any, taken: Ints) -> Tensor:
    with _still(model):
        found = torch.cat(
            [
                model.items(positives.layout.read(columns, np.arange(start, stop), item=True))
                for start, stop in blocks(len(taken), ROWS)
            ]
        )
    if not model.prior:
        return found
    prior = model.prior * (positives.log_shares(taken) - positives.middle)
    return torch.cat([found, prior[:, None]], dim=1)


def _users(model: TwoTowers, positives: Positives, columns: Any, rows: Ints, users: Ints) -> Tensor:
    layout, found = positives.layout, []
    with _still(model):
        for start, stop in blocks(len(rows), ROWS):
            history = positives.histories(users[start:stop]) if layout.history else None
            read = layout.read(columns, rows[start:stop], item=False, history=history)
            found.append(model.users(read))
    every = torch.cat(found)
    return torch.cat([every, torch.ones(len(every), 1)], dim=1) if model.prior else every


class _still:  # noqa: N801  (a context manager, as a function is)
    """While the block runs, a model does not train."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model, self.training = model, model.training

    def __enter__(self) -> None:
        self.model.eval()

    def __exit__(self, *error: object) -> None:
        self.model.train(self.training)


def measure(
    model: TwoTowers,
    positives: Positives,
    ranking: Ranking,
    progress: Progress = silent,
    served: Tensor | None = None,
) -> dict[str, Any]:
    """Recall, NDCG and MRR of a ranking of all items for each question.

    Args:
        model: the towers.
        positives: what was taken in training.
        ranking: the questions, and the items.
        progress: told of the questions done.
        served: vectors of the ranking's items, where they are not the tower's own.

    Returns:
        The figures of `Ranking.by_vectors`.
    """
    users = asked_vectors(model, positives, ranking)
    items = ranked_vectors(model, positives, ranking) if served is None else served
    return ranking.by_vectors(users, items, progress=progress)


def measure_index(ranking: Ranking, users: Tensor, index: Index, depth: int) -> dict[str, Any]:
    """The figures of what a search in an index finds, the seen left out.

    Args:
        ranking: its items are those of the index, in their order.
        users: `[Q, D]`, a vector of each question.
        index: of the items.
        depth: how many items are looked at: the largest k.
    """
    return ranking.by_lists(_found(ranking, users, index, depth))


def _found(ranking: Ranking, users: Tensor, index: Index, depth: int) -> Iterator[Ints]:
    """For each question the places found, without those that are masked."""
    asked, count = ranking.asked, len(ranking.items.ids)
    for start, stop in blocks(len(asked), 256):
        masked = [asked.masked(question) for question in range(start, stop)]
        most = min(depth + max(len(each) for each in masked), count)
        places = index.search(users[start:stop], most)[1].numpy()
        for mine, out in zip(places, masked, strict=True):
            mine = mine[mine >= 0]
            yield mine[~np.isin(mine, out)][:depth]


def overlap(exact: Tensor, found: Tensor) -> float:
    """The share of exact neighbours `[Q, k]` that a search `[Q, k]` found.

    Example:
        >>> overlap(torch.tensor([[1, 2]]), torch.tensor([[2, 7]]))
        0.5
    """
    pairs = zip(exact.numpy(), found.numpy(), strict=True)
    return float(np.mean([np.isin(mine, theirs) for mine, theirs in pairs]))
