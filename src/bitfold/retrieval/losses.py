"""Losses of two towers: sampled softmax over the batch, and pairs.

Sources: Yi et al., Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations,
RecSys 2019 (the correction); Rendle et al., BPR, UAI 2009.

Shapes: `B` rows of a batch, each a user and an item that the user took; `N` further negatives of
the whole batch, `H` of each row; `D` the width.
"""

from torch import Tensor, nn

from bitfold.retrieval.in_blocks import CrossEntropy, Scoring, Shared


def softmax_loss(
    users: Tensor,
    items: Tensor,
    places: Tensor,
    temperature: float,
    log_q: Tensor | None = None,
    shared: tuple[Shared, ...] = (),
    own: Tensor | None = None,
    taken: tuple[Tensor, Tensor] | None = None,
    prior: Tensor | None = None,
    margin: float = 0.0,
) -> Tensor:
    """Mean cross entropy of each row's item among those of the batch and further negatives.

    A score is `u . v / temperature - log q`: an item that is drawn often is a negative often, and
    the correction takes that back. A row's own item is no negative of the row, wherever it comes
    again.

    Args:
        users: `[B, D]`.
        items: `[B, D]`, what each row took.
        places: int64 `[B]`, which items these are.
        temperature: what scores are divided by.
        log_q: `[B]`, the log of each item's share of the positives; None leaves it out.
        shared: further negatives of all rows.
        own: `[B, H, D]`, further negatives of each row.
        taken: rows and columns, among the batch's items and then those of `shared`, that are no
            negatives either: what the row's user took. A row's own column stays.
        prior: `[B, H]`, what the scores of `own` have beside the vectors.
        margin: taken off each row's own `u . v`, which must be ahead by as much.

    Example:
        >>> import torch
        >>> one = torch.eye(2)
        >>> softmax_loss(one, one, torch.tensor([0, 1]), 1.0)  # log(1 + e**-1)
        tensor(0.3133)
    """
    groups = (Shared(items, places, log_q), *shared)
    if taken is not None:
        order = taken[0].argsort()
        taken = (taken[0][order], taken[1][order])
    scoring = Scoring(groups, taken, prior, margin / temperature)
    vectors = [group.vectors for group in groups]
    found: Tensor = CrossEntropy.apply(scoring, users / temperature, own, *vectors)  # type: ignore[no-untyped-call]
    return found


def among_first(taken: tuple[Tensor, Tensor] | None, count: int) -> tuple[Tensor, Tensor] | None:
    """Of rows and columns those of the first `count` columns."""
    if taken is None:
        return None
    inside = taken[1] < count
    return taken[0][inside], taken[1][inside]


def bpr_loss(
    users: Tensor, items: Tensor, own: Tensor, temperature: float, hidden: Tensor | None = None
) -> Tensor:
    """Mean of `-log sigmoid((u . v - u . w) / temperature)` over each row's negatives w.

    Args:
        users: `[B, D]`.
        items: `[B, D]`.
        own: `[B, H, D]`.
        temperature: what scores are divided by.
        hidden: bool `[B, H]`, which of `own` are no negatives; None: all are.

    Example:
        >>> import torch
        >>> one = torch.ones(1, 1)
        >>> bpr_loss(one, one, torch.ones(1, 2, 1), 1.0)  # log 2
        tensor(0.6931)
    """
    better = (users * items).sum(1, keepdim=True) - (own @ users[:, :, None]).squeeze(2)
    losses = nn.functional.softplus(-better / temperature)
    if hidden is None:
        return losses.mean()
    return losses.masked_fill(hidden, 0.0).sum() / (~hidden).sum().clamp_min(1)
