"""The folder of a stream: a run's, with stream.json from its first moment."""

from contextlib import AbstractContextManager
from pathlib import Path

from bitfold import outputs
from bitfold.data.schema import AGAIN as PREPARE
from bitfold.errors import BitfoldError, remedied
from bitfold.outputs import Work
from bitfold.records import CHECK_PATH
from bitfold.runs.config import RunConfig
from bitfold.runs.manifest import AGAIN as COPY
from bitfold.runs.manifest import CONFIG, LOG, RUN, is_complete
from bitfold.streaming.record import FILE, Record, read
from bitfold.streaming.windows import other_log
from bitfold.training import checkpoint
from bitfold.training import folder as trainings

ANEW = "begin anew with --force"
OTHERS = PREPARE, COPY, CHECK_PATH, checkpoint.ANEW
"""Remedies of what is damaged elsewhere, and not in a stopped stream."""


def claim(
    out: Path, config: RunConfig, record: Record, *, resume: bool, force: bool
) -> AbstractContextManager[Work]:
    """Hold `out` for a stream: begun, or gone on with.

    Raises:
        BitfoldError: there is something else, or a run and neither `resume` nor `force`; or the
            log lies in the output, or the output in it.
    """
    outputs.refuse_overlap(out, config.paths)

    def begin(folder: Path) -> None:
        record.save(folder)
        trainings.write_config(folder, config)

    return outputs.work(out, RUN, begin, resume=resume, force=force, ended=is_complete)


def begun(out: Path) -> tuple[RunConfig, Record] | None:
    """The options and the record of the stream that `resume` would go on with, if there is one.

    Raises:
        BitfoldError: there is a run that is no stream.
    """
    place = trainings.under_way(out)
    with remedied(ANEW, *OTHERS):
        config = trainings.read_config(place)
    if config is None:
        if (place / FILE).is_file():
            raise BitfoldError(
                f"{out} lacks a file",
                got=f"no {CONFIG}",
                expected=f"{CONFIG} beside {FILE}",
                fix=ANEW,
            )
        return None
    if not (place / FILE).is_file():
        raise BitfoldError(
            f"{out} is no stream",
            got=f"a run of `bitfold train`, without {FILE}, or a stream that has lost it",
            expected="what `bitfold stream` began",
            fix="name another --out, or go on with `bitfold train --resume`; of a stream, "
            f"put {FILE} back, or {ANEW}",
        )
    return config, read(place)


def check_same(before: tuple[RunConfig, Record], config: RunConfig, asked: Record) -> None:
    """Raise unless two streams come to the same weights.

    Raises:
        BitfoldError: an option differs, or the log has changed.
    """
    was = before[1]
    for name in ("window", "passes"):
        if getattr(was, name) != getattr(asked, name):
            raise BitfoldError(
                f"the stream to resume was begun with another {name}",
                got=getattr(asked, name),
                expected=getattr(was, name),
                fix=f"say {name} as it was, or start anew with --force",
            )
    for name, value in asked.beside.items():
        if was.beside.get(name, value) != value:
            raise BitfoldError(
                f"the stream to resume was begun with another {name}",
                got=value,
                expected=was.beside[name],
                fix=f"say {name} as it was, or start anew with --force",
            )
    trainings.check_same(before[0], config)
    if [list(each) for each in was.inputs] != [list(each) for each in asked.inputs]:
        changed = [each for each in asked.inputs if list(each) not in map(list, was.inputs)]
        raise other_log(
            ", ".join(str(each[0]) for each in changed) + " of another size or time"
            if changed
            else f"{len(asked.inputs)} files",
            f"{len(was.inputs)} files, unchanged",
        )


def sweep(folder: Path) -> None:
    """Remove what a killed process left half written."""
    trainings.sweep(folder)
    if (folder / LOG).is_dir():
        outputs.sweep(folder / LOG)
