"""The whole job of `bitfold train`: from a log to a run."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitfold.data.config import DataConfig
from bitfold.data.memory_log import MemoryLog
from bitfold.errors import BitfoldError, Diverged, memory_told
from bitfold.outputs import Work
from bitfold.progress import Progress, silent
from bitfold.runs import folder as runs
from bitfold.runs.cold import ColdConfig
from bitfold.runs.config import RunConfig
from bitfold.runs.manifest import (
    CHECKPOINT,
    METRICS,
    STREAM,
    is_complete,
    read_metrics,
    verify,
)
from bitfold.runs.options import TrainConfig
from bitfold.runs.run import Run
from bitfold.runs.teaching import TeacherConfig
from bitfold.training import checkpoint, folder
from bitfold.training.cold import check_beside
from bitfold.training.distilling import Teaching
from bitfold.training.job import Job
from bitfold.training.processes import agreed, make_fabric, place_of_process, together
from bitfold.training.resolve import Paths, agree, check_options, run_config

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class RunResult:
    """What a training gave.

    Args:
        path: the run's folder.
        metrics: what metrics.json holds.
        epochs: passes over the training part.
    """

    path: Path
    metrics: dict[str, Any]

    @property
    def epochs(self) -> int:
        """Passes over the training part."""
        return int(self.metrics["epochs"])


def train(
    data_paths: Paths | None,
    data_config: DataConfig | None,
    train_config: TrainConfig | None,
    out: str | Path,
    *,
    resume: bool = False,
    force: bool = False,
    from_run: str | Path | None = None,
    taught: TeacherConfig | None = None,
    cold: ColdConfig | None = None,
    floors: bool = True,
    progress: Progress | None = None,
) -> RunResult:
    """Train a click model on a log, and leave a run in `out`.

    Args:
        data_paths: raw files (paths or patterns), rows in memory, or one prepared log. Raw rows are
            prepared into `out/log` first.
        data_config: how raw rows are read; None for a prepared log, or with `from_run`.
        train_config: how the model is trained; None for the options of `from_run` or of the run
            that is resumed, or else the defaults.
        out: the run's folder.
        resume: go on with the training in `out`, if one was begun; the first three arguments
            may then be None.
        force: replace a run that is in `out`, when the new one is whole. Until then the training
            is in a hidden folder beside it, and `resume` goes on with it.
        from_run: a run to go on from: its schema reads the new rows, its weights are the start.
        taught: who teaches it, if anybody; None: as in the run that is resumed, else nobody.
        cold: what is done for ids with few clicks; None: as in the run that is resumed, else
            nothing.
        floors: measure the popularity of ids beside the model: one more pass over the log, where
            the fields have at most 4 M distinct ids together.
        progress: told of the rows done, with `loss`, `rows_per_second` and `valid_auc`.

    Returns:
        The folder and the metrics. The same options, data and threads give the same weights, bit
        for bit, whether the training was interrupted or not.

    Raises:
        BitfoldError: options, data, budget or `out` that cannot be; what was in `out` is as it was.
    """
    out = Path(out)
    tell = progress or silent
    with _early_group(train_config) as group:
        config = None
        if group is None or group.is_global_zero:
            begun = folder.under_way(out) if resume else out
            _refuse_stream(out, begun if resume else None)
            config = run_config(
                data_paths, data_config, train_config, begun, resume, from_run, taught, cold
            )
            if config is None:
                folder.complete(out)
        if group is not None:
            config = group.broadcast(config)
        if config is None:
            return _finished(out)
        base = runs.load(config.from_run) if config.from_run else None
        if base is not None:
            config = agree(config, base)
        check_options(config.train)
        fabric = make_fabric(config.train)
        check_beside(config, fabric.world_size)
        memory = data_paths if isinstance(data_paths, MemoryLog) else None
        with together(fabric), memory_told():
            teaching = Teaching.of(config, fabric)
            if group is None:  # the processes that were started just now have asked for it
                fabric.broadcast(config)
            _train(
                out, config, base, teaching, fabric, tell, memory, floors,
                resume=resume, force=force,
            )  # fmt: skip
    return _finished(out)


def _refuse_stream(out: Path, begun: Path | None) -> None:
    """Raise if what would be gone on with is a stream."""
    if begun is not None and (begun / STREAM).is_file():
        raise BitfoldError(
            f"{out} is a stream, which has no epochs",
            got="what `bitfold stream` began",
            expected="a training",
            fix=f"go on with `bitfold stream --resume --out {out}`, or name another output",
        )


@contextmanager
def _early_group(words: TrainConfig | None) -> Iterator["Fabric | None"]:
    """The processes that torchrun, or the first of them, has started; None without others.

    The first one alone looks at the folder, since looking puts in order what a killed process left.
    """
    found = place_of_process()
    if found is None or found.world == 1:
        yield None
        return
    words = words or TrainConfig()
    fabric = make_fabric(replace(words, devices=agreed(words.devices)))
    with together(fabric):
        yield fabric


def _train(
    out: Path,
    config: RunConfig,
    base: Run | None,
    teaching: Teaching | None,
    fabric: "Fabric",
    tell: Progress,
    memory: MemoryLog | None,
    floors: bool,
    *,
    resume: bool,
    force: bool,
) -> None:
    """Claim the folder, and train in it."""
    tell = tell if fabric.is_global_zero else silent
    with contextlib.ExitStack() as stack:
        work: Work | None = None
        if fabric.is_global_zero:
            work = stack.enter_context(folder.claim(out, config, resume=resume, force=force))
            folder.sweep(work.folder)
        place = Path(fabric.broadcast(str(work.folder if work else "")))
        try:
            with together(fabric), memory_told():
                if not is_complete(place):
                    Job(
                        place, config, base, fabric, tell, memory, floors, out.name,
                        teaching=teaching,
                    ).run()  # fmt: skip
        except (BitfoldError, OSError) as error:
            # What diverged once diverges again, so there would be nothing to resume.
            kept = checkpoint.exists(place / CHECKPOINT)
            if work is not None and (isinstance(error, Diverged) or (work.fresh and not kept)):
                work.discard()
            raise
        if work is not None:
            folder.tidy(work.folder, keep_log=config.train.keep_log)
            work.finish()
        fabric.barrier()


def _finished(out: Path) -> RunResult:
    return RunResult(out, read_metrics(verify(out).path(METRICS)))
