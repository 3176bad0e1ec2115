"""The rules of rows as JSON, and back: what a process without any other library reads.

    kind, format     what the file is
    bitfold          the version that wrote it
    digest           the run's
    file             the SHA-256 of the file that it lies beside
    inputs, output   their names in that file
    schema           the JSON of schema.json
    maps             for each field the maps of its ids, as base64 of zlib of little-endian numbers
    seal             the SHA-256 of all of the above

Reading it takes NumPy alone.
"""

import base64
import binascii
import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bitfold.data.config import DataConfig
from bitfold.data.field_map import FieldMap
from bitfold.data.hashing import HASH_VERSION
from bitfold.data.rules import RowRules
from bitfold.data.standard import Standard
from bitfold.errors import BitfoldError

if TYPE_CHECKING:
    from bitfold.data.schema import Schema
    from bitfold.data.vocabulary import Vocabulary


KIND, FORMAT = "bitfold text", 1
AGAIN = "export the run again, with --text"


def to_text(
    schema: "Schema", dense: "Vocabulary | None" = None, *, digest: str, file: str, version: str
) -> str:
    """All that turns raw values into the inputs of a file.

    Args:
        schema: how rows become ids and numbers.
        dense: a further map of ids, where the method needed one.
        digest: the run's.
        file: the SHA-256 of the file.
        version: of bitfold.
    """
    value: dict[str, Any] = {"kind": KIND, "format": FORMAT, "bitfold": version, "digest": digest}
    inputs = ["ids", *["offsets"] * schema.has_bags, *["numbers"] * bool(schema.numeric_names)]
    maps = [[_packed(fmap) for fmap in fmaps] for fmaps in schema.rules(dense).maps]
    value |= {"file": file, "inputs": inputs, "output": "scores"}
    value |= {"schema": schema.to_json() | {"known": False}, "maps": maps}
    return json.dumps(value | {"seal": _seal(value)}, indent=1) + "\n"


def read(path: Path) -> dict[str, Any]:
    """A file that `to_text` made, as it was made.

    Raises:
        BitfoldError: it is missing, something else, of a newer format, or was changed.
    """
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise BitfoldError(
            f"{path} cannot be read",
            got=error.strerror or str(error),
            expected="the schema that lies beside an exported file",
            fix="bitfold export RUN --out FILE --text",
        ) from None
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"no JSON: {error}") from None
    if not isinstance(value, dict) or value.get("kind") != KIND:
        raise _damaged(path, "something else")
    if value.get("format") != FORMAT:
        raise BitfoldError(
            f"{path} is of another format",
            got=f"format {value.get('format')!r}, by bitfold {value.get('bitfold')!r}"[:160],
            expected=f"format {FORMAT}",
            fix="install the bitfold that wrote it, or " + AGAIN,
        )
    if value.pop("seal", None) != _seal(value):
        raise BitfoldError(
            f"{path} is not what was written",
            got="a seal of another content",
            expected="the file as bitfold wrote it; it must not be edited",
            fix=AGAIN,
        )
    return value


def rules_of(value: Mapping[str, Any], path: Path) -> RowRules:
    """The rules in what `read` read from `path`.

    Raises:
        BitfoldError: rows were hashed in another way, or the file holds something else.
    """
    try:
        schema = value["schema"]
        version = schema["hash_version"]
        if version != HASH_VERSION:
            raise BitfoldError(
                f"{path} was written with another hash",
                got=f"hash version {version!r}"[:80],
                expected=f"version {HASH_VERSION}",
                fix="use the bitfold that wrote it, or " + AGAIN,
            )
        options: dict[str, Any] = dict(schema["data"])
        lists = {name: tuple(each) for name, each in options.items() if isinstance(each, list)}
        config = DataConfig(**options | lists)
        return RowRules(
            config,
            dict(schema["types"]),
            tuple(tuple(each["edges"]) for each in schema["fields"] if each["kind"] == "bucket"),
            tuple(tuple(_unpacked(each) for each in maps) for maps in value["maps"]),
            Standard(
                config.transform.kind,
                np.array([each["mean"] for each in schema["numeric"]], np.float64),
                np.array([each["deviation"] for each in schema["numeric"]], np.float64),
            ),
        )
    except BitfoldError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, zlib.error, binascii.Error) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from None


def _damaged(path: Path, got: str) -> BitfoldError:
    expected = "what bitfold export --text writes"
    return BitfoldError(f"{path} is damaged", got=got[:200], expected=expected, fix=AGAIN)


def _seal(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _packed(fmap: FieldMap) -> dict[str, Any]:
    return {
        "ids": len(fmap.keys),
        "keys": _text(fmap.keys, "<i8"),
        "places": _text(fmap.ids, "<i4"),
        "missing": fmap.missing,
    }


def _unpacked(value: Mapping[str, Any]) -> FieldMap:
    count = int(value["ids"])
    keys, places = _array(value["keys"], "<i8", count), _array(value["places"], "<i4", count)
    return FieldMap(keys.astype(np.int64), places.astype(np.int32), int(value["missing"]))


def _text(array: npt.NDArray[Any], kind: str) -> str:
    return base64.b64encode(zlib.compress(array.astype(kind).tobytes(), 9)).decode("ascii")


def _array(text: str, kind: str, count: int) -> npt.NDArray[Any]:
    size = count * np.dtype(kind).itemsize
    found = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), size + 1)
    if len(found) != size:
        raise ValueError(f"not {count:,} numbers")
    return np.frombuffer(found, kind)
