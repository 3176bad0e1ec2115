"""What a run is worth on a log."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitfold.data.frames import Data
from bitfold.data.newness import watch_log
from bitfold.errors import BitfoldError
from bitfold.progress import Progress, silent
from bitfold.ranking.config import check_rank
from bitfold.runs.ids import same_ids
from bitfold.runs.popularity import popularity
from bitfold.runs.scoring import EVALUATION_ROWS, score

if TYPE_CHECKING:
    from bitfold.data.batch import Batch
    from bitfold.data.prepared import PreparedLog
    from bitfold.ranking import RankConfig
    from bitfold.runs.run import Run


def evaluate(
    run: "Run",
    data: Data,
    part: str = "test",
    *,
    ranking: "RankConfig | None" = None,
    progress: Progress | None = None,
    **reading: Any,
) -> dict[str, Any]:
    """What a run is worth on a log with labels.

    Args:
        run: the run.
        data: a prepared log, of which `part` is measured; or raw files or rows in memory, measured
            whole.
        part: train, valid or test.
        ranking: rank all items for each user, too (`bitfold.ranking`); `data` must be a prepared
            log with a training part, which says what the items are and who has what.
        progress: told of the rows done.
        reading: how raw files are read, if not as the run's log was: `format`, `separator`,
            `header`, `columns`, `missing`, `quote`.

    Returns:
        auc, logloss, gauc, calibration, ece, the log loss of the best constant prediction
        (constant_logloss) and the number of rows; NaN for what cannot be said;
        with `ranking` its figures under `ranking`, and those of popularity under `floors`.

    Raises:
        BitfoldError: a bad run, rows without labels, a log prepared with other ids, or a part
            without rows.
    """
    total: int | None = None
    log = prepared_log(data)
    if ranking is not None and log is None:
        raise BitfoldError(
            "a ranking needs the prepared log that the run was trained on",
            got="raw rows, which do not tell the items and who has them",
            expected="a prepared log with its training part",
            fix="prepare the log with bitfold prepare, and train on that",
        )
    if ranking is not None and log is not None:
        check_rank(log.schema.config, ranking)
    if log is not None:
        same_ids(log.schema, run.schema)
        batches: Iterable[Batch] = log.batches(part, EVALUATION_ROWS)
        watch_log(log, part, run.schema)
        total = log.rows[part]
        if run.dense is not None:
            batches = map(run.dense.apply, batches)
    else:
        batches = run.batches(data, EVALUATION_ROWS, **reading)
    scores = score(
        run.model,
        batches,
        negative_rate=run.negative_rate,
        device=run.device,
        stage="evaluating",
        total=total,
        progress=progress or silent,
    )
    rows = len(scores.predictions)
    if rows == 0:
        raise BitfoldError(
            "there is nothing to evaluate", got=f"no rows in the {part} part", fix="choose another"
        )
    figures: dict[str, Any] = scores.summary(run.negative_rate) | {
        "constant_logloss": scores.constant_logloss(run.negative_rate),
        "rows": rows,
    }
    return figures if ranking is None else figures | _ranked(run, log, part, ranking, progress)


def _ranked(
    run: "Run",
    log: "PreparedLog | None",
    part: str,
    config: "RankConfig",
    progress: Progress | None,
) -> dict[str, Any]:
    """The ranking of a run's model, and the floor beside it."""
    from bitfold.ranking import Ranking

    assert log is not None
    made = Ranking.of(log, part, config, progress or silent)
    found = made.by_model(
        run.model, dense=run.dense, device=run.device, progress=progress or silent
    )
    floor = popularity(log, part, progress or silent) or {"field": config.field}
    floor |= {"ranking": made.by_popularity()}
    return {"ranking": found, "floors": {"popularity": floor}}


def prepared_log(data: Data) -> "PreparedLog | None":
    """The prepared log that `data` names or is; None for whatever else."""
    from bitfold.data.folder import looks_prepared
    from bitfold.data.prepared import PreparedLog

    if isinstance(data, PreparedLog):
        return data
    if isinstance(data, list | tuple) and len(data) == 1:
        data = data[0]
    if isinstance(data, str | Path) and looks_prepared(Path(data)):
        return PreparedLog(data)
    return None
