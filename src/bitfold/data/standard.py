"""Numbers as the network takes them: shaped, standardised, bounded."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LARGEST = 1000.0
"""Standardised numbers are clipped to this: finite in float32, through every layer of a network."""

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Standard:
    """What is done to N numeric columns.

    Args:
        kind: of the transform, `log` or `standard`; any other leaves no numeric columns.
        means: of the shaped numbers, `[N]`.
        deviations: of the shaped numbers, `[N]`, above 0.
    """

    kind: str
    means: Doubles
    deviations: Doubles

    def apply(self, raw: Doubles) -> npt.NDArray[np.float32]:
        """Raw numbers `[B, N]`, NaN where they are missing, to float32 `[B, N]`.

        Example:
            >>> Standard("standard", np.array([5.0]), np.array([2.0])).apply(np.array([[9.0]]))
            array([[2.]], dtype=float32)
        """
        # All columns at once: for one row, what counts is the number of calls.
        shaped = shape(raw, self.kind)
        with np.errstate(over="ignore", under="ignore"):
            numbers = (shaped - self.means) / self.deviations
        np.copyto(numbers, 0.0, where=np.isnan(numbers))
        np.maximum(numbers, -LARGEST, out=numbers)
        np.minimum(numbers, LARGEST, out=numbers)
        return numbers.astype(np.float32)


def shape(column: Doubles, kind: str) -> Doubles:
    """The numbers before they are standardised: sign-aware log1p, or themselves."""
    if kind != "log":
        return column
    logs: Doubles = np.sign(column) * np.log1p(np.abs(column))
    return logs
