"""What papers report of their methods beside what we find on MovieLens-1M."""

from bitfold.comparison.config import FULL

from .boards import AUTO, REPORTED
from .figures import Figures, difference, figure, link, paired, table
from .sitting import Sitting


def is_reported(name: str) -> bool:
    """Whether a board holds a paper's figure against ours."""
    return name.endswith("-reported")


def reported(sitting: Sitting) -> str:
    """The section; empty while nothing is measured."""
    rows = []
    for board in filter(lambda each: is_reported(each.name), sitting.boards.values()):
        (method,), (budget,) = board.rivals, board.budgets
        found = Figures(sitting, board)
        line, auto = found.line(method, budget), found.line("auto", budget)
        if line is None:
            continue
        full = {int(row["seed"]): row for row in found.full if row["method"] == FULL}
        rows.append(
            [
                f"[{method}](methods/{method}.md)", REPORTED[method][1], budget,
                f"{line.bytes:,}", figure(line.auc, line.deviation),
                difference(paired(found.rows(method, budget), full)),
                figure(auto.auc, auto.deviation) if auto else "-", str(line.seeds),
                link(found.records[AUTO], "results/"),
            ]
        )  # fmt: skip
    if not rows:
        return ""
    heads = ("method", "reported", "ratio", "bytes", "ours", "less the full table", "auto there")
    return (
        "## What papers report, and what we find\n\nMovieLens-1M, seven fields, the training of "
        "the tables above: at the ratio that a paper speaks of, all bytes counted, indices and "
        "pointers too. Test AUC; the difference is paired over seeds, with its 95 % interval. "
        "Their logs are others, most of them larger.\n\n" + table((*heads, "seeds", "from"), rows)
    )
