"""The folder of a run while it is trained: claimed, resumed, tidied."""

import os
import shutil
from pathlib import Path
from typing import Any

from bitfold import run as runs
from bitfold.config import to_json
from bitfold.errors import BitfoldError
from bitfold.files import read_json, remove_parts, write_json
from bitfold.run import RunConfig

CHECKPOINT, LOG, LOGS = "checkpoint", "log", "logs"
FREE = ("checkpoint_steps", "log_steps", "keep_log")  # words that change no weight


def absolute(path: str | Path) -> str:
    """A path or pattern that holds from any folder."""
    return os.path.abspath(path)  # noqa: PTH100  (a pattern is no path to resolve)


def claim(out: Path, config: RunConfig, *, resume: bool, force: bool) -> bool:
    """Make `out` ready for a training; returns whether it is new.

    Raises:
        BitfoldError: there is something else, or a run and neither `resume` nor `force`.
    """
    if out.exists() and not out.is_dir():
        raise BitfoldError(f"{out} is a file", got="a file", expected="a folder, or nothing")
    begun = out.is_dir() and any(out.iterdir())
    if begun and not runs.is_run(out):
        # A process killed at its very start leaves temporary files only.
        if not all(file.name.startswith(".") for file in out.iterdir()):
            raise BitfoldError(
                f"{out} exists and is no run, so it is left alone",
                got=", ".join(sorted(file.name for file in out.iterdir())[:5]),
                expected="a new or empty folder",
                fix="name another folder",
            )
        begun = False
    if begun and resume:
        remove_parts(out)
        return False
    if begun and not force:
        ended = runs.is_complete(out)
        raise BitfoldError(
            f"{out} exists",
            got="a finished run" if ended else "a training that has not ended",
            expected="a new folder",
            fix="say --force to replace it" if ended else "say --resume to go on, or --force",
        )
    if begun:
        _empty(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BitfoldError(f"cannot make {out}", got=error.strerror or str(error)) from error
    remove_parts(out)
    try:
        write_config(out, config)
    except BitfoldError:
        discard(out)
        raise
    return True


def write_config(out: Path, config: RunConfig) -> None:
    """Save the words."""
    write_json(out / runs.CONFIG, config.to_json())


def read_config(out: Path) -> RunConfig | None:
    """The words of the run in `out`, or None."""
    if not (out / runs.CONFIG).is_file():
        return None
    return RunConfig.from_json(read_json(out / runs.CONFIG))


def check_same(begun: RunConfig, asked: RunConfig) -> None:
    """Raise unless two configurations give the same weights.

    The data words of a prepared log come from the log, so they are not asked for twice.
    """
    from bitfold.data.prepared import looks_prepared

    pairs: list[tuple[str, Any, Any]] = [
        ("paths", begun.paths, asked.paths),
        ("from", begun.from_run, asked.from_run),
    ]
    sections: list[tuple[Any, Any]] = [(begun.train, asked.train)]
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


def _empty(out: Path) -> None:
    """Remove what training makes; the manifest first, so that half a run is never taken for one."""
    (out / runs.MANIFEST).unlink(missing_ok=True)
    for name in (LOG, LOGS, CHECKPOINT):
        shutil.rmtree(out / name, ignore_errors=True)
    for file in out.iterdir():
        if file.is_file():
            file.unlink()


def discard(out: Path) -> None:
    """Remove a run that came to nothing."""
    _empty(out)
    for left in out.iterdir():
        if left.is_dir() and left.name.startswith((".", LOG)):
            shutil.rmtree(left, ignore_errors=True)
    if not any(out.iterdir()):
        out.rmdir()


def tidy(out: Path, *, keep_log: bool) -> None:
    """Remove what a finished run does not need."""
    shutil.rmtree(out / CHECKPOINT, ignore_errors=True)
    if not keep_log:
        shutil.rmtree(out / LOG, ignore_errors=True)
    remove_parts(out)
