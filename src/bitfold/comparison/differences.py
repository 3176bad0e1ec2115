"""Paired differences over seeds, with Student's interval: is one method better than another?

Two methods that share a seed share the order of the rows and the start of the network, so their
figures go up and down together. The difference of each seed is taken first, and the interval is
that of the mean difference: `mean +- t(0.975, n - 1) * s / sqrt(n)` for n common seeds.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bitfold.comparison.config import FULL

CONFIDENCE = 0.95
METRICS = {"auc": 1, "logloss": -1}
"""The figures that are compared, and the sign of a change for the better."""

Key = tuple[str, str]


def interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """The mean of some differences and its 95 % t-interval; one value has no interval.

    Args:
        values: one difference a seed.

    Example:
        >>> mean, low, high = interval([0.01, 0.02, 0.03])
        >>> round(mean, 4), round(low, 4), round(high, 4)
        (0.02, -0.0048, 0.0448)
        >>> interval([0.01])
        (0.01, None, None)
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None, None
    from scipy.special import stdtrit

    reach = float(stdtrit(len(values) - 1, 0.5 + CONFIDENCE / 2))
    reach *= statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - reach, mean + reach


def differences(
    results: Sequence[Mapping[str, Any]], facing: Mapping[Key, Key]
) -> list[dict[str, Any]]:
    """Each method and budget against the hash trick at equal bytes, and against the full table.

    Args:
        results: the rows of `results.json`.
        facing: the (method, budget) of the hash trick that weighs what a (method, budget) does;
            see `bitfold.comparison.opponents`.

    Returns:
        For each pair and metric a mapping of `method`, `budget`, `against`, `against_budget`,
        `metric`, `mean`, `low`, `high` (None for one seed) and `seeds`, how many both have.
    """
    groups: dict[Key, dict[int, Mapping[str, Any]]] = {}
    whole: list[Key] = []
    for row in results:
        key = (row["method"], row["budget"])
        groups.setdefault(key, {})[row["seed"]] = row
        if row["embedding"] == FULL and key not in whole:
            whole.append(key)
    out = []
    for key, rows in groups.items():
        if key in whole:
            continue
        against = [facing[key]] if key in facing else []
        for other in [*against, *whole[:1]]:
            for metric in METRICS:
                pairs = _pairs(rows, groups.get(other, {}), metric)
                if pairs:
                    mean, low, high = interval(pairs)
                    out.append(
                        {
                            "method": key[0],
                            "budget": key[1],
                            "against": other[0],
                            "against_budget": other[1],
                            "metric": metric,
                            "mean": mean,
                            "low": low,
                            "high": high,
                            "seeds": len(pairs),
                        }
                    )
    return out


def _pairs(
    ours: Mapping[int, Mapping[str, Any]], theirs: Mapping[int, Mapping[str, Any]], metric: str
) -> list[float]:
    """The differences of the seeds that both have."""
    return [
        ours[seed][metric] - theirs[seed][metric]
        for seed in ours
        if seed in theirs and ours[seed][metric] is not None and theirs[seed][metric] is not None
    ]


def verdict(difference: Mapping[str, Any]) -> str:
    """A difference in plain words.

    Example:
        >>> verdict({"metric": "logloss", "low": -0.02, "high": -0.01})
        'better'
        >>> verdict({"metric": "auc", "low": -0.01, "high": 0.02})
        'not significant'
    """
    if difference["low"] is None:
        return "one seed: no interval"
    sign = METRICS[difference["metric"]]
    ends = sorted((sign * difference["low"], sign * difference["high"]))
    if ends[0] > 0:
        return "better"
    return "worse" if ends[1] < 0 else "not significant"
