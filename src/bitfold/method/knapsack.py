"""A choice for each group, the most valued within a limit of bytes."""

import numpy as np
from numpy.typing import NDArray

HALVINGS = 60


def knapsack(
    values: NDArray[np.float64],
    costs: NDArray[np.float64],
    ids: NDArray[np.float64],
    limit: float,
) -> tuple[NDArray[np.int64], float] | None:
    """The choice of each group that is worth most within a limit, and the price of a byte there.

    Groups choose at a price, found by halving; what bytes that leaves goes, one step after another,
    to where they are worth most. What a last group lacks in bytes is all that it may be short of
    the best.

    Args:
        values: what each choice is worth to an id of each group, `[G, K]`.
        costs: bytes of an id of each choice, `[K]`, ascending.
        ids: of each group, `[G]`.
        limit: bytes of all.

    Returns:
        None where the cheapest choices do not fit.

    Example:
        >>> values = np.array([[0.0, 3.0, 4.0], [0.0, 1.0, 1.5]])
        >>> choice, price = knapsack(values, np.array([0.0, 2.0, 4.0]), np.array([1.0, 2.0]), 8.0)
        >>> choice.tolist()
        [2, 1]
    """
    if costs.min() * ids.sum() > limit:
        return None
    every = np.arange(len(ids))

    def at(price: float) -> NDArray[np.int64]:
        found: NDArray[np.int64] = (values - price * costs).argmax(1)
        return found

    def weight(choice: NDArray[np.int64]) -> float:
        return float((costs[choice] * ids).sum())

    apart = np.diff(np.unique(costs))
    reach = (float(np.ptp(values)) + 1) / float(apart.min() if len(apart) else 1)
    low, high = 0.0, reach
    choice = at(low)
    if weight(choice) <= limit:
        return choice, low
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if weight(at(middle)) <= limit else (middle, high)
    choice = at(high)
    while True:
        more = (costs - costs[choice][:, None]) * ids[:, None]
        gain = (values - values[every, choice][:, None]) * ids[:, None]
        able = (more > 0) & (more <= limit - weight(choice)) & (gain > 0)
        if not able.any():
            return choice, high
        rate = np.where(able, gain / np.where(able, more, 1), -np.inf)
        group, step = np.unravel_index(int(rate.argmax()), rate.shape)
        choice[group] = step
