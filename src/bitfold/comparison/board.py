"""The figures of a comparison's cells, and what they add up to."""

import csv
import io
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitfold.comparison.config import FULL_BUDGET
from bitfold.comparison.records import RESULTS, save
from bitfold.files import atomic

NO_BUDGET = "-"  # of floors and ceilings
CHANCE = 0.5  # the AUC of scores that know nothing
COLUMNS = (
    "method",
    "budget",
    "seed",
    "auc",
    "logloss",
    "gauc",
    "bytes",
    "ratio",
    "training_bytes",
    "rows_per_second",
)


@dataclass(frozen=True)
class Line:
    """A method at a budget, over its seeds. Means; spreads are standard deviations (n - 1).

    `kept` is the mean AUC as a share of the full table's, and `lift` the same of what lies over .5,
    which is what chance has. Where the budget is too small there are
    no figures, and `minimum` is the least number of bytes.
    """

    method: str
    budget: str
    seeds: int = 0
    means: Mapping[str, float] = field(default_factory=dict)
    spreads: Mapping[str, float | None] = field(default_factory=dict)
    kept: float | None = None
    lift: float | None = None
    minimum: int | None = None


def lines(
    results: Sequence[Mapping[str, Any]], refused: Sequence[Mapping[str, Any]] = ()
) -> list[Line]:
    """The results added up, in their order, then what could not be built."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in results:
        groups.setdefault((row["method"], row["budget"]), []).append(row)
    whole = [row["auc"] for row in results if row["budget"] == FULL_BUDGET]
    best = statistics.fmean(whole) if whole else None
    out = []
    for (method, budget), rows in groups.items():
        numbers = {
            name: [row[name] for row in rows if isinstance(row.get(name), int | float)]
            for name in (*COLUMNS[3:], "map_bytes")
        }
        for ranked in map(ranking_figures, rows):
            for name, value in ranked.items():
                numbers.setdefault(name, []).append(value)
        means = {name: statistics.fmean(values) for name, values in numbers.items() if values}
        spreads = {
            name: statistics.stdev(values) if len(values) > 1 else None
            for name, values in numbers.items()
        }
        shares = shares_of(means.get("auc"), best)
        out.append(Line(method, budget, len(rows), means, spreads, *shares))
    out += [Line(row["method"], row["budget"], minimum=row["minimum"]) for row in refused]
    return out


_RANKED = re.compile(r"(?:recall|ndcg)@[1-9][0-9]{0,8}|mrr")


def ranking_figures(row: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a row's ranking by name; empty if nothing was ranked.

    Example:
        >>> ranking_figures({"ranking": {"field": "item", "recall@10": 0.25, "users": 7}})
        {'recall@10': 0.25}
    """
    found = row.get("ranking")
    if not isinstance(found, Mapping):
        return {}
    return {
        name: float(value)
        for name, value in found.items()
        if _RANKED.fullmatch(name)
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value <= 1
    }


def ranking_columns(lines: Sequence["Line"]) -> dict[str, str]:
    """The ranking figures that tables show, at the greatest depth, and their headings.

    Example:
        >>> ranking_columns([Line("hash", "10x", 1, {"recall@5": 0.1, "ndcg@5": 0.1, "mrr": 0.2})])
        {'recall@5': 'recall@5', 'ndcg@5': 'NDCG@5', 'mrr': 'MRR'}
    """
    names = {name for line in lines for name in line.means}
    depths = {int(name.partition("@")[2]) for name in names if name.startswith("recall@")}
    if not depths:
        return {}
    most = max(depths)
    return {f"recall@{most}": f"recall@{most}", f"ndcg@{most}": f"NDCG@{most}", "mrr": "MRR"}


def shares_of(auc: float | None, full: float | None) -> tuple[float | None, float | None]:
    """An AUC as a share of the full table's, and its lift over .5 as a share of that one's lift.

    Example:
        >>> shares_of(0.65, 0.8)
        (0.8125, 0.5)
    """
    if auc is None or not full:
        return None, None
    return auc / full, round((auc - CHANCE) / (full - CHANCE), 12) if full > CHANCE else None


def write_results(
    out: Path,
    results: Sequence[Mapping[str, Any]],
    refused: Sequence[Mapping[str, Any]],
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write `results.json`, with whatever more is known, and `results.csv`."""
    board = {"results": list(results), "refused": list(refused), **(more or {})}
    save(out / "results.json", RESULTS, board)
    results = [{**row, **ranking_figures(row)} for row in results]
    columns = dict.fromkeys(
        name
        for row in results
        for name, value in row.items()
        if not isinstance(value, dict | list) and name not in COLUMNS
    )
    text = io.StringIO()
    table = csv.DictWriter(text, [*COLUMNS, *columns], extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(results)
    with atomic(out / "results.csv") as part:
        part.write_text(text.getvalue(), encoding="utf-8")
