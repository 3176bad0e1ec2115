"""The whole job of `bitfold stream`: from a log in time order to a run, scored on the way.

OUT/stream.json     a line a window: quality, bytes, churn, share of new ids
OUT/stream.html     the page, if the caller gives what draws it
OUT/config.json ... an ordinary run's files, once the stream has ended (`bitfold.runs.folder`)
OUT/checkpoint/     while it goes on: at the end of each window, and every so many steps
OUT/log/            the windows that wait, each prepared; all of them with `keep_log`
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from bitfold.data.config import DataConfig
from bitfold.data.memory_log import MemoryLog
from bitfold.data.prepare import describe_inputs
from bitfold.errors import BitfoldError, Diverged, memory_told
from bitfold.method.registry import plugin_files
from bitfold.notes import note
from bitfold.outputs import Work
from bitfold.progress import Progress, silent
from bitfold.runs import folder as runs
from bitfold.runs.config import RunConfig
from bitfold.runs.manifest import CHECKPOINT, is_complete, verify
from bitfold.runs.options import TrainConfig
from bitfold.runs.plugins import check_plugins
from bitfold.runs.run import Run
from bitfold.showing import Shown
from bitfold.streaming import folder
from bitfold.streaming.aligned import check_aligned
from bitfold.streaming.config import StreamConfig, reading_of, training_of
from bitfold.streaming.cutting import Source
from bitfold.streaming.expand import expanding
from bitfold.streaming.job import StreamJob, check_method
from bitfold.streaming.record import PAGE, Course, Record, read
from bitfold.training import checkpoint
from bitfold.training import folder as trainings
from bitfold.training.processes import make_fabric, only_one
from bitfold.training.resolve import check_options

PageOf: TypeAlias = Callable[[Path, Path], Path | None]
"""Draws the page of a stream in one folder, which will be called as the other; its path, or None
where it cannot be drawn."""


@dataclass(frozen=True, repr=False)
class Stream(Shown):
    """What a stream found; `to_frame()` has a row a window.

    Args:
        path: its folder, which is a run's.
        record: what stream.json holds.
    """

    path: Path
    record: Record

    @property
    def course(self) -> Course:
        """The method, with its windows: `.auc` is their mean, `.lines` are all of them."""
        return self.record.courses[0]

    @property
    def page(self) -> Path | None:
        """The page; None where it could not be drawn."""
        return self.path / PAGE if (self.path / PAGE).is_file() else None

    @cached_property
    def run(self) -> Run:
        """The model at the end of the stream, loaded."""
        return runs.load(self.path)

    def records(self) -> list[dict[str, Any]]:
        """A row a window."""
        rows: list[dict[str, Any]] = [msgspec.to_builtins(line) for line in self.course.lines]
        for row in rows:
            row |= {f"new_in_{name}": share for name, share in row.pop("new_in").items()}
        return rows

    def _title(self) -> str:
        auc = self.course.auc
        mean = "" if auc is None else f", mean AUC {auc:.4f}"
        return f"Stream in {self.path}: {self.course.title}{mean}"


def stream(
    paths: Source | str | Path,
    data: DataConfig,
    train: TrainConfig,
    config: StreamConfig,
    out: str | Path,
    *,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    page: PageOf | None = None,
) -> Stream:
    """Go through a log window by window: score each, then train on it.

    Args:
        paths: raw files or patterns in time order, or rows in memory.
        data: how they are read.
        train: how each window is trained on.
        config: how the log is cut.
        out: the run's folder.
        resume: go on with the stream in `out`, if one was begun.
        force: replace a run that is in `out`, when the new one is whole.
        progress: told of the rows done, and of the windows.
        page: draws the page, if it can.

    Returns:
        The figures, a line a window. The same options, log and threads give the same figures and
        weights, bit for bit, whether the stream was interrupted or not.

    Raises:
        BitfoldError: options, rows, budget or `out` that cannot be; rows that are not in time
            order; a method that leaves its budget.
    """
    only_one("`bitfold stream`", train.devices)
    out, tell = Path(out), progress or silent
    if isinstance(paths, str | Path):
        paths = [paths]
    data, train = reading_of(data, config.rule), training_of(train, config.passes)
    train = expanding(train, config)
    check_aligned(train, config)
    check_options(train)
    check_method(train.method, train.set)
    named = _named(paths, data)
    options = RunConfig(data, train, named, None, plugin_files())
    inputs = [list(each) for each in describe_inputs(paths, data)]
    record = Record(
        config.window, config.passes, data.time, list(named), inputs, beside=config.beside
    )
    before = folder.begun(out) if resume else None
    if before is not None:
        done = is_complete(trainings.under_way(out))
        check_plugins(out, before[0].plugins, [train.method], same=not done)
        folder.check_same(before, options, record)
        if done:  # killed after its last window, it may lack the page, and be in another place
            place = trainings.under_way(out)
            if not (place / PAGE).is_file():
                _draw(page, place, out)
            trainings.complete(out)
            return _finished(out)
        options, record = before
    with folder.claim(out, options, record, resume=resume, force=force) as work:
        folder.sweep(work.folder)
        try:
            if not is_complete(work.folder):
                fabric = make_fabric(train)
                with memory_told():
                    StreamJob(work.folder, options, config, record, paths, fabric, tell).run()
        except (BitfoldError, OSError) as error:
            _give_up(work, error)
            raise
        _draw(page, work.folder, out)
        trainings.tidy(work.folder, keep_log=options.train.keep_log)
        work.finish()
    return _finished(out)


def _named(paths: Source, data: DataConfig) -> tuple[str, ...]:
    if isinstance(paths, MemoryLog):
        return (paths.fingerprint(data),)
    return tuple(trainings.absolute(path) for path in paths)


def _give_up(work: Work, error: Exception) -> None:
    """Remove what came to nothing: there is no checkpoint, or it would diverge again."""
    kept = checkpoint.exists(work.folder / CHECKPOINT)
    if isinstance(error, Diverged) or (work.fresh and not kept):
        work.discard()


def _draw(page: PageOf | None, place: Path, out: Path) -> None:
    """The page; a stream that has ended is whole without it."""
    if page is None:
        return
    try:
        page(place, out)
    except BitfoldError as error:
        note(f"no page: {error}")


def _finished(out: Path) -> Stream:
    verify(out)
    return Stream(out, read(out))
