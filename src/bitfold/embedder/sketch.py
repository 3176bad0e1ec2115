"""Hot ids found while training: a sketch of gradients decides who owns a row.

Source: Zhang, Liu, Chen, Zhao, Zhao, Yang, Cui, "CAFE: Towards Compact, Adaptive, and Fast
Embedding for Large-scale Recommendation Models", SIGMOD 2024, arXiv 2312.03256. HotSketch is Space
Saving (Metwally, Agrawal, El Abbadi, ICDT 2005) in buckets of a few slots.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitfold.embedder.contract import Progress
from bitfold.embedder.owners import OWNS, Keys, Owning, bucket_of
from bitfold.planning.plan import Plan
from bitfold.pool.moved import RowMove

KEYS, SCORES = "sketch_keys", "sketch_scores"


class HotSketch:
    """Keys of high scores, in buckets of `c` slots; a newcomer takes the slot of the least score.

    It takes that score over too, so that no score is ever too low.

    Args:
        words: uint32 `[buckets, c]`: 31 bits of a key, and whether it owns a row.
        scores: float32 `[buckets, c]`; 0 where a slot is empty.

    Example:
        >>> sketch = HotSketch(np.zeros((1, 2), np.uint32), np.zeros((1, 2), np.float32))
        >>> sketch.add(np.array([7, 9, 5]), np.array([3.0, 1.0, 2.0]))
        >>> sketch.add(np.array([9]), np.array([0.5]))
        >>> sketch.hottest(2)
        array([7, 9])
        >>> sketch.scores.tolist()
        [[3.0, 2.5]]
    """

    def __init__(self, words: NDArray[np.uint32], scores: NDArray[np.float32]) -> None:
        self.words, self.scores = words, scores

    @property
    def keys(self) -> Keys:
        """The keys, `[buckets, c]`."""
        keys: Keys = (self.words & ~OWNS).astype(np.int64)
        return keys

    @property
    def owners(self) -> Keys:
        """The keys that own rows."""
        owners: Keys = self.keys[(self.words & OWNS) != 0]
        return owners

    def add(self, keys: Keys, gains: NDArray[Any]) -> None:
        """Raise the scores of distinct keys; a bucket takes `c` newcomers at most, the highest."""
        bucket = bucket_of(keys, len(self.words))
        words = self.words[bucket] & ~OWNS
        same = (words == keys.astype(np.uint32)[:, None]) & (self.scores[bucket] > 0)
        known = same.any(1)
        self.scores[bucket[known], same[known].argmax(1)] += gains[known]
        new = np.flatnonzero(~known)
        new = new[np.argsort(-gains[new], kind="stable")]
        for _ in range(self.words.shape[1]):
            _, first = np.unique(bucket[new], return_index=True)
            at, key = bucket[new[first]], keys[new[first]]
            slot = self.scores[at].argmin(1)
            self.scores[at, slot] += gains[new[first]]
            self.words[at, slot] = key
            new = np.delete(new, first)

    def hottest(self, count: int) -> Keys:
        """The keys of the highest scores, so many or all there are."""
        scores, keys = self.scores.reshape(-1), self.keys.reshape(-1)
        order = np.argsort(-scores, kind="stable")[:count]
        return keys[order[scores[order] > 0]]

    def own(self, keys: Keys) -> None:
        """Say that these keys own rows, and no others."""
        self.words &= ~OWNS
        self.words[np.isin(self.keys, keys)] |= OWNS


class Sketching(Owning):
    """A corridor in which ids of high gradients own rows, and give them up to higher ones.

    Args:
        plan: one group, of a program of hot ids, with a sketch beside it.
        slots: `c`, slots of a bucket.
        decay: what scores are multiplied with then.
        how: as for every corridor whose rows change their owners.
    """

    def __init__(self, plan: Plan, *, slots: int, decay: float, **how: Any) -> None:
        self.slots, self.decay = slots, decay
        super().__init__(plan, **how)

    @torch.no_grad()
    def observe(self, ids: Tensor, field: Tensor, grad: Tensor) -> None:
        """Add the length of each id's gradient to its score."""
        lengths = grad.float().norm(dim=1).cpu().numpy()
        distinct, places = np.unique(self.known(ids, field).cpu().numpy(), return_inverse=True)
        gains = np.bincount(places, lengths, len(distinct))
        sketch = self.sketch()
        sketch.add(distinct[gains > 0], gains[gains > 0])
        self._keep(sketch)

    @torch.no_grad()
    def maintain(self, at: Progress) -> Sequence[RowMove]:
        """Give rows to the hottest ids: a newcomer's begins as the shared row that it has read."""
        sketch = self.sketch()
        sketch.scores *= np.float32(self.decay)
        before, now = sketch.owners, sketch.hottest(self.hot)
        sketch.own(now)
        self._keep(sketch)
        return self.hand_over(before, now)

    def sketch(self) -> HotSketch:
        """The sketch, in the memory of the stored tables where that is the CPU's."""
        return HotSketch(
            self.noted(KEYS, np.uint32).reshape(-1, self.slots),
            self.noted(SCORES, np.float32).reshape(-1, self.slots),
        )

    def _keep(self, sketch: HotSketch) -> None:
        self.note({KEYS: sketch.words, SCORES: sketch.scores})
