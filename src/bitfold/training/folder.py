"""The folder of a run while it is trained: begun, resumed, tidied."""

import os
import shutil
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bitfold import outputs
from bitfold.config import to_json
from bitfold.data.sources import STDIN
from bitfold.errors import BitfoldError
from bitfold.files import remove_parts
from bitfold.outputs import Work
from bitfold.progress import is_first_process
from bitfold.runs.config import RunConfig
from bitfold.runs.manifest import CHECKPOINT, CONFIG, LOG, RUN, is_complete

FREE = ("checkpoint_steps", "log_steps", "log", "keep_log")  # options that change no weight


def absolute(path: str | Path) -> str:
    """A path or pattern that holds from any folder."""
    if path == STDIN:
        return path
    return os.path.abspath(path)  # noqa: PTH100  (a pattern is no path to resolve)


def claim(
    out: Path, config: RunConfig, *, resume: bool, force: bool
) -> AbstractContextManager[Work]:
    """Hold `out` for a training: begun, or gone on with.

    Raises:
        BitfoldError: there is something else, or a run and neither `resume` nor `force`; or the
            log, or a run that is read, lies in the output, or the output in it.
    """
    outputs.refuse_overlap(out, [*config.paths, config.from_run, config.taught.teacher])

    def begin(folder: Path) -> None:
        write_config(folder, config)

    return outputs.work(out, RUN, begin, resume=resume, force=force, ended=is_complete)


def under_way(out: Path) -> Path:
    """The folder of the training that `resume` would go on with; `out` if there is none.

    Of several processes the first puts in order what a dead one left, and the others only look.
    """
    return outputs.under_way(out, RUN, tidy=is_first_process()) or out


def write_config(out: Path, config: RunConfig) -> None:
    """Save the options. The log of a comparison that is not in its place yet is named as it will be
    called, since the run outlives the move.
    """
    paths = tuple(outputs.settled(path) for path in config.paths)
    replace(config, paths=paths).save(out / CONFIG)


def read_config(out: Path) -> RunConfig | None:
    """The options of the run in `out`, or None."""
    if not (out / CONFIG).is_file():
        return None
    config = RunConfig.load(out / CONFIG)
    where = out.resolve()
    return replace(config, paths=tuple(outputs.unsettled(path, where) for path in config.paths))


def check_same(begun: RunConfig, asked: RunConfig) -> None:
    """Raise unless two configurations give the same weights.

    The reading options of a prepared log come from the log, so they are not asked for twice.
    """
    from bitfold.data.folder import looks_prepared

    pairs: list[tuple[str, Any, Any]] = [
        ("paths", begun.paths, asked.paths),
        ("from", begun.from_run, asked.from_run),
    ]
    # A teacher is told by what it is, wherever it lies now.
    pairs.append(("teacher", begun.teacher_digest, asked.teacher_digest))
    pairs += [
        (name, getattr(begun.taught, name), getattr(asked.taught, name))
        for name in ("teacher_share", "teacher_meta")
    ]
    sections: list[tuple[Any, Any]] = [(begun.train, asked.train), (begun.cold, asked.cold)]
    if not (len(begun.paths) == 1 and looks_prepared(Path(begun.paths[0]))):
        sections.append((begun.data, asked.data))
    for old, new in sections:
        was, now = to_json(old), to_json(new)
        pairs += [(name, was[name], now[name]) for name in was if name not in FREE]
    for name, was, now in pairs:
        if was != now:
            raise BitfoldError(
                f"the training to resume was begun with another {name}",
                got=now,
                expected=was,
                fix=f"say {name} as it was, or start anew with --force",
            )


def complete(out: Path) -> None:
    """Put a training in its place that ended, but whose process died before it was there."""
    with outputs.work(out, RUN, write_nothing, resume=True) as work:
        config = read_config(work.folder)
        tidy(work.folder, keep_log=config is None or config.train.keep_log)
        work.finish()


def write_nothing(folder: Path) -> None:
    """Begin nothing: there is something to go on with."""


def sweep(folder: Path) -> None:
    """Remove what a killed process left half written in a training that goes on."""
    for place in (folder, folder / CHECKPOINT):
        remove_parts(place)
    outputs.sweep(folder)


def tidy(folder: Path, *, keep_log: bool) -> None:
    """Remove what a finished run does not need."""
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)
    if not keep_log:
        shutil.rmtree(folder / LOG, ignore_errors=True)
    sweep(folder)
