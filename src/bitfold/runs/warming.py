"""Scores before there are kernels.

A kernel is read from Numba's cache in a tenth of a second, with Numba itself in half of one, and
compiled in some seconds. Who waits for a first score need wait for neither: plain torch gives the
same numbers (`Embedder.exact_in_plain` says of which models), and a thread makes the kernels ready.
"""

import math
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch

from bitfold.data.schema import Schema
from bitfold.embedder.contract import Embedder
from bitfold.embedding import EmbeddingCollection
from bitfold.kernels.choice import all_plain, plain_here
from bitfold.nets.model import ClickModel
from bitfold.notes import note

T = TypeVar("T")

_working: set[threading.Thread] = set()


def _before_fork() -> None:
    """Let compilations end: a forked child would wait for ever for the locks that they hold."""
    for thread in _working - {threading.current_thread()}:
        thread.join()


os.register_at_fork(before=_before_fork)


def is_exact(model: ClickModel, *, bags: bool) -> bool:
    """Whether plain torch scores rows, as bags or as single ids, as the kernels do, to the bit."""
    embeddings = model.embeddings
    assert isinstance(embeddings, EmbeddingCollection)
    mode = embeddings.mode if bags else None
    return all(part.exact_in_plain(mode) for part in model.modules() if isinstance(part, Embedder))


@torch.no_grad()
def make_kernels(model: ClickModel, numeric: int, *, bags: bool) -> None:
    """Read made-up ids, so that every kernel of scoring is in memory and in the cache.

    Args:
        model: on the CPU.
        numeric: N, numeric features.
        bags: whether its rows come as bags.
    """
    from bitfold.kernels.sharing import SERIAL_NUMBERS  # loads Numba, which kernels need

    embeddings = model.embeddings
    assert isinstance(embeddings, EmbeddingCollection)
    fields = len(embeddings.fields) // model.sets
    counts = [1]
    if torch.get_num_threads() > 1:
        counts.append(math.ceil(SERIAL_NUMBERS / (fields * embeddings.embedding_dim)) + 1)
    for rows in counts:
        numbers = torch.zeros(rows, numeric)
        if not bags:
            model.logits(torch.zeros(rows, fields, dtype=torch.int64), None, numbers)
            continue
        for each in (1, 2):  # ids of a bag: bags of one id each are read as single ids
            offsets = torch.arange(rows * fields + 1) * each
            model.logits(torch.zeros(rows * fields * each, dtype=torch.int64), offsets, numbers)


class KernelsLater:
    """Runs work in plain torch until kernels are ready, and from then on with them.

    Args:
        make: makes them ready; it is called in a thread of its own, after the first work was done.
    """

    def __init__(self, make: Callable[[], object]) -> None:
        self.ready = False
        self._make = make
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return KernelsLater, (self._make,)  # a copy, in another process say, begins anew

    def __call__(self, work: Callable[[], T]) -> T:
        """The result of some work."""
        if self.ready or all_plain():
            return work()
        with plain_here():
            found = work()
        self._begin()
        return found

    def wait(self) -> None:
        """Return when the kernels are ready, or cannot be; at once where nobody may use them."""
        if not all_plain():
            self._begin().join()

    def _begin(self) -> threading.Thread:
        with self._lock:
            if self._thread is None:
                # No daemon: a process that ends meanwhile leaves the cache to the next one.
                self._thread = threading.Thread(target=self._run, name="bitfold-kernels")
                _working.add(self._thread)
                self._thread.start()
            return self._thread

    def _run(self) -> None:
        try:
            self._make()
            self.ready = True
        except Exception as error:
            note(f"the kernels cannot be compiled, plain torch goes on: {error}"[:500])
        finally:
            _working.discard(threading.current_thread())


def kernels_of(model: ClickModel, schema: Schema) -> KernelsLater:
    """What scores rows of a schema by a model on the CPU, in plain torch until kernels are ready.

    Where the bits would differ, they are ready when this returns.
    """
    bags = schema.has_bags
    later = KernelsLater(partial(make_kernels, model, len(schema.numeric_names), bags=bags))
    if not is_exact(model, bags=bags):
        later.wait()
    return later
