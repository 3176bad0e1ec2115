"""The map from 64-bit ids to dense ones, by falling frequency."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bitfold.errors import BitfoldError
from bitfold.planning.field import Field
from bitfold.records import Form, broken, check_form, file_size, unreadable

if TYPE_CHECKING:
    from bitfold.data.batch import Batch
    from bitfold.data.prepared import PreparedLog

UNSEEN = 0
"""The dense id of a value that the training part does not hold (or holds too rarely)."""

MISSING = 1
"""The dense id of a missing value."""

FIRST = 2
"""The dense id of the most frequent value."""

KEY_BYTES = 12
"""Bytes of one value in the map: a 64-bit key and a 32-bit id."""

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


@dataclass(frozen=True)
class Vocabulary:
    """A map for each hashed field of a schema; None where a field's ids are dense already."""

    maps: tuple[FieldMap | None, ...]

    @property
    def bytes(self) -> int:
        """Bytes of all keys and ids."""
        return sum(m.keys.nbytes + m.ids.nbytes for m in self.maps if m is not None)

    def fields(self, fields: Sequence[Field]) -> list[Field]:
        """The fields with the sizes that the map gives them."""
        return [
            f if m is None else replace(f, num_embeddings=m.num_embeddings)
            for f, m in zip(fields, self.maps, strict=True)
        ]

    @classmethod
    def fit(cls, log: "PreparedLog", min_count: int = 1) -> "Vocabulary":
        """Count the hashed ids of a log's training part. Memory: 16 bytes an id."""
        from bitfold.data.hashing import missing_id
        from bitfold.data.statistics import IdCounter

        missing = missing_id(log.schema.config.hash_seed)
        counters = [
            IdCounter(cap=None) if info.num_embeddings is None else None
            for info in log.schema.fields
        ]
        for columns in log.id_columns("train"):
            for counter, column in zip(counters, columns, strict=True):
                if counter is not None:
                    counter.add(column)
        return cls(
            tuple(
                None
                if counter is None
                else FieldMap.fit(*counter.counts(), missing=missing, min_count=min_count)
                for counter in counters
            )
        )

    def apply(self, batch: "Batch") -> "Batch":
        """The batch with dense ids."""
        import torch

        ids = batch.ids.numpy()
        out = np.empty_like(ids)
        for index, fmap in enumerate(self.maps):
            if batch.offsets is None:
                place: tuple[slice, ...] = (slice(None), slice(index, index + 1))
            else:
                rows = batch.rows
                first = int(batch.offsets[index * rows])
                place = (slice(first, int(batch.offsets[(index + 1) * rows])),)
            part = np.ascontiguousarray(ids[place])
            out[place] = part if fmap is None else fmap.apply(part.ravel()).reshape(part.shape)
        return replace(batch, ids=torch.from_numpy(out))

    def save(self, path: str | Path) -> None:
        """Write the map as safetensors: `I.keys`, `I.ids` and `I.missing` of field I."""
        from safetensors.numpy import save_file

        from bitfold.files import whole

        tensors: dict[str, npt.NDArray[np.generic]] = {}
        for index, fmap in enumerate(self.maps):
            if fmap is not None:
                tensors[f"{index}.keys"] = fmap.keys
                tensors[f"{index}.ids"] = fmap.ids
                tensors[f"{index}.missing"] = np.array([fmap.missing], np.int64)
        with whole(Path(path)):
            save_file(
                tensors,
                str(path),
                metadata={
                    "format": "bitfold.vocabulary",
                    "version": "1",
                    "fields": str(len(self.maps)),
                },
            )

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        """Read a saved map.

        Raises:
            BitfoldError: if the file is missing or broken.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        file_size(path)  # a missing file, and one that may not be read, are told as such
        try:
            with safe_open(str(path), framework="np") as file:
                notes = file.metadata() or {}
                check_form(_numbered(notes), VOCABULARY, path)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            count = int(notes["fields"])
            if not 0 <= count <= MOST_FIELDS:
                raise ValueError(f"{count} fields")
            maps = tuple(_field_map(tensors, index) for index in range(count))
            if len(tensors) != 3 * sum(m is not None for m in maps):
                raise ValueError("maps that belong to no field")
            return cls(maps)
        except PermissionError as error:
            raise unreadable(path, error) from None
        except BitfoldError:
            raise
        except (
            OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError, IndexError
        ) as error:  # fmt: skip
            got = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise broken(
                path, got, "the vocabulary that prepare wrote", "prepare the log again"
            ) from None


MOST_FIELDS = 1 << 20
VOCABULARY = Form("bitfold.vocabulary", 1, "format", "version", fix="prepare the log again")


def _numbered(notes: Mapping[str, str]) -> dict[str, object]:
    """The notes of a file with its version as a number: safetensors keeps texts only."""
    version = notes.get("version", "")
    return {**notes, "version": int(version) if version.isdecimal() else version}


def _field_map(tensors: Mapping[str, npt.NDArray[np.generic]], index: int) -> FieldMap | None:
    if f"{index}.keys" not in tensors:
        return None
    names = ("keys", "ids", "missing")
    parts: list[npt.NDArray[Any]] = [np.asarray(tensors[f"{index}.{name}"]) for name in names]
    keys, ids, missing = parts
    kinds = [(each.dtype, each.ndim) for each in parts]
    right = [(np.dtype(np.int64), 1), (np.dtype(np.int32), 1), (np.dtype(np.int64), 1)]
    if kinds != right or len(keys) != len(ids) or len(missing) != 1:
        raise ValueError(f"the map of field {index} is of another shape or type")
    if len(keys) > 1 and not bool((keys[1:] > keys[:-1]).all()):
        raise ValueError(f"the map of field {index} is not sorted")
    ranks = np.zeros(len(ids), bool)
    if len(ids) and int(ids.min()) >= FIRST and int(ids.max()) < len(ids) + FIRST:
        ranks[ids - FIRST] = True
    if not bool(ranks.all()):
        raise ValueError(f"the map of field {index} does not give each id once")
    return FieldMap(keys.astype(np.int64), ids.astype(np.int32), int(missing[0]))


def vocabulary_of(maps: Iterable[FieldMap | None]) -> Vocabulary | None:
    """A vocabulary, or None if no field needs a map."""
    listed = tuple(maps)
    return Vocabulary(listed) if any(m is not None for m in listed) else None
