"""The options of a run, as its config.json keeps them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

import bitfold
from bitfold.config import from_json, to_json
from bitfold.data.config import DataConfig
from bitfold.files import write_json
from bitfold.method.registry import PluginFile
from bitfold.records import Digest as FileDigest
from bitfold.records import broken, checked, record, sealed
from bitfold.runs.cold import ColdConfig
from bitfold.runs.manifest import FORM, Digest
from bitfold.runs.options import TrainConfig
from bitfold.runs.teaching import TeacherConfig


@dataclass(frozen=True)
class RunConfig:
    """The options of a run.

    Args:
        data: how its log was read.
        train: how it was trained.
        paths: the log.
        from_run: the run it went on from, if any.
        plugins: the plugin files that were loaded.
        taught: who taught it, if anybody.
        teacher_digest: the identity of the teacher's run.
        cold: what is done for ids with few clicks.
    """

    data: DataConfig
    train: TrainConfig
    paths: tuple[str, ...] = ()
    from_run: str | None = None
    plugins: tuple[PluginFile, ...] = ()
    taught: TeacherConfig = field(default_factory=TeacherConfig)
    teacher_digest: str | None = None
    cold: ColdConfig = field(default_factory=ColdConfig)

    def options(self) -> dict[str, Any]:
        """The options of the training by name, with those of a teacher and of cold ids where there
        are such.
        """
        taught = {} if self.taught.teacher is None else to_json(self.taught)
        return to_json(self.train) | taught | (to_json(self.cold) if self.cold.on else {})

    def to_json(self) -> dict[str, Any]:
        """What config.json holds."""
        found = FORM.head() | {
            "bitfold": bitfold.__version__,
            "paths": list(self.paths),
            "from_run": self.from_run,
            "data": to_json(self.data),
            "train": to_json(self.train),
        }
        if self.plugins:  # without, the file is one that every bitfold reads
            found["plugins"] = [to_json(file) for file in self.plugins]
        if self.taught.teacher is not None:
            found["taught"] = to_json(self.taught)
            found["teacher_digest"] = self.teacher_digest
        if self.cold.on:
            found["cold_ids"] = to_json(self.cold)
        return found

    def save(self, path: Path) -> None:
        """Write config.json."""
        write_json(path, sealed(self.to_json()))

    @classmethod
    def load(cls, path: Path) -> "RunConfig":
        """Read config.json.

        Raises:
            BitfoldError: it is missing, damaged, changed, or of a newer format.
        """
        return cls.from_json(checked(path, FORM), path)

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: object = "config.json") -> "RunConfig":
        """Read what `to_json` wrote; `where` is what an error calls it."""
        found = record(values, _Config, where, fix="train anew")
        taught = from_json(TeacherConfig, found.taught, where)
        if (taught.teacher is None) != (found.teacher_digest is None):
            raise broken(
                where, "a teacher without its digest, or a digest alone", "both", "train anew"
            )
        return cls(
            from_json(DataConfig, found.data, where),
            from_json(TrainConfig, found.train, where),
            found.paths,
            found.from_run,
            tuple(PluginFile(each.path, each.sha256, each.methods) for each in found.plugins),
            taught,
            found.teacher_digest,
            from_json(ColdConfig, found.cold_ids, where),
        )


class _Plugin(msgspec.Struct, forbid_unknown_fields=True):
    path: str
    sha256: Digest
    methods: tuple[str, ...]


class _Config(msgspec.Struct, forbid_unknown_fields=True):
    """What config.json holds; the options are read one by one."""

    kind: str
    format: int
    bitfold: str
    paths: tuple[str, ...]
    from_run: str | None
    data: dict[str, Any]
    train: dict[str, Any]
    plugins: tuple[_Plugin, ...] = ()
    taught: dict[str, Any] = {}
    teacher_digest: FileDigest | None = None
    cold_ids: dict[str, Any] = {}
