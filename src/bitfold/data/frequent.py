"""The texts of a column's frequent values, kept while a log is read, in bounded memory."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import polars as pl

KEPT = 1 << 16
"""Values of one column whose texts are kept: a few MiB."""

WHOLE = 1 << 16
"""Rows of the log that are looked at whole; of later chunks a sample will do."""

SAMPLE = 1 << 12
"""Rows of a later chunk that are looked at, evenly spaced: a longer run of one value is met."""

Ids = npt.NDArray[np.int64]


class FrequentTexts:
    """Texts by id. While there are no more than `kept` values, all; then the frequent ones.

    Whenever there are too many, the half with the higher counts stays, so that a value with a
    share of more than a few in `kept` is never lost, wherever in the log it lies.

    Example:
        >>> import polars as pl
        >>> known = FrequentTexts()
        >>> known.add(np.array([7, 9, 7]), pl.Series(["a", None, "a"]))
        >>> known.texts()
        {7: 'a', 9: None}
    """

    def __init__(self, kept: int = KEPT) -> None:
        self.kept = kept
        self._rows = self._turn = 0
        self._keys: Ids = np.empty(0, np.int64)
        self._counts: Ids = np.empty(0, np.int64)
        self._texts: npt.NDArray[Any] = np.empty(0, object)

    def add(self, ids: Ids, texts: "pl.Series") -> None:
        """Take in a chunk: the id of each row, and its text (null where it is missing)."""
        stride = 1 if self._rows < WHOLE else max(len(ids) // SAMPLE, 1)
        first = self._turn % stride
        self._rows += len(ids)
        self._turn += 1
        keys, rows, counts = np.unique(ids[first::stride], return_index=True, return_counts=True)
        place = np.searchsorted(self._keys, keys)
        known = np.zeros(len(keys), bool)
        inside = place < len(self._keys)
        known[inside] = self._keys[place[inside]] == keys[inside]
        self._counts[place[known]] += counts[known]
        new = ~known
        if stride > 1 and len(self._keys) > self.kept // 4:
            new &= counts > 1  # where there are many already, what is met once is not frequent
        if new.any():
            spelt = np.empty(int(new.sum()), object)
            spelt[:] = texts.gather(first + rows[new] * stride).to_list()
            self._keys = np.insert(self._keys, place[new], keys[new])
            self._counts = np.insert(self._counts, place[new], counts[new])
            self._texts = np.insert(self._texts, place[new], spelt)
            self._prune()

    def _prune(self) -> None:
        if len(self._keys) > self.kept:
            stays = np.sort(np.argsort(-self._counts, kind="stable")[: self.kept // 2])
            self._keys, self._counts = self._keys[stays], self._counts[stays]
            self._texts = self._texts[stays]

    def texts(self) -> dict[int, Any]:
        """The texts kept, by id; None is a missing value."""
        return dict(zip(self._keys.tolist(), self._texts.tolist(), strict=True))
