"""Who may own a row: ids are counted in a sketch of few bytes, and those that came often wait.

Sources: Cormode, Muthukrishnan, "An Improved Data Stream Summary: The Count-Min Sketch and its
Applications", Journal of Algorithms 2005; conservative update: Estan, Varghese, SIGCOMM 2002;
halving: Einziger, Friedman, Manes, "TinyLFU", ACM Transactions on Storage 2017.
"""

import numpy as np
from numpy.typing import NDArray

from bitfold.embedder.owners import OWNS, Keys, bucket_of

DEPTH = 4  # counters of a key
MOST = 255  # counted
SLOTS = 4  # of a bucket of those that wait
_ODD = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xA0761D6478BD642F, 0xE7037ED1A0B428DB], np.uint64
)


class CountMin:
    """How often keys came, counted in `DEPTH` rows of bytes: never too low, at times too high.

    Args:
        counters: uint8 `[DEPTH, width]`.

    Example:
        >>> sketch = CountMin(np.zeros((DEPTH, 50), np.uint8))
        >>> sketch.add(np.array([7, 9]), np.array([3, 1])).tolist()
        [3, 1]
        >>> sketch.halve()
        >>> sketch.counts(np.array([7, 9])).tolist()
        [1, 0]
    """

    def __init__(self, counters: NDArray[np.uint8]) -> None:
        self.counters = counters

    def counts(self, keys: Keys) -> NDArray[np.int64]:
        """How often keys `[n]` came, up to `MOST`."""
        return self._least(self._places(keys))

    def add(self, keys: Keys, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count distinct keys `[n]`, each so many times; returns how often each came by now."""
        places = self._places(keys)
        found: NDArray[np.int64] = np.minimum(self._least(places) + times, MOST)
        for row, place in zip(self.counters, places, strict=True):  # no higher than there is need
            np.maximum.at(row, place, found.astype(np.uint8))
        return found

    @property
    def crowded(self) -> bool:
        """Whether half of the counters are taken: new keys begin to look like known ones."""
        return 2 * int(np.count_nonzero(self.counters)) > self.counters.size

    def halve(self) -> None:
        """Forget half of every count, and all that came once."""
        self.counters >>= 1

    def _places(self, keys: Keys) -> NDArray[np.int64]:
        mixed = keys.astype(np.uint64) * _ODD[:, None] >> np.uint64(32)
        width = np.uint64(self.counters.shape[1])
        places: NDArray[np.uint64] = mixed * width >> np.uint64(32)
        return places.astype(np.int64)

    def _least(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        rows = zip(self.counters, places, strict=True)
        least: NDArray[np.int64] = np.min([row[place] for row, place in rows], 0).astype(np.int64)
        return least


class Waiting:
    """Keys that ask for a row, each once, and a cell beside each; where a bucket is full, no more.

    Args:
        words: uint32 `[buckets, SLOTS]`: a key, and whether the slot is taken.
        cells: uint32 `[buckets, SLOTS]`, or None.

    Example:
        >>> waiting = Waiting(np.zeros((2, SLOTS), np.uint32), None)
        >>> waiting.add(np.array([5, 8]), None); waiting.add(np.array([5]), None)
        >>> sorted(waiting.keys.tolist())
        [5, 8]
    """

    def __init__(self, words: NDArray[np.uint32], cells: NDArray[np.uint32] | None) -> None:
        self.words, self.beside = words, cells

    def add(self, keys: Keys, cells: NDArray[np.int64] | None) -> None:
        """Have distinct keys `[n]` wait, those that do not already."""
        word, bucket = keys.astype(np.uint32) | OWNS, bucket_of(keys, len(self.words))
        new = np.flatnonzero(~(self.words[bucket] == word[:, None]).any(1))
        for _ in range(SLOTS):
            new = new[(self.words[bucket[new]] == 0).any(1)]
            _, first = np.unique(bucket[new], return_index=True)
            at = new[first]
            slot = (self.words[bucket[at]] == 0).argmax(1)
            self.words[bucket[at], slot] = word[at]
            if self.beside is not None and cells is not None:
                self.beside[bucket[at], slot] = cells[at]
            new = np.delete(new, first)

    @property
    def keys(self) -> Keys:
        """Those that wait."""
        keys: Keys = (self.words[self.words > 0] & ~OWNS).astype(np.int64)
        return keys

    @property
    def cells(self) -> NDArray[np.int64]:
        """What lies beside each of them."""
        assert self.beside is not None
        return self.beside[self.words > 0].astype(np.int64)

    def clear(self) -> None:
        """Nobody waits any more."""
        self.words[:] = 0
