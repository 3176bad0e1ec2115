"""What a method keeps of the full table's quality, and of its lead over the floors."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LEAST_LEAD = 0.005
LEAST_ERRORS = 3.0
"""The lead over logistic regression is a yardstick only if it is above both: more AUC than this,
and more standard errors than this. A share of a small and uncertain number says nothing."""

Row = Mapping[str, Any]


def auc_error(auc: float, clicks: int, others: int) -> float:
    """The standard error of an AUC from the finite number of rows, by Hanley and McNeil (1982).

    Args:
        auc: measured.
        clicks: positive rows.
        others: negative rows.
    """
    both_above = auc / (2 - auc)
    both_below = 2 * auc**2 / (1 + auc)
    spread = (
        auc * (1 - auc)
        + (clicks - 1) * (both_above - auc**2)
        + (others - 1) * (both_below - auc**2)
    )
    return math.sqrt(max(spread, 0.0) / (clicks * others))


@dataclass(frozen=True)
class Lead:
    """How far the full table is above logistic regression.

    `error` is the standard error of that: of both AUCs from the rows of the test part, taken as
    independent (they share their rows, so it is too large rather than too small), and of the full
    table's mean from its seeds. None where the rows are not known.
    """

    full: float
    floor: float
    error: float | None

    @property
    def size(self) -> float:
        """AUC of the full table less that of logistic regression."""
        return self.full - self.floor

    @property
    def holds(self) -> bool:
        """Whether shares of it may be told."""
        if self.error is None:
            return False
        return self.size > LEAST_LEAD and self.size > LEAST_ERRORS * self.error


def lead_of(full: Sequence[Row], floor: Row) -> Lead:
    """The lead of the full table's seeds over the cell of logistic regression."""
    aucs = [row["auc"] for row in full]
    mean = statistics.fmean(aucs)
    if "clicks" not in full[0]:
        return Lead(mean, floor["auc"], None)
    clicks = full[0]["clicks"]
    others = full[0]["rows"]["test"] - clicks
    parts = [auc_error(auc, clicks, others) for auc in (mean, floor["auc"])]
    if len(aucs) > 1:
        parts.append(statistics.stdev(aucs) / math.sqrt(len(aucs)))
    return Lead(mean, floor["auc"], math.hypot(*parts))


@dataclass(frozen=True)
class Kept:
    """A method at a budget over its seeds, as shares of the full table."""

    method: str
    budget: str
    seeds: int
    bytes: int
    auc: float
    deviation: float | None
    of_auc: float | None
    of_lift: float | None
    of_lead: float | None


def kept_of(rows: Sequence[Row], full_auc: float | None, lead: Lead | None) -> Kept:
    """Add up the seeds of one method and budget.

    Args:
        rows: its cells.
        full_auc: the full table's mean AUC, None if it is not measured.
        lead: over logistic regression, None if it is not measured; used only where it holds.
    """
    aucs = [row["auc"] for row in rows]
    mean = statistics.fmean(aucs)
    return Kept(
        rows[0]["method"],
        rows[0]["budget"],
        len(rows),
        rows[0]["bytes"],
        mean,
        statistics.stdev(aucs) if len(aucs) > 1 else None,
        mean / full_auc if full_auc else None,
        (mean - 0.5) / (full_auc - 0.5) if full_auc and full_auc > 0.5 else None,
        (mean - lead.floor) / lead.size if lead is not None and lead.holds else None,
    )
