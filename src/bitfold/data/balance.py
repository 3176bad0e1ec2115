"""Rows, clicks and weights of the parts of a log: what training and its figures need is there."""

from typing import Any

import numpy as np
import numpy.typing as npt

from bitfold.data.manifest import PARTS
from bitfold.errors import BitfoldError


class Balance:
    """Counts rows and clicks of each part, with and without those that weigh nothing.

    Example:
        >>> balance = Balance()
        >>> balance.add(np.array([0, 0, 1]), np.array([1.0, 0.0, 1.0]), None)
        >>> balance.rows.tolist(), balance.clicks.tolist()
        ([2, 1, 0], [1, 1, 0])
    """

    def __init__(self) -> None:
        self.rows, self.clicks, self.weighing, self.weighing_clicks = np.zeros((4, 3), np.int64)
        self.labelled = self.weighted = False

    def add(
        self,
        parts: npt.NDArray[Any],
        labels: npt.NDArray[Any] | None,
        weights: npt.NDArray[Any] | None,
    ) -> None:
        """Count some rows: the part of each, and its label and weight where there are any."""
        weighs = np.ones(len(parts), bool) if weights is None else weights > 0
        clicked = np.zeros(len(parts), bool) if labels is None else labels > 0.5
        self.labelled |= labels is not None
        self.weighted |= weights is not None
        for counts, chosen in (
            (self.rows, None),
            (self.clicks, clicked),
            (self.weighing, weighs),
            (self.weighing_clicks, weighs & clicked),
        ):
            some = parts if chosen is None else parts[chosen]
            counts += np.bincount(some, minlength=len(PARTS))

    def check_train(self, weight: str | None, *, both: bool = True, weighing: bool = True) -> None:
        """Raise unless the training part has rows: some `weighing` something, of `both` classes."""
        rows, left = int(self.rows[0]), int(self.weighing[0])
        if rows == 0:
            raise BitfoldError(
                "the split leaves no rows to train on",
                got=f"0 of {int(self.rows.sum()):,} rows",
                expected="at least one row of each class",
                fix="give train a larger share, or more rows",
            )
        if weighing and self.weighted and left == 0:
            raise BitfoldError(
                "all weights are zero",
                got=f"{rows:,} rows of the training part whose weight {weight!r} is 0",
                expected="some rows with a weight above 0",
                fix="check the column, or leave --weight out",
            )
        if both and self.labelled and (alone := self._only_class(0)) is not None:
            what = f"the training part{' that weighs more than 0' if left < rows else ''}"
            raise BitfoldError(
                f"{what} has one class only",
                got=f"{left:,} rows, all with label {alone}",
                expected="rows with label 0 and rows with label 1",
                fix="check the label, its comparison, and the split",
            )

    def _only_class(self, part: int) -> int | None:
        """The only label of a part's rows that weigh something; None if there are two."""
        clicks, rows = int(self.weighing_clicks[part]), int(self.weighing[part])
        return int(clicks > 0) if clicks in (0, rows) else None
