"""Scores of batches and of raw rows: the model's probabilities, corrected."""

from collections.abc import Iterable, Iterator, Mapping, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from bitfold.data.frames import Data, paths_of
from bitfold.data.single import FEW
from bitfold.errors import BitfoldError
from bitfold.nets.model import ClickModel
from bitfold.progress import Progress, silent
from bitfold.runs import metrics

if TYPE_CHECKING:
    from bitfold.data.batch import Batch
    from bitfold.runs.run import Run

T = TypeVar("T")

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
    return probabilities(model(batch), negative_rate)


def probabilities(logits: torch.Tensor, negative_rate: float | None) -> npt.NDArray[np.float32]:
    """Probabilities `[B]` of logits `[B]`, corrected for down-sampled negatives."""
    return correct(torch.sigmoid(logits.double()).cpu().numpy(), negative_rate).astype(np.float32)


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


def scores(
    run: "Run", data: Data, batch_size: int = EVALUATION_ROWS, **reading: Any
) -> Iterator[npt.NDArray[np.float32]]:
    """Probabilities of raw rows, batch by batch, in the input's order.

    While the model scores a batch, a thread reads the next; a few rows need no thread, and wait
    for no kernels.
    """
    batches = run.batches(data, batch_size, fields_only=True, **reading)
    if is_small(data):
        for batch in batches:
            yield _few(run, batch)
        return
    for batch in ahead(batches):
        yield predict_batch(run.model, batch.to(run.device), run.negative_rate)


def _few(run: "Run", batch: "Batch") -> npt.NDArray[np.float32]:
    later = run._later
    if later is None:
        return predict_batch(run.model, batch.to(run.device), run.negative_rate)
    return later(lambda: predict_batch(run.model, batch, run.negative_rate))


def is_small(data: Data) -> bool:
    """Whether the data are a few rows at most, as far as a look at their length tells."""
    if isinstance(data, Mapping):
        return all(not hasattr(each, "__len__") or len(each) <= FEW for each in data.values())
    if isinstance(data, str | Path) or not isinstance(data, Sized):
        return False
    return len(data) <= FEW and not paths_of(data)


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, the next of which a thread makes while one is used."""
    end = object()
    with ThreadPoolExecutor(1, "bitfold-reading") as pool:
        following = pool.submit(next, items, end)
        while (item := following.result()) is not end:
            following = pool.submit(next, items, end)
            yield item  # type: ignore[misc]
