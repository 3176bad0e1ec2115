"""One field's map from 64-bit ids to dense ones, by falling frequency."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from bitfold.errors import BitfoldError

UNSEEN = 0
"""The dense id of a value that the training part does not hold (or holds too rarely)."""

MISSING = 1
"""The dense id of a missing value."""

FIRST = 2
"""The dense id of the most frequent value."""

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FieldMap:
    """One field's map: `keys` int64 `[n]` sorted, `ids` int32 `[n]`; V = 2 + n.

    Example:
        >>> field = FieldMap.fit(np.array([7, -3, 9]), np.array([5, 8, 1]), missing=9)
        >>> field.apply(np.array([-3, 7, 9, 12345]))
        array([2, 3, 1, 0])
    """

    keys: Ids
    ids: npt.NDArray[np.int32]
    missing: int

    @classmethod
    def fit(
        cls, keys: Ids, counts: npt.NDArray[np.int64], *, missing: int, min_count: int = 1
    ) -> "FieldMap":
        """A map of the ids met `min_count` times or more, the most frequent first."""
        kept = (counts >= min_count) & (keys != missing)
        keys, counts = keys[kept], counts[kept]
        order = np.lexsort((keys, -counts))
        ranks = np.empty(len(keys), np.int64)
        ranks[order] = np.arange(len(keys))
        by_key = np.argsort(keys)
        if len(keys) + FIRST > np.iinfo(np.int32).max:
            raise BitfoldError(
                "the vocabulary is too large",
                got=f"{len(keys):,} ids in one field",
                expected="at most 2**31 - 3",
                fix="raise min_count, or use hashed ids, which need no map",
            )
        return cls(keys[by_key], (ranks[by_key] + FIRST).astype(np.int32), missing)

    @property
    def num_embeddings(self) -> int:
        """Dense ids there are, unseen and missing included."""
        return len(self.keys) + FIRST

    def apply(self, ids: Ids) -> Ids:
        """Dense ids of 64-bit ones."""
        if len(self.keys) == 0:
            return np.where(ids == self.missing, MISSING, UNSEEN).astype(np.int64)
        place = np.searchsorted(self.keys, ids)
        place[place == len(self.keys)] = 0
        dense = np.where(self.keys[place] == ids, self.ids[place], UNSEEN).astype(np.int64)
        dense[ids == self.missing] = MISSING
        return dense

    def places(self, ids: Sequence[int]) -> list[int]:
        """Dense ids of a few: the same as `apply`, without NumPy's time for each call.

        Args:
            ids: 64-bit ids, signed or not.
        """
        keys, found = self._held
        out = []
        for each in ids:
            wanted = each - 2**64 if each >= 2**63 else each
            place = bisect_left(keys, wanted)
            if wanted == self.missing:
                out.append(MISSING)
            elif place < len(keys) and keys[place] == wanted:
                out.append(found[place])
            else:
                out.append(UNSEEN)
        return out

    @cached_property
    def _held(self) -> "tuple[memoryview[int], memoryview[int]]":
        """The keys and ids as plain numbers."""
        keys = np.ascontiguousarray(self.keys, np.int64)
        ids = np.ascontiguousarray(self.ids, np.int32)
        return keys.data, ids.data
