"""One cell of a comparison: trained, measured, kept."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitfold.comparison.config import (
    Cell,
)
from bitfold.comparison.folder import CELLS, LOGS, RUNS
from bitfold.comparison.records import CELL, read_cell, save
from bitfold.config import to_json
from bitfold.files import without_nan
from bitfold.progress import Progress

if TYPE_CHECKING:
    from bitfold.comparison.survey import Survey
    from bitfold.data.prepared import PreparedLog
    from bitfold.training import TrainConfig


def kept(out: Path, cell: Cell, training: "TrainConfig") -> dict[str, Any] | None:
    """The figures of a finished cell."""
    path = out / CELLS / f"{cell.slug}.json"
    if not path.is_file():
        return None
    names = {"method": cell.variant.name, "budget": cell.budget, "seed": cell.seed}
    rates = {"lr": training.lr, "embedding_decay": training.embedding_decay}
    return read_cell(path, names | rates)


def survey_of(log: "PreparedLog", tell: Progress) -> "Survey":
    """What the diagnosis of every cell needs of the log."""
    from bitfold.comparison.survey import survey

    tell("reading ids", 0)
    return survey(log)


def trained_cell(
    cell: Cell,
    log: "PreparedLog",
    known: "Survey | None",
    training: "TrainConfig",
    out: Path,
    tell: Progress,
    *,
    keep: bool,
) -> dict[str, Any]:
    """Train one cell and write its figures; without a survey it is not diagnosed."""
    from bitfold.comparison.diagnosis import diagnose
    from bitfold.training import train

    def inside(stage: str, done: int, total: int | None = None, **facts: object) -> None:
        tell(f"{cell.title}: {stage}", done, total, **facts)

    run = out / RUNS / cell.slug
    run.parent.mkdir(exist_ok=True)
    result = train(
        [log.path],
        log.schema.config,
        training,
        run,
        resume=True,
        floors=False,
        progress=inside,
    )
    row = {
        "method": cell.variant.name,
        "budget": cell.budget,
        "seed": cell.seed,
        **without_nan(result.metrics),
        "embedding": cell.variant.method,
        "options": dict(training.set),
        "width": training.vector_width,
        "embedding_sets": training.embedding_sets,
        "network": training.network,
        "lr": training.lr,
        "embedding_decay": training.embedding_decay,
        "data": to_json(log.schema.config),
        **(diagnose(run, log, known, inside) if known is not None else {}),
    }
    if not keep and training.log == "tensorboard":  # before the cell is known as finished
        shutil.copytree(run / LOGS, out / LOGS / cell.slug, dirs_exist_ok=True)
    save(out / CELLS / f"{cell.slug}.json", CELL, row)
    if not keep:
        shutil.rmtree(run)
    return row
