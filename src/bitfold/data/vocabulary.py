"""The maps of all fields from 64-bit ids to dense ones."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bitfold.data.field_map import FIRST, FieldMap
from bitfold.errors import BitfoldError
from bitfold.planning.field import Field
from bitfold.records import Form, broken, check_form, file_size, unreadable

if TYPE_CHECKING:
    from bitfold.data.batch import Batch
    from bitfold.data.prepared import PreparedLog

KEY_BYTES = 12
"""Bytes of one value in the map: a 64-bit key and a 32-bit id."""

Ids = npt.NDArray[np.int64]


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
