"""Where a server's model comes from: the folder of a run, or an exported file."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitfold.errors import BitfoldError
from bitfold.files import sha256
from bitfold.records import inside
from bitfold.service.models import Scorer

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}")
"""Names of runs that a client may ask for."""


@dataclass(frozen=True)
class Source:
    """Where models come from.

    Args:
        path: the run's folder, or the `.onnx` file, that the server was started with.
        runs: a folder of runs, of which a client may name one; None where it may not.
    """

    path: Path
    runs: Path | None = None

    def named(self, name: str) -> "Source":
        """The run of this name below `runs`.

        Raises:
            BitfoldError: no folder of runs was given, the name is none, or leads elsewhere.
        """
        if self.runs is None:
            raise BitfoldError(
                "this server takes no names of runs",
                got=repr(name),
                expected="an empty body: the run it was started with is read again",
                fix="start the server with --runs FOLDER",
            )
        if not NAME.fullmatch(name):
            raise BitfoldError(
                "that is no name of a run", got=repr(name), expected="letters, digits, . _ and -"
            )
        path = inside(self.runs, name, fix="name a run of the folder")
        if not path.exists():
            raise BitfoldError("there is no such run", got=repr(name), fix="check its name")
        return Source(path, self.runs)

    @property
    def is_file(self) -> bool:
        """Whether an exported file is served, and no run."""
        return self.path.suffix == ".onnx"

    def signature(self) -> tuple[object, ...]:
        """What changes when another model lies there; links are followed."""
        files = [self.path, Path(f"{self.path}.json")] if self.is_file else [_manifest(self.path)]
        found: list[object] = [os.path.realpath(self.path)]
        for file in files:
            try:
                seen = file.stat()
                found.append((seen.st_ino, seen.st_mtime_ns, seen.st_size))
            except OSError:
                found.append(None)
        return tuple(found)

    def loading(self, current: Scorer | None = None) -> Callable[[], Scorer]:
        """What loads the model; it gives `current` back where that is the one that lies there."""

        def load() -> Scorer:
            if self.is_file:
                return _exported(self.path)
            if current is not None and _digest(self.path) == current.digest:
                return current
            return _run(self.path)

        return load


def _digest(folder: Path) -> str | None:
    try:
        return sha256(_manifest(folder))
    except (OSError, BitfoldError):
        return None


def _run(folder: Path) -> Scorer:
    from bitfold.runs.folder import load

    return load(folder).scorer()


def _manifest(folder: Path) -> Path:
    from bitfold.runs.manifest import MANIFEST  # here: an exported file needs nothing of runs

    return folder / MANIFEST


def _exported(path: Path) -> Scorer:
    from bitfold.lite import load

    return ExportedScorer(load(path))


class ExportedScorer:
    """The scores of an exported file, also of Arrow tables.

    Args:
        scorer: of `bitfold.lite`, which reads tables as columns by name.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.digest, self.columns = scorer.digest, scorer.columns
        self.score, self.scores = scorer.score, scorer.scores
        self._scores_of = scorer.scores_of

    def scores_of(self, data: Any) -> npt.NDArray[np.float32]:
        """The probabilities `[B]` of an Arrow table."""
        return self._scores_of({name: data.column(name) for name in data.schema.names})
