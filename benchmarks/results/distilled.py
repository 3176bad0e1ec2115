"""What a teacher adds: `auto` taught by a full table of its seed, beside plain training."""

from typing import Any

from bitfold.comparison.config import FULL, FULL_BUDGET

from .boards import DISTILL, SHARES, TAUGHT, Board
from .figures import Figures, difference, paired, table
from .sitting import Sitting


def distilled(sitting: Sitting) -> str:
    """The section; empty while nothing is measured."""
    parts = [
        _section(sitting, board) for board in sitting.boards.values() if DISTILL in board.stages
    ]
    return "\n".join(part for part in parts if part)


def _section(sitting: Sitting, board: Board) -> str:
    found = Figures(sitting, board)
    plainly = Figures(sitting, sitting.boards[board.reference or board.name])
    teachers = {int(row["seed"]): row for row in plainly.full if row["method"] == FULL}
    rows = [[FULL_BUDGET, "plain: the teachers", *_figures(teachers), "", ""]] if teachers else []
    for budget in board.budgets:
        plain, soft = plainly.rows("auto", budget), found.rows(next(iter(TAUGHT)), budget)
        if plain:
            rows.append([budget, "plain", *_figures(plain), "", ""])
        for method, title in {**TAUGHT, **SHARES}.items():
            ours = found.rows(method, budget)
            if ours:
                less = difference(paired(ours, soft)) if ours != soft else ""
                rows.append([budget, title, *_figures(ours), difference(paired(ours, plain)), less])
    if not found.cells:
        return ""
    heads = ("budget", "training", "seeds", "test AUC", "least", "most", "log loss", "epochs")
    return (
        f"## Distillation\n\n{board.title}: `auto`, trained plainly (the table of a budget alone), "
        "and taught by a full table of the same seed at its best epoch (`bitfold train --teacher`)."
        " *Learned targets* are those of `--teacher-meta`, after MetaDistiller (Liu et al., ECCV "
        "2020); one training row in 16 is held out to judge them, and not trained on. Mean, least "
        "and most over the seeds, epochs of the best one; the difference is paired, with its 95 % "
        "interval. The training of that table. `python -m benchmarks.results --only "
        f"{board.name}` measures it.\n\n" + table((*heads, "less plain", "less share .5"), rows)
    )


def _figures(rows: dict[int, Any]) -> list[str]:
    def each(name: str) -> list[float]:
        return [row[name] for row in rows.values()]

    aucs, losses, epochs = each("auc"), each("logloss"), each("best_epoch")
    means = [sum(values) / len(values) for values in (aucs, losses, epochs)]
    ends = [f"{min(aucs):.4f}", f"{max(aucs):.4f}"]
    return [str(len(aucs)), f"{means[0]:.4f}", *ends, f"{means[1]:.4f}", f"{means[2]:.1f}"]
