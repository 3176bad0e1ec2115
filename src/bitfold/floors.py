"""Floors and ceilings: what a comparison's figures lie between.

- *logistic regression*: one weight an id, nothing crossed; a full table under the network `lr`,
  trained as everybody is, with the same grid.
- *popularity*: the click rate of one field's id in the training part; the field is the one whose
  rates have the best validation AUC. Nothing is trained.
- *Bayes*: the hidden truth, where the log is synthetic. No model can pass it.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitfold.board import FULL, FULL_BUDGET, NO_BUDGET, Cell, Line, Variant, shares_of
from bitfold.files import read_json, write_json
from bitfold.progress import Progress

if TYPE_CHECKING:
    from bitfold.data.prepared import PreparedLog
    from bitfold.training import TrainConfig

FILE = "floors.json"
LOGISTIC = Variant("logistic regression", FULL)


def logistic_cell(train: "TrainConfig") -> tuple[Cell, "TrainConfig"]:
    """The cell of logistic regression, which has one seed, and its words of training."""
    words = replace(train, method=FULL, budget=None, network="lr", network_set={}, set={})
    return Cell(LOGISTIC, FULL_BUDGET, train.seed), words


def references(
    log: "PreparedLog", out: Path, logistic: Mapping[str, Any], tell: Progress
) -> dict[str, Any]:
    """What `results.json` holds under `references`: the lines that need no training are measured
    now, or read if they were before.

    Args:
        log: the log that everybody is trained on.
        out: the comparison's directory.
        logistic: the figures of the cell of logistic regression.
        tell: is told of the rows counted.
    """
    from bitfold.data.bayes import bayes
    from bitfold.popularity import popularity

    names = ("auc", "logloss", "bytes", "lr", "embedding_decay", "seed")
    found: dict[str, Any] = {LOGISTIC.name: {name: logistic[name] for name in names}}
    if (out / FILE).is_file():
        return found | read_json(out / FILE)
    part = logistic["part"]
    if part is None:
        return found
    measured = {"popularity": popularity(log, part, tell), "bayes": bayes(log, part)}
    write_json(out / FILE, {name: value for name, value in measured.items() if value})
    return found | read_json(out / FILE)


def reference_lines(found: Mapping[str, Any], full_auc: float | None) -> list[Line]:
    """The references as lines of the board; `kept` is their share of the full table's AUC."""
    names = {
        "popularity": f"popularity of {found.get('popularity', {}).get('field')}",
        "bayes": "Bayes: the truth",
    }
    out = []
    for name, figures in found.items():
        means = {
            key: figures[key] for key in ("auc", "logloss", "bytes") if figures.get(key) is not None
        }
        shares = shares_of(means.get("auc"), full_auc)
        out.append(Line(names.get(name, name), NO_BUDGET, 1, means, {}, *shares))
    return out
