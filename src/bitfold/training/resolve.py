"""The options of a training: those said, and those of a run it goes on from or resumes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bitfold.config import to_json
from bitfold.data.config import DataConfig
from bitfold.data.folder import looks_prepared
from bitfold.data.memory_log import MemoryLog
from bitfold.errors import BitfoldError
from bitfold.method.registry import plugin_files, recipe_meant
from bitfold.nets.building import build_network, network_options
from bitfold.runs.cold import ColdConfig
from bitfold.runs.config import RunConfig
from bitfold.runs.folder import load
from bitfold.runs.ids import READING
from bitfold.runs.manifest import identity, is_complete
from bitfold.runs.options import TrainConfig
from bitfold.runs.plugins import check_plugins
from bitfold.runs.run import Run
from bitfold.runs.teaching import TeacherConfig
from bitfold.training import folder
from bitfold.training.logs import check_board
from bitfold.training.processes import agreed

Paths = str | Path | Sequence[str | Path] | MemoryLog


def check_options(config: TrainConfig) -> None:
    """Raise for an embedding method, network or option that does not exist, before any work."""
    check_board(config.log)
    recipe_meant(config.method, config.set)
    options = config.network_options(tuple(network_options(config.network)))
    build_network(config.network, 2, 1, 0, **options)


def run_config(
    data_paths: Paths | None,
    data_config: DataConfig | None,
    train_config: TrainConfig | None,
    out: Path,
    resume: bool,
    from_run: str | Path | None,
    taught: TeacherConfig | None = None,
    cold: ColdConfig | None = None,
) -> RunConfig | None:
    """The run's options; None if there is nothing left to resume."""
    begun = folder.read_config(out) if resume else None
    if begun is not None:
        check_plugins(out, begun.plugins, [begun.train.method], same=not is_complete(out))
    if data_paths is None:
        if begun is None:
            raise BitfoldError(
                "there is no log to train on",
                got=f"nothing to resume in {out}" if resume else "no paths",
                expected="raw files, or a prepared log",
            )
        devices = agreed(begun.train.devices)
        folder.check_same(begun, replace(begun, train=replace(begun.train, devices=devices)))
        return None if is_complete(out) else begun
    base = None if from_run is None else load(from_run).config
    reading = data_config or (base.data if base else DataConfig())
    if isinstance(data_paths, MemoryLog):
        named: tuple[str, ...] = (data_paths.fingerprint(reading),)
    else:
        paths = [data_paths] if isinstance(data_paths, str | Path) else list(data_paths)
        named = tuple(folder.absolute(path) for path in paths)
    training = train_config or (base.train if base else TrainConfig())
    taught, digest = _teacher(taught, begun)
    asked = RunConfig(
        reading,
        replace(training, devices=agreed(training.devices)),
        named,
        None if from_run is None else folder.absolute(from_run),
        plugin_files(),
        taught,
        digest,
        cold or (ColdConfig() if begun is None else begun.cold),
    )
    if begun is not None:
        folder.check_same(begun, asked)
        return None if is_complete(out) else replace(begun, taught=taught)
    return asked


def _teacher(
    taught: TeacherConfig | None, begun: RunConfig | None
) -> tuple[TeacherConfig, str | None]:
    """Who teaches, and the identity of that run; where training goes on, it is looked at later."""
    if taught is None:
        taught = TeacherConfig() if begun is None else begun.taught
    if taught.teacher is None:
        return taught, None
    taught = replace(taught, teacher=folder.absolute(taught.teacher))
    if begun is not None and taught.teacher == begun.taught.teacher:
        return taught, begun.teacher_digest
    return taught, identity(Path(str(taught.teacher)))


SHAPES = (
    "method", "budget", "width", "embedding_sets", "set", "bags", "network", "hidden",
    "network_set",
)  # fmt: skip


def agree(config: RunConfig, base: Run) -> RunConfig:
    """The options of a training that goes on from a run; those that shape the model must agree."""

    ours, theirs = to_json(config.train), to_json(base.config.train)
    pairs = [(name, ours[name], theirs[name]) for name in SHAPES]
    if not (len(config.paths) == 1 and looks_prepared(Path(config.paths[0]))):
        ours, theirs = to_json(config.data), to_json(base.config.data)
        pairs += [(name, ours[name], theirs[name]) for name in ours if name not in READING]
    for name, got, expected in pairs:
        if got != expected:
            raise BitfoldError(
                f"the run to go on from was made with another {name}",
                got=got,
                expected=expected,
                fix=f"leave {name} out, or say it as the run does",
            )
    return config
