"""Item vectors that lean on prototypes where clicks are few.

    w = mean v + own[n] (v - mean v) + prototype[n] (p - mean p)

`v` is the item's vector by its tower, `p` its prototype, `n` its clicks. Both heads meet the same
user, so their weighted sum is one vector of D numbers: an index takes no more bytes. With weights
(1, 0) an item is what its tower makes of it, with (0, 0) the mean item. The weights of each range
of clicks are learned on held-out pairs: a pair that was trained on says nothing of how far the
tower's vector can be trusted.

Shapes: `I` items, `Q` questions, `P` held-out pairs, `D` the width.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bitfold.errors import BitfoldError
from bitfold.nets.cold import ENDS, NAMES
from bitfold.nets.cold_heads import least
from bitfold.ranking.candidates import Ints
from bitfold.ranking.scoring import Ranking
from bitfold.retrieval.losses import among_first
from bitfold.retrieval.measuring import asked_vectors, item_vectors, ranked_vectors, user_vectors
from bitfold.retrieval.options import RetrieveConfig
from bitfold.retrieval.positives import Positives
from bitfold.retrieval.prototypes import clicks, prototypes, relation_loss
from bitfold.retrieval.towers import TwoTowers

PAIRS, NEGATIVES = 8192, 256  # held-out pairs that weights are learned on, items that each meets
PRIOR = 10.0  # pulls weights to (1, 0): about as much as three pairs do
LEAST = 0.1  # the smallest scale that weights are divided by


def ranges(counts: Ints) -> Ints:
    """The range of each count of clicks, 0 to 4.

    Example:
        >>> ranges(np.array([1, 2, 3, 4, 5, 8, 9])).tolist()
        [0, 1, 2, 2, 3, 3, 4]
    """
    return np.searchsorted(ENDS, counts, side="left")


@dataclass(frozen=True)
class Weights:
    """How far items of each range of clicks lean on their own vector and on their prototype.

    Args:
        own: float32 `[5]`.
        prototype: float32 `[5]`.
    """

    own: Tensor
    prototype: Tensor

    @property
    def figures(self) -> dict[str, Any]:
        """The weights by clicks, and their bytes."""
        pairs = zip(NAMES, self.own.tolist(), self.prototype.tolist(), strict=True)
        return {
            "weights": {name: {"own": own, "prototype": lean} for name, own, lean in pairs},
            "weights_bytes": self.own.nbytes + self.prototype.nbytes,
        }


@dataclass(frozen=True)
class Heads:
    """What both heads say of all items of training.

    Args:
        items: `[I, D]`, by the item's tower.
        prototypes: `[I, D]`.
        clicks: int64 `[I]`.
    """

    items: Tensor
    prototypes: Tensor
    clicks: Ints

    @classmethod
    @torch.no_grad()
    def of(cls, model: TwoTowers, positives: Positives) -> "Heads":
        """As the towers are now.

        Where vectors have a prior of popularity as one more number, a prototype has its item's.
        """
        users, items = user_vectors(model, positives), item_vectors(model, positives)
        width = users.shape[1] - bool(model.prior)
        made = prototypes(users[:, :width], positives, unit=model.user.unit)
        return cls(items, torch.cat([made, items[:, width:]], dim=1), clicks(positives))

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """The mean item `[D]`, and what each head has beside its mean, `[I, D]` each."""
        known = torch.from_numpy(self.clicks > 0)
        middle = self.items[known].mean(0)
        return middle, self.items - middle, self.prototypes - self.prototypes[known].mean(0)

    def vectors(self, weights: Weights) -> Tensor:
        """The items' vectors `[I, D]`; one without clicks is what its tower makes of it."""
        where = torch.from_numpy(ranges(self.clicks))
        middle, own, lean = self.parts()
        found = middle + weights.own[where, None] * own + weights.prototype[where, None] * lean
        return torch.where(torch.from_numpy(self.clicks > 0)[:, None], found, self.items)


def leaning(
    heads: Heads,
    positives: Positives,
    users: Tensor,
    owners: Ints,
    places: Ints,
    temperature: float,
    seed: int = 0,
) -> Weights:
    """Learn the weights on held-out pairs: cross entropy of each against items drawn alike.

    Weights are relative to those of items of many clicks, which stay (1, 0): the scale at which
    scores are chances is found first, and is divided by at the end. Both problems are convex.

    Args:
        heads: of all items.
        positives: what was taken in training; it is no negative.
        users: `[P, D]`.
        owners: int64 `[P]`, places of users among those of training, -1 for others.
        places: int64 `[P]`, the item of each pair.
        temperature: what scores are divided by.
        seed: of the items that are drawn.
    """
    draw = np.random.default_rng([seed, 2])
    if len(places) > PAIRS:
        some = np.sort(draw.choice(len(places), PAIRS, replace=False))
        users, owners, places = users[torch.from_numpy(some)], owners[some], places[some]
    size = len(heads.clicks)
    others = np.sort(draw.choice(size, min(NEGATIVES, size), replace=False))
    _, own, lean = heads.parts()  # what is the same for all items changes no softmax
    out = positives.has(owners[:, None], others[None]) | (places[:, None] == others[None])
    hidden = torch.from_numpy(np.pad(out, ((0, 0), (1, 0))))
    at, beside = torch.from_numpy(places), torch.from_numpy(others)

    def scores(rows: Tensor) -> Tensor:
        mine = (users * rows[at]).sum(1, keepdim=True)
        return torch.cat([mine, users @ rows[beside].T], dim=1) / temperature

    first, second = scores(own), scores(lean)
    where = torch.from_numpy(ranges(heads.clicks))

    def logits(weights: Tensor) -> Tensor:
        mine, theirs = weights[:, where[at]], weights[:, where[beside]]
        near = mine[0] * first[:, 0] + mine[1] * second[:, 0]
        far = theirs[0] * first[:, 1:] + theirs[1] * second[:, 1:]
        return torch.cat([near[:, None], far], dim=1).masked_fill(hidden, -torch.inf)

    plain = torch.zeros(2, len(NAMES))
    plain[0] = 1
    # Vectors that cannot be trusted would make the scale too small: warm pairs, warm items.
    warm, cold = where[at] == len(NAMES) - 1, where[beside] < len(NAMES) - 1
    cold = torch.cat([torch.zeros(1, dtype=torch.bool), cold])
    scale = least(
        lambda found: _entropy(logits(found * plain)[warm].masked_fill(cold, -torch.inf)),
        torch.ones(1),
        PRIOR,
    )
    free = torch.ones(2, len(NAMES))
    free[1, -1] = 0  # an item of many clicks is what its tower makes of it
    found = least(lambda found: _entropy(logits(found * free)), scale * plain, PRIOR) * free
    return Weights(*(found / found[0, -1].clamp_min(LEAST)))


def _entropy(logits: Tensor) -> Tensor:
    return (logits.logsumexp(1) - logits[:, 0]).sum()


def held_out(positives: Positives, ranking: Ranking) -> tuple[Ints, Ints, Ints]:
    """Questions, users and items `[P]` of a ranking's pairs whose item training knows."""
    asked = ranking.asked
    question = np.repeat(np.arange(len(asked)), np.diff(asked.starts))
    places = positives.items.places(ranking.items.ids[asked.items])
    kept = np.flatnonzero(places >= 0)
    question = question[kept]
    return question, positives.places_of(asked.users)[asked.groups][question], places[kept]


def leaned(
    model: TwoTowers, positives: Positives, ranking: Ranking, config: RetrieveConfig
) -> tuple[Tensor, Weights]:
    """Vectors `[I, D]` of all items of training, and the weights that a ranking's pairs teach."""
    heads = Heads.of(model, positives)
    question, owners, places = held_out(positives, ranking)
    users = asked_vectors(model, positives, ranking)[torch.from_numpy(question)]
    weights = leaning(heads, positives, users, owners, places, config.temperature, config.seed)
    return heads.vectors(weights), weights


def among(model: TwoTowers, positives: Positives, ranking: Ranking, items: Tensor) -> Tensor:
    """Vectors of the items of a ranking, where those of training have `items` `[I, D]`."""
    if len(ranking.items.ids) == len(items):
        return items
    found = ranked_vectors(model, positives, ranking)
    found[torch.from_numpy(ranking.items.places(positives.items.ids))] = items
    return found


def relation(
    users: Tensor,
    positives: Positives,
    owners: Ints,
    places: Ints,
    log_q: Tensor | None,
    config: RetrieveConfig,
    taken: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The relation head's share of the loss of some rows; `taken` as `softmax_loss` has it."""
    size = len(places)
    rows, columns = among_first(taken, size) or map(torch.from_numpy, positives.met(owners, places))
    took = torch.zeros(size, size, dtype=torch.bool)
    took[rows, columns] = True
    unit = config.similarity == "cosine"
    who = torch.from_numpy(owners)
    loss = relation_loss(users, who, took, config.temperature, log_q, unit=unit)
    return config.relation * loss


def check_held_out(config: RetrieveConfig, ranking: Ranking | None) -> None:
    """Raise where weights are to be learned and nothing is held out to learn them on."""
    if config.cold == "remarnet" and ranking is None:
        raise BitfoldError(
            "what clicks are worth is learned on a validation part",
            got="cold remarnet, and a log without one",
            expected="held-out positives",
            fix="prepare the log with a split that has one, --split last:1,1",
        )
