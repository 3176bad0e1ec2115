"""Widths of fields by evolution: candidates are judged, and the best ones are changed and crossed.

Source: Lyu et al., "OptEmbed: Learning Optimal Embedding Table for Click-through Rate Prediction",
CIKM 2022, arXiv 2208.04482, section 3.3.
"""

from collections.abc import Callable

import torch

MUTATED = 0.1  # the chance of a width to change
PARENTS = 5  # how many of the best have children
ATTEMPTS = 20  # children a candidate, before there seem to be no others

Widths = tuple[int, ...]


def evolved(
    judge: Callable[[Widths], float],
    fields: int,
    dim: int,
    candidates: int,
    generator: torch.Generator,
) -> Widths:
    """The best of some widths of fields that a judge saw; of equal ones the first.

    A third of the candidates are drawn at random, the first of them the full widths. Each of the
    others is a child: one of the best with some widths drawn anew, or two of them crossed at one
    point.

    Args:
        judge: what widths are worth; higher is better.
        fields: how many widths there are.
        dim: `D`, the largest; 1 is the smallest.
        candidates: how many are judged at most.
        generator: of all draws.

    Example:
        >>> wanted = (4, 1)
        >>> def near(widths):
        ...     return -sum(abs(a - b) for a, b in zip(widths, wanted))
        >>> evolved(near, 2, 4, 16, torch.Generator().manual_seed(0))
        (4, 1)
    """

    def draw(high: int) -> int:
        return int(torch.randint(high, (1,), generator=generator))

    def chance() -> float:
        return float(torch.rand(1, generator=generator))

    def random() -> Widths:
        return tuple(1 + draw(dim) for _ in range(fields))

    def mutated(widths: Widths) -> Widths:
        certain = draw(fields)
        return tuple(
            1 + draw(dim) if chance() < MUTATED or field == certain else width
            for field, width in enumerate(widths)
        )

    def crossed(one: Widths, other: Widths) -> Widths:
        point = draw(fields + 1)
        return one[:point] + other[point:]

    worth = {(dim,) * fields: judge((dim,) * fields)}
    for _ in range(ATTEMPTS * candidates):
        if len(worth) >= candidates:
            break
        if len(worth) < -(-candidates // 3):
            child = random()
        else:
            best = sorted(worth, key=worth.__getitem__, reverse=True)[:PARENTS]
            one, other = best[draw(len(best))], best[draw(len(best))]
            child = mutated(one) if chance() < 0.5 or one == other else crossed(one, other)
        if child not in worth:
            worth[child] = judge(child)
    return max(worth, key=worth.__getitem__)
