"""The ceiling of a synthetic log: what a scorer that knows the hidden truth reaches on its rows."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bitfold.config import from_json
from bitfold.data.manifest import PARTS
from bitfold.data.splits import random_parts
from bitfold.data.stats import REPORT_FILE
from bitfold.data.synth.log import SynthConfig, generate
from bitfold.data.synth.report import Report
from bitfold.records import read_object, record
from bitfold.runs import metrics

if TYPE_CHECKING:
    from bitfold.data.prepared import PreparedLog


_NODES = 64  # of the quadrature over the noise


def bayes(log: "PreparedLog", part: str) -> dict[str, Any] | None:
    """The AUC and log loss of the scorer that knows the logit before noise, on one part of a log.

    After a random split the part's rows are made again from the log's options, and the scorer is
    held to the labels that the models are held to. After another split the AUC is the one expected
    over the whole log, and there is no log loss.

    Args:
        log: a prepared log.
        part: train, valid or test.

    Returns:
        `auc`, `logloss` and `rows`, which part they speak of; None for a log whose truth is not
        known: one that is not synthetic, has labels of its own making, weights, or fewer negatives.
    """
    reading = log.schema.config
    rule = reading.label_rule
    if (
        not log.manifest.names(log.path, REPORT_FILE)
        or rule is None
        or (rule.column, rule.compare) != ("label", None)
    ):
        return None
    if reading.weight is not None or reading.negative_rate is not None:
        return None
    file = log.file(REPORT_FILE)
    report = record(read_object(file), Report, file)
    if sum(log.rows.values()) != report.rows:
        return None
    split = reading.split_rule
    if split.kind != "random":
        return {"auc": report.bayes_auc, "logloss": None, "rows": "all, expected"}
    config = from_json(SynthConfig, report.config, file)
    labels, logits = _rows(config, part, split.fractions, reading.split_seed)
    if len(labels) != log.rows[part]:
        return None
    chances = clicked(logits, config.noise)
    return {
        "auc": metrics.auc(labels, logits),
        "logloss": metrics.logloss(labels, chances),
        "rows": part,
    }


def _rows(
    config: SynthConfig, part: str, fractions: tuple[float, float, float], seed: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float64]]:
    """Labels and true logits of one part's rows."""
    labels, logits = [], []
    for chunk in generate(config):
        numbers = np.arange(chunk.first, chunk.first + chunk.rows)
        mine = random_parts(numbers, fractions, seed) == PARTS.index(part)
        labels.append(chunk.label[mine])
        logits.append(chunk.logit[mine])
    return np.concatenate(labels), np.concatenate(logits)


def clicked(logits: npt.NDArray[np.float64], noise: float) -> npt.NDArray[np.float64]:
    """The chance of a click when normal noise is still to come: the mean of its sigmoid.

    Example:
        >>> clicked(np.array([0.0, 2.0]), 0.0).round(4).tolist()
        [0.5, 0.8808]
        >>> clicked(np.array([0.0, 2.0]), 1.0).round(4).tolist()
        [0.5, 0.8445]
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    weights = weights / weights.sum()
    out = np.zeros_like(logits)
    for node, weight in zip(nodes, weights, strict=True):
        out += weight / (1.0 + np.exp(-(logits + noise * node)))
    return out
