import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from bitfold.errors import BitfoldError
from bitfold.runs import metrics


def a_log(seed, rows=500, levels=20):
    """Labels, tied predictions, weights and groups of random rows."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(rows) < 0.3).astype(np.float32)
    predictions = ((rng.integers(0, levels, rows) + labels * 3) / (levels + 3)).astype(np.float32)
    return labels, predictions, rng.exponential(size=rows), rng.integers(-9, 9, rows)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 300), st.sampled_from([1, 2, 5, 1000]))
def test_auc_equals_scikit_learn_with_ties_and_weights(seed, rows, levels):
    labels, predictions, weights, _ = a_log(seed, rows, levels)
    if labels.min() == labels.max():
        assert math.isnan(metrics.auc(labels, predictions))
        return
    assert metrics.auc(labels, predictions) == pytest.approx(
        roc_auc_score(labels, predictions), abs=1e-12
    )
    assert metrics.auc(labels, predictions, weights) == pytest.approx(
        roc_auc_score(labels, predictions, sample_weight=weights), abs=1e-12
    )


def test_gauc_is_the_impression_weighted_mean_of_the_groups_with_both_labels():
    labels, predictions, weights, groups = a_log(1)
    labels[groups == 3] = 1  # a user who clicked everything has no AUC
    for row_weights in (None, weights):
        total = mass = 0.0
        for group in np.unique(groups):
            rows = groups == group
            if labels[rows].min() == labels[rows].max():
                continue
            w = None if row_weights is None else row_weights[rows]
            impressions = rows.sum() if w is None else w.sum()
            mass += impressions
            total += impressions * roc_auc_score(labels[rows], predictions[rows], sample_weight=w)
        assert metrics.gauc(labels, predictions, groups, row_weights) == pytest.approx(total / mass)


def test_gauc_does_not_mix_groups_that_share_scores():
    labels = np.array([0, 1, 1, 0])
    assert metrics.gauc(labels, np.array([0.5, 0.6, 0.1, 0.05]), np.array([1, 1, 2, 2])) == 1.0
    assert metrics.auc(labels, np.array([0.5, 0.6, 0.1, 0.05])) == 0.75


def test_logloss_equals_scikit_learn():
    labels, predictions, weights, _ = a_log(2)
    p = predictions.astype(np.float64)
    assert metrics.logloss(labels, predictions) == pytest.approx(log_loss(labels, p))
    assert metrics.logloss(labels, predictions, weights) == pytest.approx(
        log_loss(labels, p, sample_weight=weights)
    )
    assert math.isfinite(metrics.logloss([1], [0.0]))


def test_calibration_is_mean_prediction_over_mean_label():
    labels, predictions, weights, _ = a_log(3)
    assert metrics.calibration(labels, predictions) == pytest.approx(
        predictions.mean(dtype=np.float64) / labels.mean()
    )
    assert metrics.calibration(labels, predictions, weights) == pytest.approx(
        (weights * predictions).sum() / (weights * labels).sum()
    )


def test_ece_sees_a_bias_and_ignores_the_order_of_tied_rows():
    rng = np.random.default_rng(0)
    p = rng.random(200_000)
    labels = (rng.random(len(p)) < p).astype(int)
    assert metrics.ece(labels, p) < 0.01
    assert metrics.ece(labels, p * 0.5) == pytest.approx((p * 0.5).mean(), abs=0.01)
    tied = np.round(p, 1)
    shuffled = rng.permutation(len(p))
    assert metrics.ece(labels, tied) == pytest.approx(metrics.ece(labels[shuffled], tied[shuffled]))


def test_ece_bins_hold_equal_mass():
    p = np.array([0.001, 0.002, 0.003, 0.9])
    labels = np.array([0, 1, 0, 1])
    by_hand = (abs(0.003 - 1) + abs(0.903 - 1)) / 4
    assert metrics.ece(labels, p, bins=2) == pytest.approx(by_hand)


def test_a_weight_counts_like_a_repeated_row():
    labels, predictions, _, groups = a_log(4, rows=60)
    times = np.arange(60) % 4 + 1
    repeated = [np.repeat(x, times) for x in (labels, predictions, groups)]
    weighted = metrics.summary(labels, predictions, times, groups)
    plain = metrics.summary(repeated[0], repeated[1], None, repeated[2])
    for name in ("auc", "logloss", "gauc", "calibration", "ece"):
        assert weighted[name] == pytest.approx(plain[name]), name


def test_no_rows_give_nan():
    summary = metrics.summary([], [], None, [])
    assert len(summary) == 5
    assert all(math.isnan(value) for value in summary.values())


def test_lengths_must_agree():
    with pytest.raises(BitfoldError, match="labels must have one value for each row"):
        metrics.auc([0, 1], [0.5])
