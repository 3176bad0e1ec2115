"""Turns: how everything here is timed.

Every contestant takes its turn in every round, so what else the machine does strikes all of them.
The order is drawn anew for each round: whoever follows the full table finds the caches cold. Times
are medians over the rounds, ratios medians of each round's ratio. This file needs torch alone,
since rivals are timed by it in environments of their own.
"""

import random
import resource
import statistics
import time
from collections.abc import Callable

import torch

RING = 4
ZIPF = 1.05
Contestant = Callable[[int], object]


def drawn(kind: str, count: int, seed: int, ids: int) -> torch.Tensor:
    """`count` of `ids` ids, uniform or by Zipf's law; their numbers are in order of frequency."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "uniform":
        return torch.randint(0, ids, (count,), generator=generator)
    exponent = 1 - ZIPF
    unit = torch.rand(count, generator=generator, dtype=torch.float64)
    ranks: torch.Tensor = (1 + unit * ((ids + 1.0) ** exponent - 1)) ** (1 / exponent)
    return (ranks.long() - 1).clamp(0, ids - 1)


def filled(ids: int, dim: int) -> torch.Tensor:
    """Weights of a full table, all alike: drawing half a billion numbers would take longer than
    the measurement, whose time does not depend on their values."""
    return torch.full((ids, dim), 0.01)


def peak_resident() -> int:
    """The most bytes that this process has held in memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(
    group: dict[str, Contestant], rounds: int, frozen: bool = False
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Milliseconds of each contestant in each round, and the peak resident bytes after it."""
    times: dict[str, list[float]] = {name: [] for name in group}
    peaks = {}
    with torch.set_grad_enabled(not frozen):
        for name, run in group.items():  # compile, map, warm up
            run(0)
            run(1)
            peaks[name] = peak_resident()
        order, draw = list(group.items()), random.Random(0)
        for turn in range(rounds):
            draw.shuffle(order)
            for name, run in order:
                run(turn)  # so that nobody starts with what the one before left in the caches
                begin = time.perf_counter()
                run(turn + 1)
                times[name].append((time.perf_counter() - begin) * 1e3)
    return times, peaks


def quartiles(taken: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(taken) == 1:
        return taken[0], taken[0], taken[0]
    low, middle, high = statistics.quantiles(taken, n=4, method="inclusive")
    return low, middle, high


def ratio(slow: list[float], fast: list[float]) -> float:
    """How many times longer `slow` takes: the median of each round's ratio."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))
