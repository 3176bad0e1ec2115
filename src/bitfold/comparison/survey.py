"""What the diagnosis of a comparison needs to know of its log: one pass over the training part.

Memory is bounded by the part that is judged, not by the training part: 4,096 ids a field, and the
counts of those ids of two fields that the judged part holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bitfold.data.hashing import mix

if TYPE_CHECKING:
    from bitfold.data.prepared import PreparedLog

SAMPLED_IDS = 4096
COUNTED_FIELDS = 2
_SALT = 0xD1A6

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Survey:
    """Facts of a log that do not depend on the model.

    Args:
        part: the part that is judged, `test` or else `valid`; None if there is neither.
        sampled: for each field, up to 4,096 distinct ids met in training, drawn by a hash, so
            that each id is as likely as any other, however often it was met.
        frequency: for the largest fields of one id a row, by the field's place: how often the id
            of each judged row was met in training, int64 `[rows]`.
    """

    part: str | None
    sampled: tuple[Ids, ...]
    frequency: dict[int, Ids]


class IdSample:
    """A uniform sample of the distinct ids of a stream: those with the smallest hashes.

    Example:
        >>> sample = IdSample(2)
        >>> for ids in ([5, 5, 9], [7, 5]):
        ...     sample.add(np.array(ids))
        >>> len(sample.ids)
        2
    """

    def __init__(self, size: int = SAMPLED_IDS) -> None:
        self.size = size
        self._marks = np.empty(0, np.uint64)
        self._ids: Ids = np.empty(0, np.int64)

    def add(self, ids: Ids) -> None:
        """Take in some ids."""
        marks = mix(ids, _SALT)
        if len(self._marks) == self.size:  # the mixer is a bijection: equal marks, equal ids
            below = marks < self._marks[-1]
            ids, marks = ids[below], marks[below]
        merged, first = np.unique(np.concatenate([self._marks, marks]), return_index=True)
        self._ids = np.concatenate([self._ids, ids])[first[: self.size]]
        self._marks = merged[: self.size]

    @property
    def ids(self) -> Ids:
        """The ids drawn, in the order of their hashes."""
        return self._ids


def survey(log: "PreparedLog") -> Survey:
    """Read a log's ids once: a sample of each field's, and counts of the judged rows' ids."""
    part = next((name for name in ("test", "valid") if log.rows.get(name)), None)
    fields = largest_fields(log) if part else []
    judged = _column_ids(log, part, fields) if part else {}
    known = {field: np.unique(ids, return_inverse=True) for field, ids in judged.items()}
    counts = {field: np.zeros(len(keys), np.int64) for field, (keys, _) in known.items()}
    samples = [IdSample() for _ in log.schema.fields]
    for columns in log.id_columns("train"):
        for sample, column in zip(samples, columns, strict=True):
            sample.add(column)
        for field, (keys, _) in known.items():
            place = np.searchsorted(keys, columns[field])
            place[place == len(keys)] = 0
            met = place[keys[place] == columns[field]]
            counts[field] += np.bincount(met, minlength=len(keys))
    frequency = {field: counts[field][rows] for field, (_, rows) in known.items()}
    return Survey(part, tuple(sample.ids for sample in samples), frequency)


def largest_fields(log: "PreparedLog") -> list[int]:
    """The places of the fields with most distinct ids, bags left out: their rows have many ids."""
    single = [place for place, info in enumerate(log.schema.fields) if info.kind != "bag"]
    single.sort(key=lambda place: -log.schema.fields[place].distinct)
    return single[:COUNTED_FIELDS]


def _column_ids(log: "PreparedLog", part: str, fields: Sequence[int]) -> dict[int, Ids]:
    """The ids of some fields, row by row, of a whole part."""
    held: dict[int, list[Ids]] = {field: [] for field in fields}
    for columns in log.id_columns(part):
        for field in fields:
            held[field].append(columns[field])
    return {field: np.concatenate(parts) for field, parts in held.items()}
