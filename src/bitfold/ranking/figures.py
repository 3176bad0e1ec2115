"""Recall, NDCG and MRR from where relevant items stand; ties are shared out exactly.

Items of equal score are in random order: a figure is its mean over all orders of the ties, which
is computed, not drawn. So a model that gives all items one score is worth what chance is worth,
whatever the order its items come in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_FEW = 32  # relevant items that are held against all scores sooner than these are sorted


@dataclass(frozen=True)
class Ranks:
    """Where the relevant items of some questions stand.

    Args:
        question: int64 `[R]`, rising: the question of each relevant item that is ranked.
        above: int64 `[R]`, ranked items with a higher score.
        tied: int64 `[R]`, ranked items with the same score, itself among them.
        relevant: int64 `[Q]`, relevant items of each question, those that are not ranked (and so
            are never found) among them; 1 or more.
    """

    question: Ints
    above: Ints
    tied: Ints
    relevant: Ints

    @staticmethod
    def of(
        scores: npt.NDArray[Any], relevant: Sequence[Ints], absent: Ints | None = None
    ) -> "Ranks":
        """The ranks of relevant items by their scores.

        Args:
            scores: `[Q, I]`; items that are not ranked have `-inf`.
            relevant: for each question the places of its relevant items, all ranked.
            absent: int64 `[Q]`, relevant items that are not among the I.

        Example:
            >>> scores = np.array([[0.9, 0.5, 0.5, 0.1]])
            >>> ranks = Ranks.of(scores, [np.array([0, 2])])
            >>> ranks.above.tolist(), ranks.tied.tolist()
            ([0, 1], [1, 2])
        """
        above, tied = [], []
        for mine, places in zip(scores, relevant, strict=True):
            wanted = mine[places]
            if len(wanted) <= _FEW:
                above.append((mine > wanted[:, None]).sum(1))
                tied.append((mine == wanted[:, None]).sum(1))
                continue
            row = np.sort(mine)
            right = np.searchsorted(row, wanted, side="right")
            above.append(len(row) - right)
            tied.append(right - np.searchsorted(row, wanted, side="left"))
        counts = np.array([len(places) for places in relevant], np.int64)
        return Ranks(
            np.repeat(np.arange(len(counts)), counts),
            np.concatenate([np.zeros(0, np.int64), *above]).astype(np.int64),
            np.concatenate([np.zeros(0, np.int64), *tied]).astype(np.int64),
            counts if absent is None else counts + absent,
        )


def figures(ranks: Ranks, at: Sequence[int]) -> dict[str, Floats]:
    """Each question's `recall@k`, `ndcg@k` for every k, and `mrr`: float64 `[Q]` each.

    - recall@k: relevant items in the first k places, over all relevant items.
    - NDCG@k: relevance is 0 or 1, place p counts `1 / log2(1 + p)`, over the best order's sum.
    - MRR: one over the place of the first relevant item.

    Source: Jarvelin and Kekalainen, Cumulated gain-based evaluation of IR techniques, 2002;
    McSherry and Najork, Computing Information Retrieval Performance Measures Efficiently in the
    Presence of Tied Scores, 2008.

    Example:
        >>> one = Ranks(np.array([0]), np.array([2]), np.array([1]), np.array([1]))  # third place
        >>> {name: round(float(value[0]), 4) for name, value in figures(one, (2, 3)).items()}
        {'recall@2': 0.0, 'ndcg@2': 0.0, 'recall@3': 1.0, 'ndcg@3': 0.5, 'mrr': 0.3333}
    """
    questions = len(ranks.relevant)
    out: dict[str, Floats] = {}

    def summed(values: Floats) -> Floats:
        return np.bincount(ranks.question, values, minlength=questions).astype(np.float64)

    for k in at:
        inside = np.clip((k - ranks.above) / ranks.tied, 0.0, 1.0)
        out[f"recall@{k}"] = summed(inside) / ranks.relevant
        # gains[p] is what the first p places count, up to k of them; nothing comes behind `ends`.
        ends = ranks.above + ranks.tied
        deep = min(k, int(max(ends.max(initial=0), ranks.relevant.max(initial=0))))
        gains = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2.0, deep + 2.0)))])
        first = np.minimum(ranks.above, deep)
        last = np.minimum(ends, deep)
        gained = (gains[last] - gains[first]) / ranks.tied
        out[f"ndcg@{k}"] = summed(gained) / gains[np.minimum(ranks.relevant, deep)]
    out["mrr"] = _reciprocal(ranks)
    return out


def _reciprocal(ranks: Ranks) -> Floats:
    """The mean over the ties' orders of one over the first relevant item's place: `[Q]`."""
    out = np.zeros(len(ranks.relevant))
    if not len(ranks.question):
        return out
    order = np.lexsort((ranks.above, ranks.question))
    question, above, tied = ranks.question[order], ranks.above[order], ranks.tied[order]
    first = np.flatnonzero(np.append(True, np.diff(question) != 0))
    best = np.repeat(above[first], np.diff(np.append(first, len(question))))
    among = np.add.reduceat((above == best).astype(np.int64), first)
    for place, count in zip(first.tolist(), among.tolist(), strict=True):
        out[question[place]] = _first_of(int(above[place]), int(tied[place]), count)
    return out


def _first_of(above: int, tied: int, relevant: int) -> float:
    """The mean of `1 / (above + J)`, J the first place of `relevant` among `tied` in random order.

    `P(J = j) = C(tied - j, relevant - 1) / C(tied, relevant)`.

    Example:
        >>> _first_of(0, 2, 1), _first_of(3, 1, 1), _first_of(0, 5, 5)
        (0.75, 0.25, 1.0)
    """
    if tied == relevant:
        return 1.0 / (above + 1)
    j = np.arange(1, tied - relevant + 2)
    ratios = (tied - j[:-1] - relevant + 1) / (tied - j[:-1])
    chances = relevant / tied * np.concatenate([[1.0], np.cumprod(ratios)])
    return float((chances / (above + j)).sum())


def mean_by_group(values: Floats, groups: Ints) -> float:
    """The mean over groups of each group's mean: `values` and `groups` are `[Q]`.

    Example:
        >>> mean_by_group(np.array([1.0, 0.0, 1.0]), np.array([0, 0, 1]))
        0.75
    """
    counts = np.bincount(groups)
    sums = np.bincount(groups, values)
    return float((sums[counts > 0] / counts[counts > 0]).mean())
