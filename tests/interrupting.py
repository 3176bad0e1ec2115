"""A training that ends in the middle, as a kill would end it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bitfold.training.loop import Trainer


class Stop(BaseException):
    """A process's end, as far as its folder is concerned."""


@contextmanager
def stopped_after(steps: int, of: Any = Trainer) -> Iterator[None]:
    """Trainings of a loop die in the step after `steps`; it must come to that."""
    step, count = of._step, 0

    def counted(self, *batch):  # type: ignore[no-untyped-def]
        nonlocal count
        count += 1
        if count > steps:
            raise Stop
        return step(self, *batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of, "_step", counted)
        with pytest.raises(Stop):
            yield
