"""Paired differences over seeds, held against scipy's own test and numbers by hand."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bitfold.comparison.differences import differences, interval, verdict


def row(
    method: str, budget: str, seed: int, auc: float | None, loss: float = 0.5
) -> dict[str, Any]:
    figures = {"method": method, "budget": budget, "seed": seed, "auc": auc, "logloss": loss}
    return {**figures, "embedding": method.partition(":")[0]}


FACING = {("skip", "10x"): ("hash", "10x")}


@given(st.lists(st.floats(-0.5, 0.5, allow_subnormal=False), min_size=2, max_size=12))
def test_the_interval_is_that_of_scipys_paired_test(values: list[float]) -> None:
    if np.std(values) < 1e-9:
        values = [*values, values[0] + 0.1]
    mean, low, high = interval(values)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert mean == pytest.approx(np.mean(values), abs=1e-12)
    assert low == pytest.approx(expected.low, abs=1e-9)
    assert high == pytest.approx(expected.high, abs=1e-9)


def test_three_seeds_by_hand() -> None:
    # mean .02, deviation .01, t(.975, 2) = 4.3027: .02 +- 4.3027 * .01 / sqrt(3)
    mean, low, high = interval([0.01, 0.02, 0.03])
    assert (mean, low, high) == pytest.approx((0.02, -0.0048414, 0.0448414), abs=1e-6)


def test_pairs_are_of_one_seed_and_not_of_the_rows_order() -> None:
    """Seeds go up and down together: the differences are all .01, so the interval is a point."""
    results = [row("hash", "10x", seed, 0.7 + 0.05 * seed) for seed in (0, 1, 2)]
    results += [row("skip", "10x", seed, 0.71 + 0.05 * seed) for seed in (2, 0, 1)]
    first = differences(results, FACING)[0]
    assert (first["method"], first["against"], first["metric"]) == ("skip", "hash", "auc")
    assert (first["mean"], first["low"], first["high"]) == pytest.approx((0.01, 0.01, 0.01))
    assert first["seeds"] == 3
    assert verdict(first) == "better"


def test_only_seeds_that_both_have_count() -> None:
    results = [row("hash", "10x", seed, 0.7) for seed in (0, 1)]
    results += [row("skip", "10x", seed, value) for seed, value in ((1, 0.72), (2, 0.9))]
    first = differences(results, FACING)[0]
    assert first["mean"] == pytest.approx(0.02)
    assert (first["low"], first["high"], first["seeds"]) == (None, None, 1)
    assert verdict(first) == "one seed: no interval"


def test_each_line_faces_the_hash_trick_and_the_full_table() -> None:
    results = [
        row(method, budget, seed, 0.7 + seed / 100)
        for seed in (0, 1)
        for method, budget in (("full", "1x"), ("hash", "10x"), ("skip", "10x"), ("hash", "9 B"))
    ]
    found = differences(results, {("skip", "10x"): ("hash", "9 B")})
    assert {(d["method"], d["budget"], d["against"], d["against_budget"]) for d in found} == {
        ("hash", "10x", "full", "1x"),
        ("hash", "9 B", "full", "1x"),
        ("skip", "10x", "hash", "9 B"),
        ("skip", "10x", "full", "1x"),
    }
    assert [d["metric"] for d in found] == ["auc", "logloss"] * 4


def test_figures_that_could_not_be_measured_are_left_out() -> None:
    results = [row("hash", "10x", 0, None), row("skip", "10x", 0, 0.7)]
    assert [d["metric"] for d in differences(results, FACING)] == ["logloss"]
    assert differences([], {}) == []


@pytest.mark.parametrize(
    ("metric", "low", "high", "words"),
    [
        ("auc", 0.01, 0.02, "better"),
        ("auc", -0.02, -0.01, "worse"),
        ("auc", -0.01, 0.02, "not significant"),
        ("auc", 0.0, 0.0, "not significant"),
        ("logloss", 0.01, 0.02, "worse"),
        ("logloss", -0.02, -0.01, "better"),
    ],
)
def test_plain_words(metric: str, low: float, high: float, words: str) -> None:
    assert verdict({"metric": metric, "low": low, "high": high}) == words
