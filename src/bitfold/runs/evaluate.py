"""Scores of batches, and what they are worth."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from bitfold.data.frames import Data
from bitfold.data.newness import watch_log
from bitfold.errors import BitfoldError
from bitfold.nets.model import ClickModel
from bitfold.progress import Progress, silent
from bitfold.ranking.config import check_rank
from bitfold.runs import metrics

if TYPE_CHECKING:
    from bitfold.data.batch import Batch
    from bitfold.data.prepared import PreparedLog
    from bitfold.data.schema import Schema
    from bitfold.data.vocabulary import Vocabulary
    from bitfold.ranking import RankConfig
    from bitfold.runs.run import Run

EVALUATION_ROWS = 8192  # rows in a batch when nothing is trained


@dataclass(frozen=True)
class Scores:
    """The predictions of some rows, in the rows' order, and what is known of the rows.

    All arrays are `[B]` or None: `predictions` float32 probabilities, `labels` float32,
    `weights` float32, `groups` int64.
    """

    predictions: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32] | None
    weights: npt.NDArray[np.float32] | None
    groups: npt.NDArray[np.int64] | None

    def summary(self, negative_rate: float | None = None) -> dict[str, float]:
        """The measures of `bitfold.runs.metrics.summary`.

        Args:
            negative_rate: the share of negatives that the log kept. Each of them then counts for
                `1 / negative_rate` rows, so that the log weighs what it did before.

        Raises:
            BitfoldError: the rows have no labels.
        """
        if self.labels is None:
            raise BitfoldError(
                "these rows have no labels", got="no label column", expected="labels to judge by"
            )
        weights = self.counted(negative_rate)
        return metrics.summary(self.labels, self.predictions, weights, self.groups)

    def constant_logloss(self, negative_rate: float | None = None) -> float:
        """The log loss of the best constant prediction on these rows."""
        assert self.labels is not None, "summary looks first"
        return metrics.constant_logloss(self.labels, self.counted(negative_rate))

    def counted(self, negative_rate: float | None = None) -> npt.NDArray[Any] | None:
        """What each row counts for, `[B]`; None if all count the same."""
        if self.labels is None or negative_rate is None or negative_rate == 1:
            return self.weights
        scale = np.where(self.labels > 0.5, 1.0, 1.0 / negative_rate)
        return scale if self.weights is None else self.weights * scale


def correct(
    predictions: npt.NDArray[np.float64], negative_rate: float | None
) -> npt.NDArray[np.float64]:
    """Undo the down-sampling of negatives: `p / (p + (1 - p) / negative_rate)`.

    Source: He et al., Practical Lessons from Predicting Clicks on Ads at Facebook, 2014.

    Example:
        >>> correct(np.array([0.5]), 0.1).round(4).tolist()
        [0.0909]
    """
    if negative_rate is None or negative_rate == 1:
        return predictions
    return predictions / (predictions + (1 - predictions) / negative_rate)


@torch.no_grad()
def predict_batch(
    model: ClickModel, batch: "Batch", negative_rate: float | None = None
) -> npt.NDArray[np.float32]:
    """Probabilities `[B]` of one batch, corrected for down-sampled negatives."""
    probabilities = torch.sigmoid(model(batch).double()).cpu().numpy()
    return correct(probabilities, negative_rate).astype(np.float32)


def score(
    model: ClickModel,
    batches: Iterable["Batch"],
    *,
    negative_rate: float | None = None,
    device: torch.device | str = "cpu",
    stage: str = "scoring",
    total: int | None = None,
    progress: Progress = silent,
) -> Scores:
    """Score every row; the model's mode (train or eval) is put back afterwards.

    What is kept is 4 bytes a row for the prediction, 4 for the label, 4 for a weight and 8 for a
    group.
    """
    training = model.training
    model.eval()
    columns: dict[str, list[Any]] = {
        name: [] for name in ("predictions", "labels", "weights", "groups")
    }
    done = 0
    try:
        for batch in batches:
            batch = batch.to(device)
            columns["predictions"].append(predict_batch(model, batch, negative_rate))
            for name in ("labels", "weights", "groups"):
                values = getattr(batch, name)
                if values is not None:
                    columns[name].append(values.cpu().numpy())
            done += len(columns["predictions"][-1])
            progress(stage, done, total)
    finally:
        model.train(training)
    if not columns["predictions"]:
        return Scores(np.zeros(0, np.float32), np.zeros(0, np.float32), None, None)
    joined = {name: np.concatenate(parts) if parts else None for name, parts in columns.items()}
    return Scores(**joined)  # type: ignore[arg-type]


def evaluate(
    run: "Run | str | Path",
    data: Data,
    part: str = "test",
    *,
    ranking: "RankConfig | None" = None,
    progress: Progress | None = None,
    **reading: Any,
) -> dict[str, Any]:
    """What a run is worth on a log with labels.

    Args:
        run: a run, or its folder.
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
    from bitfold.runs.run import load

    loaded = load(run) if isinstance(run, str | Path) else run
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
        same_ids(log.schema, loaded.schema)
        batches: Iterable[Batch] = log.batches(part, EVALUATION_ROWS)
        watch_log(log, part, loaded.schema)
        total = log.rows[part]
        if loaded.dense is not None:
            batches = map(loaded.dense.apply, batches)
    else:
        batches = loaded.batches(data, EVALUATION_ROWS, **reading)
    scores = score(
        loaded.model,
        batches,
        negative_rate=loaded.negative_rate,
        device=next(loaded.model.parameters()).device,
        stage="evaluating",
        total=total,
        progress=progress or silent,
    )
    rows = len(scores.predictions)
    if rows == 0:
        raise BitfoldError(
            "there is nothing to evaluate", got=f"no rows in the {part} part", fix="choose another"
        )
    figures: dict[str, Any] = scores.summary(loaded.negative_rate) | {
        "constant_logloss": scores.constant_logloss(loaded.negative_rate),
        "rows": rows,
    }
    return figures if ranking is None else figures | _ranked(loaded, log, part, ranking, progress)


def _ranked(
    run: "Run",
    log: "PreparedLog | None",
    part: str,
    words: "RankConfig",
    progress: Progress | None,
) -> dict[str, Any]:
    """The ranking of a run's model, and the floor beside it."""
    from bitfold.ranking import Ranking
    from bitfold.runs.popularity import popularity

    assert log is not None
    made = Ranking.of(log, part, words, progress or silent)
    device = next(run.model.parameters()).device
    found = made.by_model(run.model, dense=run.dense, device=device, progress=progress or silent)
    floor = popularity(log, part, progress or silent) or {"field": words.field}
    floor |= {"ranking": made.by_popularity()}
    return {"ranking": found, "floors": {"popularity": floor}}


def prepared_log(data: Data) -> "PreparedLog | None":
    """The prepared log that `data` names or is; None for whatever else."""
    from bitfold.data.prepared import PreparedLog, looks_prepared

    if isinstance(data, PreparedLog):
        return data
    if isinstance(data, list | tuple) and len(data) == 1:
        data = data[0]
    if isinstance(data, str | Path) and looks_prepared(Path(data)):
        return PreparedLog(data)
    return None


READING = (
    "format", "columns", "header", "separator", "missing", "label", "group", "time", "weight",
    "negative_rate", "split", "split_seed", "item", "item_fields", "negatives", "negatives_by",
    "negatives_seed",
)  # fmt: skip
"""The words of a log that change neither ids nor numbers."""


def same_ids(log: "Schema", run: "Schema") -> None:
    """Raise unless a prepared log has the ids and numbers that a run was trained on."""
    ours, theirs = log.to_json(), run.to_json()
    for name, expected in theirs["data"].items():
        if name not in READING and ours["data"][name] != expected:
            raise BitfoldError(
                f"the log was prepared with another {name} than the run's",
                got=ours["data"][name],
                expected=expected,
                fix="give the raw files, which are then read as the run reads them",
            )
    fitted = run.config.ids == "vocabulary" or bool(run.numeric_names)
    fitted = fitted or any(info.kind == "bucket" for info in run.fields)
    if fitted and (
        ours["numeric"] != theirs["numeric"]
        or [info.edges for info in log.fields] != [info.edges for info in run.fields]
        or not _same_map(log.vocabulary, run.vocabulary)
    ):
        raise BitfoldError(
            "the log was prepared from other rows than the run's",
            got="another vocabulary, or other constants of numeric columns",
            expected="those of the run",
            fix="give the raw files, which are then read as the run reads them",
        )


def _same_map(one: "Vocabulary | None", other: "Vocabulary | None") -> bool:
    if one is None or other is None:
        return one is other
    pairs = zip(one.maps, other.maps, strict=True)
    return all(
        a is b
        or (
            a is not None
            and b is not None
            and np.array_equal(a.keys, b.keys)
            and np.array_equal(a.ids, b.ids)
        )
        for a, b in pairs
    )
