"""The figures of a board for the page, and how numbers are written in it."""

from collections.abc import Sequence
from typing import Any

from bitfold.comparison.config import FULL
from bitfold.comparison.differences import interval
from bitfold.comparison.floors import LOGISTIC

from .boards import Board
from .kept import Kept, Lead, kept_of, lead_of
from .record import Record, known_cells
from .sitting import Sitting

Row = dict[str, Any]
CLAIM = 0.99


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def share(value: float | None) -> str:
    """A share in percent; a dash where there is none."""
    return "-" if value is None else f"{100 * value:.1f} %"


def figure(mean: float, deviation: float | None) -> str:
    """An AUC and its deviation."""
    return f"{mean:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")


class Figures:
    """The figures of a board: its cells, and the full table and floor it is held against."""

    def __init__(self, sitting: Sitting, board: Board) -> None:
        self.records = {stage: sitting.record(board, stage) for stage in board.stages}
        self.cells = known_cells(list(self.records.values()))
        base = sitting.boards[board.reference] if board.reference else board
        against = known_cells([sitting.record(base, stage) for stage in base.stages])
        self.full = [row for (method, _, _), row in sorted(against.items()) if method == FULL]
        floor = [row for (method, _, _), row in against.items() if method == LOGISTIC.name]
        self.lead: Lead | None = lead_of(self.full, floor[0]) if self.full and floor else None
        self.full_line = kept_of(self.full, None, None) if self.full else None

    def rows(self, method: str, budget: str) -> dict[int, Row]:
        """The cells of a method at a budget, by seed."""
        return {
            seed: row
            for (name, size, seed), row in sorted(self.cells.items())
            if (name, size) == (method, budget)
        }

    def line(self, method: str, budget: str) -> Kept | None:
        """A method at a budget over its seeds."""
        rows = list(self.rows(method, budget).values())
        mean = self.full_line.auc if self.full_line else None
        return kept_of(rows, mean, self.lead) if rows else None

    def refused(self, method: str, budget: str) -> Row | None:
        """Why a method cannot be built at a budget."""
        rows = [row for record in self.records.values() for row in record.refused]
        return next(
            (row for row in rows if (row["method"], row["budget"]) == (method, budget)), None
        )

    def records_named(self) -> str:
        """Links to the files that hold the figures."""
        held = [record for record in self.records.values() if record.cells]
        return ", ".join(link(record, "results/") for record in held)


def link(record: Record, folder: str = "") -> str:
    """A link to the file of a stage, from a page that lies beside `folder`."""
    return f"[{record.path.name}]({folder}{record.path.name})"


def paired(ours: dict[int, Row], theirs: dict[int, Row]) -> list[float]:
    """The differences of AUC, seed by seed."""
    return [row["auc"] - theirs[seed]["auc"] for seed, row in ours.items() if seed in theirs]


def difference(pairs: Sequence[float]) -> str:
    """The mean of paired differences, with its 95 % interval where there are several."""
    if not pairs:
        return "-"
    mean, low, high = interval(pairs)
    return f"{mean:+.4f}" + ("" if low is None else f" ({low:+.4f} to {high:+.4f})")


def verdict(pairs: Sequence[float]) -> str:
    """Whether the first of a pair is above the second; one seed has no interval."""
    mean, low, high = interval(pairs)
    if low is None or high is None:
        return "above, one seed" if mean > 0 else "not above, one seed"
    if low > 0:
        return "above"
    return "below" if high < 0 else "not significant"


def claimed(line: Kept) -> str:
    """What a line keeps of the full table, and whether that is what the paper claims."""
    if line.of_auc is None:
        return f"AUC {line.auc:.4f}; the full table is not measured yet"
    said = "reached" if line.of_auc >= CLAIM else "not reached"
    return f"{share(line.of_auc)} ({share(line.of_lift)}): {said}"
