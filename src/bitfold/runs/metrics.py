"""What a click model is judged by: ranking (AUC, GAUC) and probability (log loss, calibration).

Every function takes the rows' labels (0 or 1) and predictions as arrays of shape `[B]`, and
optionally their weights. Sums are kept in float64. What cannot be computed (the AUC of one
class, say) is NaN.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from bitfold.errors import BitfoldError

Floats = npt.NDArray[np.float64]
ECE_BINS = 15


def _row_array(name: str, values: Any, rows: int | None = None) -> npt.NDArray[Any]:
    array = np.asarray(values)
    if array.ndim != 1 or (rows is not None and len(array) != rows):
        raise BitfoldError(
            f"{name} must have one value for each row",
            got=f"shape {array.shape}",
            expected="a one-dimensional array" if rows is None else f"shape ({rows},)",
        )
    return array


def _weights(weights: Any, rows: int) -> Floats:
    if weights is None:
        return np.ones(rows)
    return _row_array("weights", weights, rows).astype(np.float64)


def class_weights(labels: Any, weights: Any = None) -> Floats:
    """The summed weight of the unclicked rows, and that of the clicked ones: `[2]`.

    Example:
        >>> class_weights([0, 1, 0], [1.0, 0.5, 1.5]).tolist()
        [2.5, 0.5]
    """
    clicked = _row_array("labels", labels) > 0.5
    weight = _weights(weights, len(clicked))
    return np.array([weight[~clicked].sum(), weight[clicked].sum()])


def auc(labels: Any, scores: Any, weights: Any = None) -> float:
    """The chance that a clicked row scores above an unclicked one; a tie counts a half.

    Args:
        labels: `[B]`, 0 or 1.
        scores: `[B]`, any monotone score (probability or logit).
        weights: `[B]`, or None for ones.

    Returns:
        0 to 1, exact with ties; NaN when only one class is there.

    Example:
        >>> auc([0, 1, 0, 1], [0.1, 0.4, 0.4, 0.8])
        0.875
    """
    values, _ = _group_aucs(labels, scores, weights, None)
    return float(values[0]) if len(values) else math.nan


def gauc(labels: Any, scores: Any, groups: Any, weights: Any = None) -> float:
    """The mean of the groups' AUC, weighted by their impressions.

    Groups that hold one class only have no AUC and are left out, from the weights too.

    Args:
        labels: `[B]`, 0 or 1.
        scores: `[B]`.
        groups: `[B]`, the group (user) of each row, integers.
        weights: `[B]`, or None for ones; a group's impressions are the sum of its weights.

    Returns:
        0 to 1, or NaN when no group holds both classes.

    Source: Zhu et al., Optimized Cost per Click in Taobao Display Advertising, KDD 2017.

    Example:
        >>> gauc([0, 1, 0, 1, 1], [0.1, 0.4, 0.9, 0.8, 0.3], [7, 7, 8, 8, 9])
        0.5
    """
    values, impressions = _group_aucs(labels, scores, weights, groups)
    known = ~np.isnan(values)
    total = impressions[known].sum()
    return float((values[known] * impressions[known]).sum() / total) if total > 0 else math.nan


def _group_aucs(labels: Any, scores: Any, weights: Any, groups: Any) -> tuple[Floats, Floats]:
    """The AUC and the summed weight of each group, in the groups' rising order.

    Rows are sorted by group, then by score. A clicked row beats the unclicked weight that stands
    below its tie in its group, and half of that inside the tie: two cumulative sums, no loop.
    """
    scores = _row_array("scores", scores)
    rows = len(scores)
    clicked = _row_array("labels", labels, rows) > 0.5
    weight = _weights(weights, rows)
    if rows == 0:
        return np.zeros(0), np.zeros(0)
    order = np.argsort(scores, kind="stable")
    if groups is None:
        new_group = np.zeros(rows, dtype=bool)
    else:
        group = _row_array("groups", groups, rows)[order]
        by_group = np.argsort(group, kind="stable")
        order, group = order[by_group], group[by_group]
        new_group = np.concatenate([[False], group[1:] != group[:-1]])
    ordered = scores[order]
    new_tie = np.concatenate([[False], ordered[1:] != ordered[:-1]]) | new_group
    new_group[0] = new_tie[0] = True
    clicked, weight = clicked[order], weight[order]

    negative_after = np.cumsum(np.where(clicked, 0.0, weight))
    negative_before = np.concatenate([[0.0], negative_after[:-1]])
    group_starts, tie_starts = np.flatnonzero(new_group), np.flatnonzero(new_tie)
    group_of, tie_of = np.cumsum(new_group) - 1, np.cumsum(new_tie) - 1
    tie_ends = np.append(tie_starts[1:], rows) - 1
    below = negative_before[tie_starts][tie_of] - negative_before[group_starts][group_of]
    tied = (negative_after[tie_ends] - negative_before[tie_starts])[tie_of]
    wins = np.add.reduceat(np.where(clicked, weight * (below + 0.5 * tied), 0.0), group_starts)
    positives = np.add.reduceat(np.where(clicked, weight, 0.0), group_starts)
    negatives = np.add.reduceat(np.where(clicked, 0.0, weight), group_starts)
    pairs = positives * negatives
    values = np.divide(wins, pairs, out=np.full(len(pairs), math.nan), where=pairs > 0)
    return values, positives + negatives


def logloss(labels: Any, predictions: Any, weights: Any = None) -> float:
    """Mean negative log likelihood of the labels, in nats.

    Predictions are kept within `1e-15` of 0 and 1, so that one sure mistake is not infinite.

    Example:
        >>> round(logloss([1, 0], [0.8, 0.5]), 4)
        0.4581
    """
    p = _row_array("predictions", predictions).astype(np.float64).clip(1e-15, 1 - 1e-15)
    y = _row_array("labels", labels, len(p)).astype(np.float64)
    w = _weights(weights, len(p))
    total = w.sum()
    loss = -(y * np.log(p) + (1 - y) * np.log1p(-p))
    return float((w * loss).sum() / total) if total > 0 else math.nan


def constant_logloss(labels: Any, weights: Any = None) -> float:
    """The log loss of the best constant prediction, the share of clicks; NaN without rows.

    A model above it knows less than that share: it diverged, or it overfits.

    Example:
        >>> round(constant_logloss([1, 0, 0, 0]), 4)
        0.5623
    """
    rest, clicks = class_weights(labels, weights)
    total = rest + clicks
    if total <= 0:
        return math.nan
    shares = np.array([rest, clicks]) / total
    return float(-(shares * np.log(np.where(shares > 0, shares, 1.0))).sum()) + 0.0  # not -0.0


def calibration(labels: Any, predictions: Any, weights: Any = None) -> float:
    """Mean prediction divided by mean label: 1 is right, above 1 promises too many clicks.

    Example:
        >>> calibration([1, 0, 0, 0], [0.5, 0.5, 0.25, 0.25])
        1.5
    """
    p = _row_array("predictions", predictions).astype(np.float64)
    y = _row_array("labels", labels, len(p)).astype(np.float64)
    w = _weights(weights, len(p))
    clicks = (w * y).sum()
    return float((w * p).sum() / clicks) if clicks > 0 else math.nan


def ece(labels: Any, predictions: Any, weights: Any = None, *, bins: int = ECE_BINS) -> float:
    """Expected calibration error over bins of equal mass.

    Rows are ranked by prediction and cut into `bins` bins that hold the same weight; equal
    predictions stay in one bin. The error is the mean over rows of how far the bin's mean
    prediction is from its mean label. (Bins of equal width would put nearly every row of a log
    with few clicks into the first.)

    Source: Naeini, Cooper and Hauskrecht, AAAI 2015; Nixon et al., 2019, for the equal mass.

    Example:
        >>> round(ece([1, 0, 1, 1], [0.5, 0.5, 0.9, 0.9], bins=2), 6)
        0.05
    """
    p = _row_array("predictions", predictions).astype(np.float64)
    y = _row_array("labels", labels, len(p)).astype(np.float64)
    w = _weights(weights, len(p))
    total = w.sum()
    if len(p) == 0 or total <= 0:
        return math.nan
    order = np.argsort(p, kind="stable")
    p, y, w = p[order], y[order], w[order]
    new_tie = np.concatenate([[True], p[1:] != p[:-1]])
    mass_below = np.cumsum(w) - w
    mass_below = mass_below[np.flatnonzero(new_tie)][np.cumsum(new_tie) - 1]
    bin_of = np.minimum((mass_below / total * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(bin_of, weights=w * (p - y), minlength=bins)
    return float(np.abs(gaps).sum() / total)


def summary(
    labels: Any, predictions: Any, weights: Any = None, groups: Any = None
) -> dict[str, float]:
    """Every measure of one part of a log: auc, logloss, gauc, calibration, ece.

    `gauc` is NaN without groups.

    Example:
        >>> sorted(summary([0, 1], [0.2, 0.7]))
        ['auc', 'calibration', 'ece', 'gauc', 'logloss']
    """
    return {
        "auc": auc(labels, predictions, weights),
        "logloss": logloss(labels, predictions, weights),
        "gauc": math.nan if groups is None else gauc(labels, predictions, groups, weights),
        "calibration": calibration(labels, predictions, weights),
        "ece": ece(labels, predictions, weights),
    }
