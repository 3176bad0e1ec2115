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

from bitfold.comparison.board import CHANCE, NO_BUDGET, Line, ranking_figures, shares_of
from bitfold.comparison.config import FULL, FULL_BUDGET, Cell, Variant
from bitfold.comparison.records import FLOORS, read_floors, save
from bitfold.progress import Progress

if TYPE_CHECKING:
    from bitfold.data.prepared import PreparedLog
    from bitfold.ranking import RankConfig
    from bitfold.training import TrainConfig

FILE = "floors.json"
FAR = 1.2  # times a constant's log loss: no figure of a model that has learned
LOGISTIC = Variant("logistic regression", FULL)


def logistic_cell(train: "TrainConfig") -> tuple[Cell, "TrainConfig"]:
    """The cell of logistic regression, which has one seed, and its options of training."""
    training = replace(
        train, method=FULL, budget=None, network="lr", network_set={}, set={}, embedding_sets=1
    )
    return Cell(LOGISTIC, FULL_BUDGET, train.seed), training


def references(
    log: "PreparedLog",
    out: Path,
    logistic: Mapping[str, Any],
    tell: Progress,
    ranked: "RankConfig | None" = None,
) -> dict[str, Any]:
    """What `results.json` holds under `references`: the lines that need no training are measured
    now, or read if they were before.

    Args:
        log: the log that everybody is trained on.
        out: the comparison's directory.
        logistic: the figures of the cell of logistic regression.
        tell: is told of the rows counted.
        ranked: what is ranked by popularity, too.
    """
    from bitfold.comparison.ceiling import bayes
    from bitfold.ranking import Ranking
    from bitfold.runs.popularity import popularity

    names = ("auc", "logloss", "bytes", "lr", "embedding_decay", "seed")
    found: dict[str, Any] = {LOGISTIC.name: {name: logistic[name] for name in names}}
    if "ranking" in logistic:
        found[LOGISTIC.name]["ranking"] = logistic["ranking"]
    if (out / FILE).is_file():
        return found | read_floors(out / FILE)
    part = logistic["part"]
    if part is None:
        return found
    measured = {"popularity": popularity(log, part, tell), "bayes": bayes(log, part)}
    if ranked is not None:
        ranking = {"ranking": Ranking.of(log, part, ranked, tell).by_popularity()}
        measured["popularity"] = (measured["popularity"] or {"field": ranked.field}) | ranking
    save(out / FILE, FLOORS, {name: value for name, value in measured.items() if value})
    return found | read_floors(out / FILE)


def nonsense(figures: Mapping[str, Any]) -> list[str]:
    """What says that a training came to finite nonsense, a sentence each.

    Args:
        figures: `auc`, `logloss`, and `constant_logloss`, that of one constant prediction.

    Example:
        >>> print(*nonsense({"auc": 0.5, "logloss": 0.69, "constant_logloss": 0.69}))
        AUC is .5: all rows have one score. It diverged or overfits: lower --lr, fewer --epochs.
    """
    out = []
    auc, loss, constant = (figures.get(name) for name in ("auc", "logloss", "constant_logloss"))
    if auc is not None and abs(auc - CHANCE) < 1e-9:
        out.append("AUC is .5: all rows have one score.")
    if loss is not None and constant is not None and loss > FAR * constant:
        out.append(
            f"Log loss {loss:.4f} is far above {constant:.4f}, that of one constant prediction."
        )
    if out:
        out[-1] += " It diverged or overfits: lower --lr, fewer --epochs."
    return out


def below(figures: Mapping[str, Any], popular: Mapping[str, Any] | None) -> list[str]:
    """What a model's figures do not reach, a sentence each: chance, and popularity.

    Args:
        figures: `auc`, `logloss`, `constant_logloss`, and `ranking` if there is one.
        popular: the figures of popularity (`auc`, `field`, `ranking`), or None.

    Example:
        >>> below({"auc": 0.61}, {"auc": 0.686, "field": "item"})
        ['AUC 0.6100 is not above the popularity of item (0.6860), which nothing is trained for.']
    """
    out = nonsense(figures)
    auc, floor = figures.get("auc"), (popular or {}).get("auc")
    if auc is not None and auc < CHANCE:
        out.append(
            f"AUC {auc:.4f} is below .5: worse than chance. Look at the label and the split."
        )
    if auc is not None and floor is not None and auc <= floor:
        field = (popular or {}).get("field")
        out.append(
            f"AUC {auc:.4f} is not above the popularity of {field} ({floor:.4f}), which nothing is "
            "trained for."
        )
    mine, theirs = ranking_figures(figures), ranking_figures(popular or {})
    under = [name for name in mine if name in theirs and mine[name] <= theirs[name]]
    if under:
        field = figures["ranking"].get("field", "items")
        said = ", ".join(f"{name} {mine[name]:.4f} ({theirs[name]:.4f})" for name in under)
        out.append(f"Not above ranking by the popularity of {field}: {said}.")
    return out


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
        } | ranking_figures(figures)
        shares = shares_of(means.get("auc"), full_auc)
        out.append(Line(names.get(name, name), NO_BUDGET, 1, means, {}, *shares))
    return out
