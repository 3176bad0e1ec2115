"""Popularity: the click rate of one field's id in the training part. A floor without training."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bitfold.progress import Progress, silent
from bitfold.runs import metrics
from bitfold.runs.scoring import Scores, correct

if TYPE_CHECKING:
    from bitfold.data.batch import Batch
    from bitfold.data.prepared import PreparedLog

SMOOTHING = 10.0
"""Rows of the mean click rate that are added to every id: rare ids stay near the mean."""

MOST_IDS = 1 << 22
"""Distinct ids of all fields up to which `train` counts them (100 MB); `compare` always does."""

_ROWS = 1 << 16

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Rates:
    """Rows and clicks of each id of one field; 24 bytes an id.

    Example:
        >>> rates = Rates()
        >>> rates.add(np.array([7, 7, 9]), np.array([1.0, 1.0, 0.0]), np.ones(3))
        >>> rates.of(np.array([7, 9, 5]), mean=0.5).round(3).tolist()  # 7/12, 5/11, unseen
        [0.583, 0.455, 0.5]
    """

    def __init__(self) -> None:
        self._keys: Ids = np.empty(0, np.int64)
        self._sums: Floats = np.empty((2, 0))
        self._pending: list[tuple[Ids, Floats]] = []
        self._waiting = 0

    def add(self, ids: Ids, labels: Floats, weights: Floats) -> None:
        """Count some rows: ids, labels and weights `[n]`."""
        keys, sums = _summed(ids, np.stack([weights, weights * labels]))
        self._pending.append((keys, sums))
        self._waiting += len(keys)
        # Merging costs the size of what is kept, so it waits until as much has come.
        if self._waiting > max(len(self._keys), _ROWS):
            self._merge()

    def _merge(self) -> None:
        parts = [(self._keys, self._sums), *self._pending]
        self._pending, self._waiting = [], 0
        keys = np.concatenate([keys for keys, _ in parts])
        self._keys, self._sums = _summed(keys, np.concatenate([sums for _, sums in parts], axis=1))

    def of(self, ids: Ids, mean: float) -> Floats:
        """Smoothed click rates `[n]`: `(clicks + 10 mean) / (rows + 10)`; the mean if unseen."""
        if self._pending:
            self._merge()
        rows, clicks = np.zeros(len(ids)), np.zeros(len(ids))
        if len(self._keys):
            place = np.searchsorted(self._keys, ids)
            place[place == len(self._keys)] = 0
            met = self._keys[place] == ids
            rows[met], clicks[met] = self._sums[:, place[met]]
        return (clicks + SMOOTHING * mean) / (rows + SMOOTHING)


def _summed(ids: Ids, values: Floats) -> tuple[Ids, Floats]:
    """The distinct ids, sorted, and the sums of their columns of `values` `[2, n]`."""
    keys, place = np.unique(ids, return_inverse=True)
    return keys, np.stack([np.bincount(place, row, minlength=len(keys)) for row in values])


def popularity(log: "PreparedLog", part: str, progress: Progress = silent) -> dict[str, Any] | None:
    """Score rows by the click rate that one field's id had in the training part.

    Every field is tried; the one with the best AUC on the validation part scores `part`. A row of
    several values has the mean of their rates, one without any the mean of all rows.

    Args:
        log: a prepared log.
        part: the part that is measured.
        progress: is told of the rows counted.

    Returns:
        `auc`, `logloss`, `field` and `smoothing`; None without a validation part or fields.
    """
    names = log.schema.field_names
    if not names or not log.rows.get("valid"):
        return None
    fields = [Rates() for _ in names]
    clicks = total = done = 0.0
    for batch in log.batches("train", _ROWS):
        labels, weights = _labels(batch), _weights(batch)
        clicks += float((labels * weights).sum())
        total += float(weights.sum())
        for number, rates in enumerate(fields):
            ids, row = _column(batch, number)
            rates.add(ids, labels[row], weights[row])
        done += batch.rows
        progress("popularity", int(done), log.rows["train"])
    mean = clicks / total if total else 0.5
    aucs = _aucs(log, fields, mean)
    best = int(np.nanargmax(aucs)) if not np.isnan(aucs).all() else 0
    rate = log.schema.config.negative_rate
    scores, columns = [], []
    for batch in log.batches(part, _ROWS):
        scores.append(_scores(batch, best, fields[best], mean))
        columns.append((_labels(batch), _weights(batch)))
    labels, weights = (np.concatenate(column) for column in zip(*columns, strict=True))
    predictions = correct(np.concatenate(scores), rate).astype(np.float32)
    found = Scores(predictions, labels.astype(np.float32), weights.astype(np.float32), None)
    figures = found.summary(rate)
    return {
        "auc": figures["auc"],
        "logloss": figures["logloss"],
        "field": names[best],
        "smoothing": SMOOTHING,
    }


def _aucs(log: "PreparedLog", fields: list[Rates], mean: float) -> Floats:
    """The AUC of each field's rates on the validation part."""
    scores: list[list[npt.NDArray[np.float32]]] = [[] for _ in fields]
    labels, weights = [], []
    for batch in log.batches("valid", _ROWS):
        labels.append(_labels(batch))
        weights.append(_weights(batch))
        for number, rates in enumerate(fields):
            scores[number].append(_scores(batch, number, rates, mean).astype(np.float32))
    y, w = np.concatenate(labels), np.concatenate(weights)
    return np.array([metrics.auc(y, np.concatenate(each), w) for each in scores])


def _scores(batch: "Batch", number: int, rates: Rates, mean: float) -> Floats:
    """The score of each row `[B]`."""
    ids, row = _column(batch, number)
    values = rates.of(ids, mean)
    if batch.offsets is None:
        return values
    count = np.bincount(row, minlength=batch.rows)
    total = np.bincount(row, values, minlength=batch.rows)
    return np.where(count > 0, total / np.maximum(count, 1), mean)


def _column(batch: "Batch", number: int) -> tuple[Ids, npt.NDArray[np.int64]]:
    """The ids of one field, and the row of each."""
    if batch.offsets is None:
        return np.ascontiguousarray(batch.ids[:, number].numpy()), np.arange(batch.rows)
    offsets = batch.offsets[number * batch.rows : (number + 1) * batch.rows + 1].numpy()
    ids = batch.ids[int(offsets[0]) : int(offsets[-1])].numpy()
    return ids, np.repeat(np.arange(batch.rows), np.diff(offsets))


def _labels(batch: "Batch") -> Floats:
    assert batch.labels is not None
    return batch.labels.numpy().astype(np.float64)


def _weights(batch: "Batch") -> Floats:
    if batch.weights is None:
        return np.ones(batch.rows)
    return batch.weights.numpy().astype(np.float64)
