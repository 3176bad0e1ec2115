"""What trains a model for its cold ids, and what their weights are learned by (`nets/cold.py`).

Shapes: `B` rows, `D` the width.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bitfold.nets.cold import ENDS, PLAIN

STEPS = 30


def relation_loss(
    found: Tensor,
    ids: Tensor,
    labels: Tensor,
    temperature: float,
    weights: Tensor | None = None,
) -> Tensor:
    """Mean log loss of clicks by similarity to prototypes that the batch's clicks make.

    The batch is the episode: an id that many clicked is met as one with few clicks. The row itself
    is left out of its own prototype; a row whose id has no other click in the batch is left out.
    Rows' level is the rate of clicks among those that are left. Gradients go to the contexts that
    are asked about and to those that prototypes are made of.

    Args:
        found: contexts `[B, D]`.
        ids: int64 `[B]`.
        labels: `[B]`.
        temperature: what cosines are divided by.
        weights: what each row counts for, `[B]`, or None.

    Returns:
        A scalar; 0 where no row is left.
    """
    clicked = (labels > 0.5).to(found.dtype)
    centred = found - found.mean(0)
    known, place = torch.unique(ids, return_inverse=True)
    mine = centred * clicked[:, None]
    sums = torch.zeros(len(known), found.shape[1], dtype=found.dtype, device=found.device)
    sums = sums.index_add(0, place, mine)
    counts = torch.zeros(len(known), dtype=found.dtype, device=found.device)
    left = counts.index_add(0, place, clicked)[place] - clicked
    there = left > 0.5
    if not bool(there.any()):
        return found.sum() * 0
    cosines = nn.functional.cosine_similarity(centred, sums[place] - mine, dim=1)
    counted = there.to(found.dtype) if weights is None else there * weights
    total = counted.sum().clamp_min(torch.finfo(found.dtype).tiny)
    rate = (counted * clicked).sum() / total
    logits = torch.logit(rate, eps=1e-3) + cosines / temperature
    losses = nn.functional.binary_cross_entropy_with_logits(logits, clicked, reduction="none")
    return (counted * losses).sum() / total


def with_margin(logits: Tensor, labels: Tensor, cold: Tensor, margin: float) -> Tensor:
    """Logits that must be ahead: rows of cold ids (bool `[B]`) count `margin` worse than they are.

    Example:
        >>> labels = torch.tensor([1.0, 0.0, 1.0])
        >>> with_margin(torch.zeros(3), labels, torch.tensor([True, True, False]), 0.5)
        tensor([-0.5000,  0.5000,  0.0000])
    """
    return logits - margin * (2 * (labels > 0.5).to(logits.dtype) - 1) * cold


def learned_weights(
    parts: Tensor, labels: Tensor, where: Tensor, prior: float, rows: Tensor | None = None
) -> Tensor:
    """The weights `[4, 3]` at which held-out rows have the least log loss, with a pull to plain.

    Args:
        parts: what each row has, float64 `[B, 3]`: the mean logit, the plain one, the relation.
        labels: `[B]`.
        where: the range of each row, int64 `[B]`.
        prior: the pull to (1, 0, 0).
        rows: what each row counts for, `[B]`, or None.
    """
    mean, plain, relation = parts.double().unbind(1)
    inputs = torch.stack([plain - mean, relation, torch.ones_like(mean)], 1)
    begin = torch.tensor(PLAIN, dtype=torch.float64, device=parts.device).repeat(len(ENDS), 1)
    counted = None if rows is None else rows.double()

    def loss(found: Tensor) -> Tensor:
        logits = mean + (found[where] * inputs).sum(1)
        return nn.functional.binary_cross_entropy_with_logits(
            logits, labels.double(), weight=counted, reduction="sum"
        )

    return least(loss, begin, prior).float()


def least(loss: Callable[[Tensor], Tensor], begin: Tensor, prior: float) -> Tensor:
    """Where a convex loss and a pull to where it begins are least together."""
    found = begin.clone().requires_grad_()
    search = torch.optim.LBFGS(
        [found], max_iter=STEPS, tolerance_grad=1e-3, line_search_fn="strong_wolfe"
    )

    def whole() -> Tensor:
        search.zero_grad()
        value = loss(found) + prior / 2 * (found - begin).square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        search.step(whole)  # type: ignore[no-untyped-call]
    return found.detach()
