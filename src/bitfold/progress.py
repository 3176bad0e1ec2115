"""How long work reports where it is: one call, drawn by whoever listens.

Work that takes long (preparing, generating, training, comparing) accepts `progress=None`. The
command passes a function that draws a bar; a notebook may pass its own.
"""

import os
from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """A listener.

    Calls with the same `stage` move one bar; a new `stage` begins a new one. A stage is over
    when `done == total`, or when another begins.
    """

    def __call__(self, stage: str, done: int, total: int | None = None, **facts: object) -> None:
        """Say how far the work is.

        Args:
            stage: what is being done, such as `"epoch 2/8"`.
            done: rows (or whatever the stage counts) finished so far.
            total: how many there will be; None if that is not known.
            facts: what is worth showing beside the bar, such as `loss=0.431`.
        """


def is_first_process() -> bool:
    """Whether this process speaks: of several that train together (`--devices`) the first does."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


def silent(stage: str, done: int, total: int | None = None, **facts: object) -> None:
    """The listener that draws nothing.

    Example:
        >>> silent("epoch 1/8", 2048, 1_000_000, loss=0.693)
    """


def reading(progress: Progress) -> Callable[..., None]:
    """The listener that `bitfold.data.prepare` takes, which tells `progress`.

    Example:
        >>> def show(stage, done, total, **facts): print(stage, done, total, facts)
        >>> reading(show)("reading", 5, 1_000, 2_000)
        preparing: reading 1000 2000 {'rows': 5}
    """

    def tell(stage: str, rows: int, done: int, total: int) -> None:
        progress(f"preparing: {stage}", done, total, rows=rows)

    return tell
