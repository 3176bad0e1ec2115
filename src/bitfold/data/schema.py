"""What a prepared log, and a run trained on it, know of their columns."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from bitfold.config import from_json, to_json
from bitfold.data.config import DataConfig
from bitfold.data.hashing import HASH_VERSION, missing_id
from bitfold.data.newness import KNOWN_FILE, Known
from bitfold.data.rules import RowRules
from bitfold.data.standard import Standard
from bitfold.data.vocabulary import Vocabulary
from bitfold.errors import BitfoldError
from bitfold.planning.field import Field
from bitfold.records import Count, Form, Name, Number, broken, build, checked, record

AGAIN = "prepare the log again"
SCHEMA = Form("bitfold.schema", 2, "format", "version", fix=AGAIN)
"""Version 2 added the types of columns; a schema of version 1 knows none."""

SCHEMA_FILE = "schema.json"
VOCABULARY_FILE = "vocabulary.safetensors"


@dataclass(frozen=True)
class FieldInfo:
    """A categorical field as fitted on the training part.

    Args:
        kind: `plain`, `bag`, `cross` or `bucket`.
        distinct: distinct ids met in the training part (an estimate unless `exact`).
        num_embeddings: ids there are, for dense ids; None for hashed ones.
        edges: for a bucketised number, the bounds between buckets. Id 0 is a missing number, id
            `1 + b` the bucket `b`.
    """

    name: Name
    kind: str
    distinct: Count
    exact: bool = True
    num_embeddings: Annotated[int, Meta(ge=1, le=2**63 - 1)] | None = None
    edges: tuple[Number, ...] = ()


@dataclass(frozen=True)
class NumericInfo:
    """A numeric column as fitted on the training part.

    `x -> (t(x) - mean) / deviation`, where `t` is `sign(x) * log1p(|x|)` for the transform `log`
    and `x` itself for `standard`. A missing number becomes 0, which is the mean; one further than
    1000 deviations from the mean counts as 1000 deviations from it, so that a slip of the pen
    gives a score like any other.
    """

    name: Name
    mean: Number
    deviation: Annotated[float, Meta(gt=0, le=1.7976931348623157e308)]


class _Record(msgspec.Struct, forbid_unknown_fields=True):
    """What schema.json holds; its parts are read one by one."""

    format: str
    version: int
    hash_version: int
    data: dict[str, Any]
    fields: list[dict[str, Any]]
    numeric: list[dict[str, Any]]
    vocabulary: bool
    types: dict[Name, str] = {}
    known: bool = False


@dataclass(frozen=True)
class Schema:
    """The columns of a log: how raw rows become ids and numbers.

    Everything that decides an id or a number is here: the options, the constants fitted on the
    training part, the vocabulary, the types of the raw columns (`bitfold.data.types`: how their
    values were spelt), some of the ids that it held (`bitfold.data.newness`), and the version of
    the hash. It is saved as JSON, with the vocabulary (if there is one) and the known ids as
    safetensors beside it.
    """

    config: DataConfig
    fields: tuple[FieldInfo, ...]
    numeric: tuple[NumericInfo, ...] = ()
    vocabulary: Vocabulary | None = field(default=None, compare=False)
    types: dict[str, str] = field(default_factory=dict, compare=False)
    known: Known | None = field(default=None, compare=False)

    def embedding_fields(self) -> list[Field]:
        """The fields as an `EmbeddingCollection` wants them, in the order of `Batch.ids`."""
        return [
            Field(info.name, info.num_embeddings, max(info.distinct, 1)) for info in self.fields
        ]

    @cached_property
    def field_names(self) -> list[str]:
        """The names of the categorical fields, in order."""
        return [info.name for info in self.fields]

    @cached_property
    def noted(self) -> set[str]:
        """The fields whose new values were told of (`bitfold.data.newness`)."""
        return set()

    @cached_property
    def numeric_names(self) -> list[str]:
        """The names of the numeric columns that stay numbers, in order."""
        return [info.name for info in self.numeric]

    @cached_property
    def has_bags(self) -> bool:
        """Whether any field has several values a row; then a batch holds all fields as bags."""
        return any(info.kind == "bag" for info in self.fields)

    @property
    def map_bytes(self) -> int:
        """Bytes of the map from values to dense ids; 0 where none is needed."""
        return 0 if self.vocabulary is None else self.vocabulary.bytes

    def numbers(self, columns: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float32]:
        """Transformed numbers: N columns of B raw ones (NaN is missing) to float32 `[B, N]`."""
        if not columns:
            return np.zeros((0, 0), np.float32)
        return self.standard.apply(np.stack(columns, axis=1))

    @cached_property
    def standard(self) -> Standard:
        """The transform of the numeric columns."""
        means = np.array([info.mean for info in self.numeric])
        deviations = np.array([info.deviation for info in self.numeric])
        return Standard(self.config.transform.kind, means, deviations)

    def rules(self, dense: Vocabulary | None = None) -> RowRules:
        """What decides the ids and numbers of a row.

        Args:
            dense: a further map of the fields' ids, as some methods need one.
        """
        vocabularies = [each for each in (self.vocabulary, dense) if each is not None]
        found = [[each.maps[place] for each in vocabularies] for place in range(len(self.fields))]
        return RowRules(
            self.config,
            self.types,
            tuple(info.edges for info in self.fields if info.kind == "bucket"),
            tuple(tuple(fmap for fmap in maps if fmap is not None) for maps in found),
            self.standard,
        )

    def to_json(self) -> dict[str, Any]:
        """The schema as JSON values, the vocabulary left out."""
        return SCHEMA.head() | {
            "hash_version": HASH_VERSION,
            "data": to_json(self.config),
            "fields": [asdict(info) | {"edges": list(info.edges)} for info in self.fields],
            "numeric": [asdict(info) for info in self.numeric],
            "vocabulary": self.vocabulary is not None,
            "types": dict(self.types),
            "known": self.known is not None,
        }

    def save(self, folder: str | Path) -> list[str]:
        """Write the schema, and the vocabulary if there is one; returns their names."""
        folder = Path(folder)
        names = [SCHEMA_FILE]
        if self.vocabulary is not None:
            self.vocabulary.save(folder / VOCABULARY_FILE)
            names.append(VOCABULARY_FILE)
        if self.known is not None:
            self.known.save(folder / KNOWN_FILE)
            names.append(KNOWN_FILE)
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False)
        (folder / SCHEMA_FILE).write_text(text + "\n", encoding="utf-8")
        return names

    @classmethod
    def load(cls, folder: str | Path, check: Callable[[str], Path] | None = None) -> "Schema":
        """Read a saved schema.

        Args:
            folder: where it lies.
            check: gives the path of a file of the folder once it is found whole, and raises if it
                does not belong there; without it, files are taken as they are.

        Raises:
            BitfoldError: if it is missing, broken, or of a newer format.
        """
        place = check or Path(folder).joinpath
        path = place(SCHEMA_FILE)
        value = checked(path, SCHEMA)
        version = value.get("hash_version")
        if version != HASH_VERSION:
            raise BitfoldError(
                f"{path} was written with another hash",
                got=f"hash version {version!r}"[:80],
                expected=f"version {HASH_VERSION}",
                fix=f"use the bitfold that wrote it, or {AGAIN}",
            )
        found = record(value, _Record, path, fix=AGAIN)
        fields = tuple(build(info, FieldInfo, path, fix=AGAIN) for info in found.fields)
        numeric = tuple(build(info, NumericInfo, path, fix=AGAIN) for info in found.numeric)
        config = from_json(DataConfig, found.data, path)
        vocabulary = Vocabulary.load(place(VOCABULARY_FILE)) if found.vocabulary else None
        schema = cls(config, fields, numeric, vocabulary, found.types)
        wrong = schema._contradiction()
        if wrong:
            raise broken(path, wrong, "a schema as prepare writes it", AGAIN)
        if not found.known:
            return schema
        counted = sum(info.kind != "bucket" for info in fields)
        return replace(schema, known=Known.load(place(KNOWN_FILE), counted))

    def _contradiction(self) -> str | None:
        """What of the fields, numbers and maps does not fit the options; None if all does."""
        from bitfold.data.fields import field_specs
        from bitfold.data.types import is_type

        buckets = self.config.transform.kind == "buckets"
        kinds = [(spec.name, spec.kind) for spec in field_specs(self.config)]
        kinds = [pair for pair in kinds if pair[1] != "bucket"]
        kinds += [(name, "bucket") for name in self.config.numeric if buckets]
        if kinds != [(info.name, info.kind) for info in self.fields]:
            return "fields that are not those of its options"
        if self.numeric_names != ([] if buckets else list(self.config.numeric)):
            return "numeric columns that are not those of its options"
        for info in self.fields:
            bounds = list(info.edges)
            if bounds != sorted(set(bounds)) or (info.kind != "bucket" and bounds):
                return f"bounds of {info.name!r} that do not rise"
            if info.kind == "bucket" and info.num_embeddings != len(bounds) + 2:
                return f"another number of buckets than {info.name!r} has bounds for"
        parts = {part for spec in field_specs(self.config) for part in spec.parts}
        parts |= {self.config.group or ""}
        for name, kind in self.types.items():
            if name not in parts or not is_type(kind):
                return f"a type {kind!r} of the column {name!r}"
        if (self.vocabulary is not None) != any(self._mapped(info) for info in self.fields):
            return "a vocabulary where none belongs, or none where one does"
        if self.vocabulary is not None:
            return self._contradiction_of(self.vocabulary)
        return None

    def _mapped(self, info: FieldInfo) -> bool:
        return self.config.ids == "vocabulary" and info.kind != "bucket"

    def _contradiction_of(self, vocabulary: Vocabulary) -> str | None:
        if len(vocabulary.maps) != len(self.fields):
            return f"{len(self.fields)} fields, and a vocabulary of {len(vocabulary.maps)}"
        for info, fmap in zip(self.fields, vocabulary.maps, strict=True):
            if (fmap is not None) != self._mapped(info):
                return f"a vocabulary without {info.name!r}, or with it where none belongs"
            if fmap is not None and fmap.num_embeddings != info.num_embeddings:
                return f"{fmap.num_embeddings:,} ids of {info.name!r} in the vocabulary"
            if fmap is not None and fmap.missing != missing_id(self.config.hash_seed):
                return f"another id for missing values of {info.name!r}"
        return None
