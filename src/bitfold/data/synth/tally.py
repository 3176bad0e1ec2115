"""What is counted of a synthetic log while its rows pass: ids met, clicks, the Bayes AUC's bins."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bitfold.data.synth import kernels
from bitfold.data.synth.figures import Day, SynthReport

if TYPE_CHECKING:
    from bitfold.data.synth.log import Chunk, SynthConfig


class Bins:
    """Chances of a click, and of none, by the true logit: what the Bayes AUC follows from."""

    def __init__(self) -> None:
        self.positives, self.negatives = np.zeros(kernels.BINS), np.zeros(kernels.BINS)
        self.rows = self.clicks = 0

    def add(self, chunk: "Chunk", here: slice) -> None:
        """Count these rows of a chunk."""
        labels = chunk.label[here]
        kernels.tally(chunk.logit[here], chunk.probability[here], self.positives, self.negatives)
        self.rows += len(labels)
        self.clicks += int(labels.sum())

    @property
    def auc(self) -> float:
        """The expected AUC, over the rows, of a scorer that knows the true logit."""
        below = np.cumsum(self.negatives) - 0.5 * self.negatives
        total = self.positives.sum() * self.negatives.sum()
        return float((self.positives * below).sum() / total)

    @property
    def positive_rate(self) -> float:
        """The share of clicks."""
        return self.clicks / self.rows


class Tally:
    """Counts the rows of a log, in their order; by day, too, of a log with days."""

    def __init__(self, config: "SynthConfig") -> None:
        ever = np.array(config.ever, np.int64)
        bytes_of = (ever + 7) // 8
        self._starts = np.concatenate([[0], np.cumsum(bytes_of)[:-1]])
        self._bitmap = np.zeros(int(bytes_of.sum()), np.uint8)
        self._distinct = np.zeros(config.fields, np.int64)
        self._all, self._today, self._met = Bins(), Bins(), 0
        self._days: list[Day] = []
        # The first row of each day after the first, as the kernels tell the time.
        self._ends = [-(-day * config.rows // config.days) for day in range(1, config.days)]
        self._by_day = config.days > 0

    def add(self, chunk: "Chunk") -> None:
        """Count a chunk."""
        first, last = chunk.first, chunk.first + chunk.rows
        while self._ends and self._ends[0] <= last:
            end = self._ends.pop(0)
            self._rows(chunk, slice(first - chunk.first, end - chunk.first))
            self._day()
            first = end
        self._rows(chunk, slice(first - chunk.first, last - chunk.first))

    def _rows(self, chunk: "Chunk", here: slice) -> None:
        ids: NDArray[np.int64] = np.ascontiguousarray(chunk.ids[:, here])
        kernels.mark(ids, self._starts, self._bitmap, self._distinct)
        self._all.add(chunk, here)
        if self._by_day:
            self._today.add(chunk, here)

    def _day(self) -> None:
        """Close a day."""
        met, today = int(self._distinct.sum()), self._today
        if today.rows:
            self._days.append(Day(today.rows, met - self._met, today.auc, today.positive_rate))
        self._today, self._met = Bins(), met

    def report(self, seconds: float) -> SynthReport:
        """What was counted."""
        if self._by_day:
            self._day()
        return SynthReport(
            rows=self._all.rows,
            distinct={f"field_{f}": int(n) for f, n in enumerate(self._distinct)},
            bayes_auc=self._all.auc,
            positive_rate=self._all.positive_rate,
            seconds=seconds,
            days=tuple(self._days),
        )
