"""How a log reads the rows of tables: which are never read, and how few take most of the reads."""

from typing import Any

import numpy as np

from bitfold.data.statistics import TOTAL_CAP, IdCounter, hold_to
from bitfold.progress import Progress
from bitfold.weights.reads import Ids, Reads
from bitfold.weights.tables import FoundTable

HOT = 0.01
"""The part of a table's rows whose share of the reads is told."""


class _Use:
    """Reads of one table."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.reads = self.outside = 0
        self.counter = IdCounter(TOTAL_CAP)

    def add(self, ids: Ids) -> None:
        inside = ids[(ids >= 0) & (ids < self.rows)]
        self.reads += len(inside)
        self.outside += len(ids) - len(inside)
        self.counter.add(inside)

    def figures(self) -> dict[str, Any]:
        """Shares are of the table's rows, or of the reads that find a row."""
        read = min(self.counter.distinct, self.rows)
        _, counts = self.counter.counts()
        out: dict[str, Any] = {
            "reads": self.reads,
            "exact": self.counter.exact,
            "rows_read": read,
            "never": 1 - read / self.rows,
            "outside": self.outside,
        }
        if not self.reads:
            return out
        falling = np.cumsum(np.sort(counts)[::-1])
        # Where ids are a sample, so are their reads: shares are of those.
        hot = max(round(self.rows * HOT) >> self.counter.level, 1)
        out["hot"] = float(falling[min(hot, len(falling)) - 1] / falling[-1])
        half = int(np.searchsorted(falling, falling[-1] / 2)) + 1
        out["half"] = half << self.counter.level
        out["once"] = float((counts == 1).mean())
        return out


def usage(
    tables: list[FoundTable], pairs: dict[str, str], reads: Reads, progress: Progress
) -> dict[str, dict[str, Any]]:
    """How the rows of each table are read, by the table's name.

    Args:
        tables: those that were found.
        pairs: the field of each table, by the table's name.
        reads: the log.
        progress: is told how far the pass over the log is.

    Returns:
        Of each table in `pairs`: its `field`; `reads` that find a row and reads `outside` of it;
        `rows_read`, the share `never` read; of the reads the share of the `hot` rows, which are 1 %
        of the table; how many rows take `half` of them; and of the rows read the share that is
        read `once`. `exact` is false where ids were sampled.
    """
    used = {table.name: _Use(table.rows) for table in tables if table.name in pairs}
    fields = list(dict.fromkeys(pairs[name] for name in used))
    done = 0
    stage = "reading the log"
    progress(stage, 0, reads.rows)
    for rows, columns in reads.columns(fields):
        ids = dict(zip(fields, columns, strict=True))
        for name, use in used.items():
            use.add(ids[pairs[name]])
        hold_to([use.counter for use in used.values()], TOTAL_CAP)
        done += rows
        progress(stage, done, reads.rows)
    if reads.rows is None:
        progress(stage, done, done)
    return {name: {"field": pairs[name]} | use.figures() for name, use in used.items()}
