"""The list of a prepared log's shards."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitfold.data.schema import read_json
from bitfold.errors import BitfoldError

PARTS = ("train", "valid", "test")
FORMAT = "bitfold.log"
VERSION = 1
MANIFEST_FILE = "log.json"


@dataclass(frozen=True)
class ShardInfo:
    """One shard: its file within the log's folder, its rows, and its size in bytes."""

    name: str
    rows: int
    size: int


@dataclass(frozen=True)
class Manifest:
    """The shards of each part, and the files that they were made from."""

    shards: dict[str, list[ShardInfo]]
    inputs: list[list[Any]]

    def save(self, folder: Path) -> None:
        """Write `log.json`."""
        write_json(
            folder / MANIFEST_FILE,
            {
                "format": FORMAT,
                "version": VERSION,
                "rows": {part: sum(s.rows for s in shards) for part, shards in self.shards.items()},
                "shards": {
                    part: [[s.name, s.rows, s.size] for s in shards]
                    for part, shards in self.shards.items()
                },
                "inputs": self.inputs,
            },
        )

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """Read `log.json`.

        Raises:
            BitfoldError: if it is missing, broken, of a newer format, or names a shard that is
                missing or cut short.
        """
        path = folder / MANIFEST_FILE
        words = read_json(path, FORMAT, VERSION)
        try:
            shards = {
                part: [ShardInfo(str(n), int(r), int(s)) for n, r, s in words["shards"][part]]
                for part in PARTS
            }
            inputs = list(words["inputs"])
        except (KeyError, TypeError, ValueError) as error:
            raise BitfoldError(
                f"{path} is broken",
                got=f"{type(error).__name__}: {error}",
                expected="a manifest as prepare writes it",
                fix="prepare the log again",
            ) from error
        for shard in (s for part in shards.values() for s in part):
            file = folder / shard.name
            size = file.stat().st_size if file.is_file() else None
            if size != shard.size:
                raise BitfoldError(
                    f"the prepared log {folder} is not whole",
                    got=f"{shard.name} " + ("is missing" if size is None else f"has {size} bytes"),
                    expected=f"{shard.size} bytes",
                    fix="prepare the log again",
                )
        return cls(shards, inputs)


def write_json(path: Path, words: dict[str, Any]) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(words, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
