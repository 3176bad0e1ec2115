"""What a prepared log, and a run trained on it, know of their columns."""

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitfold.config import from_json, to_json
from bitfold.data.config import DataConfig
from bitfold.data.vocabulary import Vocabulary
from bitfold.errors import BitfoldError
from bitfold.fields import Field
from bitfold.hashing import HASH_VERSION

FORMAT = "bitfold.schema"
VERSION = 1
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

    name: str
    kind: str
    distinct: int
    exact: bool = True
    num_embeddings: int | None = None
    edges: tuple[float, ...] = ()


@dataclass(frozen=True)
class NumericInfo:
    """A numeric column as fitted on the training part.

    `x -> (t(x) - mean) / deviation`, where `t` is `sign(x) * log1p(|x|)` for the transform `log`
    and `x` itself for `standard`. A missing number becomes 0, which is the mean.
    """

    name: str
    mean: float
    deviation: float


@dataclass(frozen=True)
class Schema:
    """The columns of a log: how raw rows become ids and numbers.

    Everything that decides an id or a number is here: the words, the constants fitted on the
    training part, the vocabulary, and the version of the hash. It is saved as JSON, with the
    vocabulary (if there is one) as safetensors beside it.
    """

    config: DataConfig
    fields: tuple[FieldInfo, ...]
    numeric: tuple[NumericInfo, ...] = ()
    vocabulary: Vocabulary | None = field(default=None, compare=False)

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
        rows = len(columns[0]) if columns else 0
        out = np.empty((rows, len(columns)), np.float32)
        for index, (info, column) in enumerate(zip(self.numeric, columns, strict=True)):
            shaped = shape(column, self.config.transform.kind)
            out[:, index] = np.nan_to_num((shaped - info.mean) / info.deviation, nan=0.0)
        return out

    def to_json(self) -> dict[str, Any]:
        """The schema as JSON values, the vocabulary left out."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "hash_version": HASH_VERSION,
            "data": to_json(self.config),
            "fields": [asdict(info) | {"edges": list(info.edges)} for info in self.fields],
            "numeric": [asdict(info) for info in self.numeric],
            "vocabulary": self.vocabulary is not None,
        }

    def save(self, folder: str | Path) -> None:
        """Write the schema, and the vocabulary if there is one, into a folder."""
        folder = Path(folder)
        if self.vocabulary is not None:
            self.vocabulary.save(folder / VOCABULARY_FILE)
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False)
        (folder / SCHEMA_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> "Schema":
        """Read a saved schema.

        Raises:
            BitfoldError: if it is missing, broken, or of a newer format.
        """
        path = Path(folder) / SCHEMA_FILE
        words = read_json(path, FORMAT, VERSION)
        try:
            if words["hash_version"] != HASH_VERSION:
                raise BitfoldError(
                    f"{path} was written with another hash",
                    got=f"hash version {words['hash_version']}",
                    expected=f"version {HASH_VERSION}",
                    fix="use the bitfold that wrote it, or prepare the log again",
                )
            vocabulary = None
            if words["vocabulary"]:
                vocabulary = Vocabulary.load(path.parent / VOCABULARY_FILE)
            return cls(
                from_json(DataConfig, words["data"]),
                tuple(
                    FieldInfo(**(info | {"edges": tuple(info["edges"])}))
                    for info in words["fields"]
                ),
                tuple(NumericInfo(**info) for info in words["numeric"]),
                vocabulary,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise BitfoldError(
                f"{path} is broken",
                got=f"{type(error).__name__}: {error}",
                expected="a schema as prepare writes it",
                fix="prepare the log again",
            ) from error


def shape(column: npt.NDArray[np.float64], kind: str) -> npt.NDArray[np.float64]:
    """The numbers before they are standardised: sign-aware log1p, or themselves."""
    if kind != "log":
        return column
    logs: npt.NDArray[np.float64] = np.sign(column) * np.log1p(np.abs(column))
    return logs


def read_json(path: Path, kind: str, version: int) -> dict[str, Any]:
    """A JSON object of a given format, of this version or an older one."""
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
        found = (words["format"], int(words["version"]))
    except FileNotFoundError:
        raise BitfoldError(
            f"{path} does not exist", expected="a folder that bitfold wrote", fix="check the path"
        ) from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise BitfoldError(
            f"{path} is broken",
            got=f"{type(error).__name__}: {error}",
            expected=f"a whole {kind} file",
            fix="write it again",
        ) from error
    if found[0] != kind or found[1] > version:
        raise BitfoldError(
            f"{path} cannot be read by this bitfold",
            got=f"{found[0]} version {found[1]}",
            expected=f"{kind} version {version} or older",
            fix="use a newer bitfold",
        )
    return words  # type: ignore[no-any-return]
