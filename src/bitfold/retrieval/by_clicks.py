"""What towers are worth on items with few clicks: held-out pairs by their item's clicks."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from bitfold.nets.cold import NAMES
from bitfold.ranking.candidates import Ints
from bitfold.ranking.figures import Ranks, figures
from bitfold.ranking.questions import blocks
from bitfold.ranking.scoring import Ranking
from bitfold.retrieval.measuring import asked_vectors
from bitfold.retrieval.positives import Positives
from bitfold.retrieval.prototypes import clicks
from bitfold.retrieval.remarnet import ranges
from bitfold.retrieval.towers import TwoTowers

SCORES = 1 << 22  # scores that are held at once


@dataclass(frozen=True)
class PairFigures:
    """Figures of R held-out pairs, each a user and an item that the user took.

    Args:
        users: int64 `[R]`, the user of each.
        range: int64 `[R]`, the range of its item's clicks, 0 to 4; -1 without any.
        values: by name (`recall@k`, `ndcg@k`, `auc`, `auc_alike`) float64 `[R]`, each pair's own.
    """

    users: Ints
    range: Ints
    values: dict[str, npt.NDArray[np.float64]]

    def means(self) -> dict[str, dict[str, Any]]:
        """By clicks: the mean over pairs of each figure, and `pairs`, how many there are."""
        found: dict[str, dict[str, Any]] = {}
        for place, name in enumerate(NAMES):
            rows = self.range == place
            if rows.any():
                means = {key: float(value[rows].mean()) for key, value in self.values.items()}
                found[name] = {"pairs": int(rows.sum()), **means}
        return found


def pair_figures(ranking: Ranking, users: Tensor, items: Tensor, counts: Ints) -> PairFigures:
    """Each pair ranked among all items that its user does not have.

    `recall@k` and `ndcg@k` are those of a list whose one relevant item is the pair's; `auc` is the
    share of the other items below it, ties as halves; `auc_alike` that of the items whose clicks
    are of the same range: what it is worth without the level of cold items among warm ones.

    Args:
        ranking: the pairs, and the items.
        users: `[Q, D]`, a vector of each question.
        items: `[I, D]`.
        counts: int64 `[I]`, the clicks of each item in training.
    """
    asked, count = ranking.asked, len(ranking.items.ids)
    kinds = np.where(counts > 0, ranges(counts), -1)
    above, tied, ranked, alike = [], [], [], []
    for start, stop in blocks(len(asked), max(SCORES // count, 1)):
        rows = (users[start:stop] @ items.T).numpy()
        for row, question in zip(rows, range(start, stop), strict=True):
            out = asked.masked(question)
            row[out] = -np.inf
            alike += [_alike(row, item, kinds) for item in asked.relevant(question)]
            ranked.append(np.full(len(asked.relevant(question)), count - len(out)))
        found = Ranks.of(rows, [asked.relevant(question) for question in range(start, stop)])
        above.append(found.above)
        tied.append(found.tied)
    over, same, among = (np.concatenate(each) for each in (above, tied, ranked))
    pairs = np.arange(len(over))
    alone = Ranks(pairs, over, same, np.ones(len(over), np.int64))
    values = figures(alone, ranking.config.at)
    del values["mrr"]
    values["auc"] = 1 - (over + (same - 1) / 2) / np.maximum(among - 1, 1)
    values["auc_alike"] = np.array(alike, np.float64)
    owner = np.repeat(asked.groups, np.diff(asked.starts))
    return PairFigures(owner, kinds[asked.items], values)


def _alike(row: npt.NDArray[Any], item: int, kinds: Ints) -> float:
    """The share of an item's kind that its score is above, ties as halves."""
    others = row[(kinds == kinds[item]) & np.isfinite(row)]
    above, tied = (others > row[item]).sum(), (others == row[item]).sum()
    return float(1 - (above + (tied - 1) / 2) / max(len(others) - 1, 1))


def by_clicks(
    model: TwoTowers, positives: Positives, ranking: Ranking, items: Tensor
) -> dict[str, dict[str, Any]]:
    """The means of `pair_figures` by clicks, with vectors `[I, D]` of the ranking's items."""
    users = asked_vectors(model, positives, ranking)
    counts = np.zeros(len(ranking.items.ids), np.int64)
    counts[ranking.items.places(positives.items.ids)] = clicks(positives)
    return pair_figures(ranking, users, items, counts).means()
