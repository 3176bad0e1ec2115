"""The model that answers, and how another takes its place while requests come in.

The new one is loaded, checked and warmed beside the old one, which answers meanwhile. Then one
pointer changes. A request keeps the model that it began with, so no answer is of two models.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bitfold.errors import BitfoldError


class Scorer(Protocol):
    """What scores rows: a run's, or that of an exported file. Threads may share it."""

    @property
    def digest(self) -> str:
        """The digest of the run, in hexadecimal."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read of each row."""
        ...

    def score(self, row: Mapping[str, Any]) -> float:
        """The probability of one row."""
        ...

    def scores(self, rows: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.float32]:
        """The probabilities `[B]` of rows."""
        ...

    def scores_of(self, data: Any) -> npt.NDArray[np.float32]:
        """The probabilities `[B]` of a table in memory."""
        ...


@dataclass(frozen=True)
class Swap:
    """What a change of models did: digests before and after, and the seconds it took."""

    before: str | None
    after: str
    seconds: float

    @property
    def changed(self) -> bool:
        """Whether another model answers now."""
        return self.before != self.after


class Models:
    """The model that answers now.

    Args:
        told: called after each swap, and with the error after one that was refused.
    """

    def __init__(self, told: Callable[[Swap | Exception], None] = lambda _: None) -> None:
        self.current: Scorer | None = None
        self.loaded_at = 0.0
        self._told = told
        self._one = threading.Lock()

    def swap(self, load: Callable[[], Scorer]) -> Swap:
        """Load a model, check and warm it, and let it answer from now on.

        May be called in any thread; one swap is made at a time. Where `load` gives the model that
        answers already, nothing changes.

        Args:
            load: gives the new model; it may take long.

        Raises:
            BitfoldError: it cannot be loaded, or gives no scores. The old one goes on answering.
        """
        with self._one:
            begun = time.perf_counter()
            before = self.current
            try:
                scorer = load()
                if scorer is not before:
                    warm(scorer)
            except Exception as error:
                self._told(error)
                raise
            self.current = scorer
            self.loaded_at = time.time()
            swap = Swap(
                None if before is None else before.digest,
                scorer.digest,
                time.perf_counter() - begun,
            )
            self._told(swap)
            return swap


WARMED = (1, 2, 32, 100)
"""Numbers of rows that a new model scores before anybody asks it: each way that it knows."""


def warm(scorer: Scorer) -> None:
    """Score made-up rows, so that the first request waits for nothing.

    Raises:
        BitfoldError: the model gives something other than probabilities.
    """
    row = dict.fromkeys(scorer.columns, "0")  # text, a number, a dense id and a list of one
    for rows in WARMED:
        scores = np.asarray(scorer.scores([row] * rows))
        if scores.shape != (rows,) or not ((scores >= 0) & (scores <= 1)).all():
            raise BitfoldError(
                "the model gives no probabilities",
                got=f"shape {list(scores.shape)}, such as {scores.ravel()[:1].tolist()}",
                expected=f"{rows} numbers between 0 and 1",
                fix="train it again; it may have diverged",
            )
    scorer.score(row)
