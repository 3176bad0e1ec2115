"""The manifest of a prepared log, `log.json`: every file that belongs to it, and its digest.

A file that the manifest does not name is not read. The manifest has a digest over its own content;
the other files' digests (XXH3-128) are in it, and each is checked when the file is first read.
Logs of version 1 have no digests.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from bitfold.errors import BitfoldError
from bitfold.records import (
    Count,
    Digest,
    Form,
    MissingFile,
    checked,
    file_digest,
    file_size,
    inside,
    record,
    sealed,
)

PARTS = ("train", "valid", "test")
AGAIN = "prepare the log again"
MANIFEST = Form("bitfold.log", 2, "format", "version", sealed_from=2, fix=AGAIN)
MANIFEST_FILE = "log.json"

ShardName = Annotated[str, Meta(pattern=r"^(train|valid|test)/[0-9]{1,12}\.parquet$")]
FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}(\.[A-Za-z0-9]{1,16})+$")]
Input = tuple[str, Count, int]


@dataclass(frozen=True)
class ShardInfo:
    """One shard: its file within the log's folder, its rows, its size in bytes, its digest."""

    name: str
    rows: int
    size: int
    digest: str | None = None


class _Shard(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    name: ShardName
    rows: Count
    size: Count
    digest: Digest | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    bytes: Count
    digest: Digest


class _Log1(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    version: int
    rows: dict[str, Count]
    shards: dict[Literal["train", "valid", "test"], list[_Shard]]
    inputs: list[Any]


class _Log(_Log1, forbid_unknown_fields=True, kw_only=True):
    files: dict[FileName, _File]


@dataclass(frozen=True)
class Manifest:
    """The shards of each part, the other files with their sizes and digests, and the inputs.

    `files` is None for a log of version 1, which names its shards only.
    """

    shards: dict[str, list[ShardInfo]]
    inputs: list[list[Any]]
    files: Mapping[str, tuple[int, str]] | None = field(default=None)

    def save(self, folder: Path, files: Iterable[str]) -> None:
        """Write `log.json`; `files` are the names of what lies beside the shards."""
        value = MANIFEST.head() | {
            "rows": {part: sum(s.rows for s in shards) for part, shards in self.shards.items()},
            "shards": {
                part: [[s.name, s.rows, s.size, s.digest] for s in shards]
                for part, shards in self.shards.items()
            },
            "files": {
                name: {
                    "bytes": (folder / name).stat().st_size,
                    "digest": file_digest(folder / name),
                }
                for name in sorted(files)
            },
            "inputs": self.inputs,
        }
        write_json(folder / MANIFEST_FILE, sealed(value))

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """Read `log.json`.

        Raises:
            BitfoldError: if it is missing, broken, of a newer format, or names a file that is
                missing, cut short, or outside of the folder.
        """
        path = folder / MANIFEST_FILE
        value = checked(path, MANIFEST)
        old = value["version"] == 1
        found: _Log1 = record(value, _Log1 if old else _Log, path, fix=AGAIN)
        shards = {
            part: [ShardInfo(s.name, s.rows, s.size, s.digest) for s in found.shards.get(part, [])]  # type: ignore[call-overload]
            for part in PARTS
        }
        _check_shards(path, shards, found, old)
        for shard in (s for part in shards.values() for s in part):
            check_size(folder, shard.name, shard.size)
        files = None
        if isinstance(found, _Log):
            files = {name: (file.bytes, file.digest) for name, file in found.files.items()}
        return cls(shards, found.inputs, files)

    def names(self, folder: Path, name: str) -> bool:
        """Whether a file belongs to the log; one of version 1 has what lies in its folder."""
        return (folder / name).is_file() if self.files is None else name in self.files

    def check(self, folder: Path, name: str) -> Path:
        """The path of a file of the log, whose size and digest are the manifest's.

        Raises:
            BitfoldError: the manifest does not name it, or it is not what was saved.
        """
        path = inside(folder, name, fix=AGAIN)
        if self.files is None:
            return path
        if name not in self.files:
            raise BitfoldError(
                f"the prepared log {folder} is not whole",
                got=f"a {MANIFEST_FILE} that does not name {name}",
                expected="every file of the log, with its digest",
                fix=AGAIN,
            )
        size, digest = self.files[name]
        check_size(folder, name, size)
        check_digest(folder, name, digest)
        return path


def _check_shards(path: Path, shards: dict[str, list[ShardInfo]], found: _Log1, old: bool) -> None:
    every = [shard.name for part in shards.values() for shard in part]
    wrong = None
    if any(not s.name.startswith(f"{part}/") for part in PARTS for s in shards[part]):
        wrong = "a shard that stands under another part's name"
    elif len(set(every)) != len(every):
        wrong = "a shard that is named twice"
    elif not old and any(s.digest is None for part in PARTS for s in shards[part]):
        wrong = "a shard without a digest"
    elif found.rows != {part: sum(s.rows for s in shards[part]) for part in PARTS}:
        wrong = "numbers of rows that the shards do not add up to"
    if wrong:
        raise BitfoldError(
            f"{path} is damaged", got=wrong, expected="what prepare wrote", fix=AGAIN
        )


def check_size(folder: Path, name: str, size: int) -> None:
    """Raise unless a file of a prepared log is there and has the size that it was written with."""
    path = inside(folder, name, fix=AGAIN)
    try:
        found = file_size(path)
    except MissingFile:
        raise BitfoldError(
            f"the prepared log {folder} is not whole",
            got=f"{name} is missing",
            expected=f"a file of {size:,} bytes",
            fix=f"copy the whole folder, or {AGAIN}",
        ) from None
    if found != size:
        raise BitfoldError(
            f"the prepared log {folder} is not whole",
            got=f"{name} has {found:,} bytes",
            expected=f"{size:,} bytes",
            fix=AGAIN,
        )


def check_digest(folder: Path, name: str, digest: str) -> None:
    """Raise unless a file of a prepared log holds what was written."""
    if file_digest(folder / name) != digest:
        raise BitfoldError(
            f"{folder / name} is not what was saved",
            got="another digest",
            expected=f"{digest} (XXH3-128)",
            fix=f"copy the log again, or {AGAIN}",
        )


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
