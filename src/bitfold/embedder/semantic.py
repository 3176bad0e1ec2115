"""Codes of residual quantization: ids that are alike share their first digits.

Source: Rajput et al., "Recommender Systems with Generative Retrieval", NeurIPS 2023, arXiv
2305.05065; here k-means finds the digits, not an autoencoder.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfold.address import Lookup
from bitfold.address.mixing import derive_salt
from bitfold.embedder.buckets import Buckets, Points, Read, nearest
from bitfold.planning.plan import Plan


def semantic_codes(
    read: Read,
    counts: NDArray[np.float64],
    rows: int,
    digits: int,
    *,
    tell: bool = True,
    seed: int = 0,
) -> NDArray[np.int64]:
    """The digits of each id, int64 `[n, M]`; -1 throughout for one that never occurs.

    The first digit is the id's cluster, the second that of what is left when the cluster's mean
    is taken away, and so on. Each id counts as often as it occurs.

    Args:
        read: gives the vectors of ids.
        counts: how often each id occurs, `[n]`.
        rows: how many values a digit has.
        digits: `M`.
        tell: whether the last digit counts the ids that share all others, by falling frequency,
            and begins anew where they are more than it has values.
        seed: what means begin by.

    Example:
        >>> points = np.array([[0.0], [0.2], [9.0], [9.2], [9.2]], np.float32)
        >>> found = semantic_codes(points.__getitem__, np.ones(5), 2, 3)
        >>> bool((found[:2, 0] != found[2:4, 0]).all()), found[3:, 2].tolist()
        (True, [0, 1])
    """
    found = np.full((len(counts), digits), -1, np.int64)
    met = np.flatnonzero(counts > 0)
    if not len(met):
        return found
    found[met] = 0
    points, means = Points(read, counts, met, 0.0), list[NDArray[np.float64]]()

    def left(places: NDArray[np.int64]) -> NDArray[np.float64]:
        """What the means of the digits that are known leave of some points."""
        known = found[met[places]]
        return points(places) - sum(mean[known[:, m]] for m, mean in enumerate(means))

    learned = digits - tell
    for m in range(learned):
        if len(met) <= rows:  # each has a value of its own, and nothing is left
            found[met, m] = np.arange(len(met))
            break
        own, mean = nearest(left, counts[met], rows, derive_salt(seed, m) >> 1)
        found[met, m] = own
        means.append(mean)
    if tell:
        found[met, -1] = _turn(found[met, :learned], counts[met]) % rows
    return found


def _turn(codes: NDArray[np.int64], counts: NDArray[np.float64]) -> NDArray[np.int64]:
    """Each row's number among equal rows, by falling counts."""
    _, group = np.unique(codes, axis=0, return_inverse=True)
    group = group.reshape(-1)
    order = np.lexsort((-counts, group))
    sizes = np.bincount(group)
    first = np.repeat(np.cumsum(sizes) - sizes, sizes)
    turn = np.empty(len(codes), np.int64)
    turn[order] = np.arange(len(codes)) - first
    return turn


class SemanticCodes(Buckets):
    """A corridor whose folded fields read a row for each digit of a stored code.

    Args:
        plan: one group, of such a program.
        tell: whether the last digit tells apart ids that share all others.
        how: as for every corridor.
    """

    def __init__(self, plan: Plan, *, tell: bool, **how: Any) -> None:
        self.tell = tell
        super().__init__(plan, **how)

    def codes(
        self, read: Read, counts: NDArray[np.float64], lookups: Sequence[Lookup], seed: int
    ) -> NDArray[np.int64]:
        """The code of each id of a field, int64 `[n]`; -1 for one that never occurs."""
        rows, digits = lookups[0].radix, len(lookups)
        found = semantic_codes(read, counts, rows, digits, tell=self.tell, seed=seed)
        whole = found @ np.array([lookup.divisor for lookup in lookups])
        return np.where(found[:, 0] < 0, -1, whole)
