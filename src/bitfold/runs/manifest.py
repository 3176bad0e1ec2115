"""The manifest of a run: which files belong to it, with the size and SHA-256 of each.

A file that the manifest does not name is not read. From format 2 on the manifest and config.json
have a digest over their own content; runs of format 1 are read without.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

import bitfold
from bitfold.data.folder import PREPARED
from bitfold.data.newness import KNOWN_FILE
from bitfold.data.schema import SCHEMA_FILE, VOCABULARY_FILE
from bitfold.errors import BitfoldError
from bitfold.files import sha256, write_json
from bitfold.outputs import Kind
from bitfold.records import (
    Count,
    Form,
    MissingFile,
    broken,
    checked,
    file_digest,
    file_size,
    read_object,
    record,
    sealed,
    unreadable,
)

KIND = "bitfold run"
AGAIN = "copy the run again"
FORM = Form(KIND, 2, sealed_from=2, fix=AGAIN)
CONFIG, PLAN, WEIGHTS = "config.json", "plan.json", "weights.safetensors"
METRICS, MANIFEST, DENSE = "metrics.json", "manifest.json", "dense.safetensors"
COLD = "cold.safetensors"
PARTS = (CONFIG, SCHEMA_FILE, VOCABULARY_FILE, KNOWN_FILE, DENSE, COLD, PLAN, WEIGHTS, METRICS)
CHECKPOINT, LOG, LOGS = "checkpoint", "log", "logs"
STREAM = "stream.json"  # of a run that `bitfold stream` makes
NEEDED = (CONFIG, PLAN, WEIGHTS, METRICS, SCHEMA_FILE)

PlainName = Annotated[str, Meta(pattern=r"^[^./\\\x00-\x1f][^/\\\x00-\x1f]{0,200}$")]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class _Seal(msgspec.Struct, forbid_unknown_fields=True):
    bytes: Count
    sha256: Digest


class _Manifest(msgspec.Struct, forbid_unknown_fields=True):
    kind: str
    format: int
    bitfold: str
    files: dict[PlainName, _Seal]


@dataclass(frozen=True)
class RunFiles:
    """The files of a finished run, each found to be what was saved.

    Args:
        folder: the run.
        names: of its files.
        digest: the SHA-256 of its manifest, in hexadecimal; it tells the run from any other.
    """

    folder: Path
    names: frozenset[str]
    digest: str

    def __contains__(self, name: str) -> bool:
        """Whether the manifest names a file."""
        return name in self.names

    def path(self, name: str) -> Path:
        """The path of a file of the run.

        Raises:
            BitfoldError: the manifest does not name it.
        """
        if name not in self.names:
            raise broken(
                f"the manifest of {self.folder}", f"no {name}", "every file of the run", AGAIN
            )
        return self.folder / name


def write_manifest(folder: Path, names: Iterable[str], form: Form = FORM) -> None:
    """Write the manifest of a run, of the kind that `form` says; it comes last and makes it one."""
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
        for name in sorted(names)
    }
    value = form.head() | {"bitfold": bitfold.__version__, "files": files}
    write_json(folder / MANIFEST, sealed(value))


def is_run(folder: Path, kind: str = KIND) -> bool:
    """Whether `folder` holds a run of this kind, finished or not."""
    for name in (MANIFEST, CONFIG):
        try:
            if read_object(folder / name).get("kind") == kind:
                return True
        except BitfoldError:
            continue
    return False


def is_complete(folder: Path) -> bool:
    """Whether the run in `folder` has ended."""
    return os.path.isfile(folder / MANIFEST)  # noqa: PTH113  (False where it may not be looked at)


def identity(folder: Path) -> str:
    """What tells a run from another: its manifest has the digests of all its files.

    Raises:
        BitfoldError: it is not a run, or not finished.
    """
    if not is_complete(folder):
        verify(folder)  # it says what the folder is
    return file_digest(folder / MANIFEST)


RUN = Kind(
    "run",
    (
        *PARTS,
        MANIFEST,
        f"{CHECKPOINT}/*.safetensors",
        *(f"{LOGS}/training.csv", f"{LOGS}/events.out.tfevents.*"),
        f"{LOGS}/*/events.out.tfevents.*",
        *PREPARED.within(LOG),
        # of a stream, whose log is prepared window by window
        *(STREAM, "stream.html", "stream-*.png"),
        *(f"{LOG}/window.arrow", *PREPARED.within(f"{LOG}/*")),
    ),
    is_run,
)
"""A run's folder as an output: what may be in it, the work of a training that goes on included."""


def verify(
    folder: Path, form: Form = FORM, needed: Sequence[str] = NEEDED, command: str = "train"
) -> RunFiles:
    """Check that a run is whole, every file against its manifest.

    Args:
        folder: the run.
        form: its kind and format.
        needed: files that it cannot do without.
        command: what makes such a run.

    Raises:
        BitfoldError: not a run, not finished, of a newer format, truncated or changed.
    """
    if not is_complete(folder):
        try:
            os.stat(folder / MANIFEST)  # noqa: PTH116
        except PermissionError as error:
            raise unreadable(folder / MANIFEST, error) from None
        except OSError:
            pass
        unfinished = os.path.isfile(folder / CONFIG)  # noqa: PTH113
        raise BitfoldError(
            f"{folder} is not a finished run",
            got="a training that has not ended" if unfinished else "no manifest.json",
            expected=f"a folder that {command} has finished",
            fix="go on with --resume" if unfinished else "check the path",
        )
    path = folder / MANIFEST
    digest = _digest(path)
    manifest = record(checked(path, form), _Manifest, path, fix=AGAIN)
    lacking = [name for name in needed if name not in manifest.files]
    if lacking:
        raise broken(
            f"the manifest of {folder}", f"no {lacking[0]}", "every file of the run", AGAIN
        )
    for name, seal in manifest.files.items():
        _check(folder, name, seal)
    if digest != _digest(path):
        raise broken(folder, "another run in its place meanwhile", "one run at a time", AGAIN)
    return RunFiles(folder, frozenset(manifest.files), digest)


def _digest(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise unreadable(path, error) from None


def _check(folder: Path, name: str, seal: _Seal) -> None:
    file = folder / name
    try:
        size = file_size(file)
        if size != seal.bytes:
            raise BitfoldError(
                f"{file} is not what was saved",
                got=f"{size:,} bytes",
                expected=f"{seal.bytes:,} bytes",
                fix=AGAIN,
            )
        digest = sha256(file)
    except MissingFile:
        raise BitfoldError(
            f"the run {folder} lacks {name}", got="no such file", fix="copy the whole folder"
        ) from None
    except OSError as error:
        raise unreadable(file, error) from None
    if digest != seal.sha256:
        raise BitfoldError(
            f"{file} is not what was saved",
            got="another SHA-256",
            expected=seal.sha256,
            fix=f"{AGAIN}; a run's files must not be edited",
        )


def read_metrics(path: Path) -> dict[str, Any]:
    """The figures of metrics.json as plain values, checked; unknown ones are left as they are.

    Raises:
        BitfoldError: a figure is of another type, or no finite number.
    """
    value = read_object(path, fix=AGAIN)
    record(value, _Metrics, path, fix=AGAIN)
    return value


Figure = Annotated[float, Meta(ge=-1e300, le=1e300)] | None


class _Floor(msgspec.Struct):
    auc: Figure = None
    logloss: Figure = None
    field: str | None = None
    smoothing: Figure = None
    ranking: Mapping[str, str | int | float | None] | None = None


class _Metrics(msgspec.Struct):
    epochs: Count
    auc: Figure = None
    logloss: Figure = None
    gauc: Figure = None
    calibration: Figure = None
    ece: Figure = None
    constant_logloss: Figure = None
    bytes: Count | None = None
    ratio: Figure = None
    training_bytes: Count | None = None
    map_bytes: Count | None = None
    network_bytes: Count | None = None
    rows_per_second: Figure = None
    best_epoch: Count | None = None
    seconds: Figure = None
    part: str | None = None
    valid: Mapping[str, Figure] | None = None
    rows: Mapping[str, Count] = {}
    seed: int | None = None
    versions: Mapping[str, str] = {}
    finished: str | None = None
    floors: Mapping[str, _Floor] = {}
    ranking: Mapping[str, str | int | float | None] | None = None
