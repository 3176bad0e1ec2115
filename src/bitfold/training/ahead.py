"""Kernels compiled ahead, into the cache that later processes read."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bitfold.embedding import EmbeddingCollection
from bitfold.errors import BitfoldError
from bitfold.kernels.compiled import cache_folder
from bitfold.kernels.sharing import SERIAL_NUMBERS
from bitfold.optim import OPTIMIZERS
from bitfold.planning.field import Field
from bitfold.planning.statistics import Counted
from bitfold.progress import Progress, silent
from bitfold.runs.folder import load

IDS = 500
WIDTHS, BITS = (16,), (None, 8, 4)
ALL_WIDTHS, ALL_BITS = (1, 2, 4, 8, 16, 32), (None, 8, 4, 3, 2, 1)


@dataclass(frozen=True)
class Warmed:
    """What warming did.

    Attributes:
        folder: where kernels are kept.
        made: the files of those that were compiled now, sorted.
        there: how many others are there.
        seconds: how long it took.
    """

    folder: Path
    made: tuple[str, ...]
    there: int
    seconds: float

    @property
    def kinds(self) -> dict[str, int]:
        """How many were compiled now, by the module that each is of."""
        names = [name.partition(".")[0] for name in self.made]
        return {name: names.count(name) for name in dict.fromkeys(names)}


def warm(
    runs: Sequence[str | Path] = (), *, everything: bool = False, progress: Progress = silent
) -> Warmed:
    """Compile kernels ahead, into the cache that all later processes read.

    Args:
        runs: what scores these; without any, what scores the usual forms: dense, hashed and mapped
            ids, single and in bags, in vectors of 16 numbers of 32, 8 or 4 bits.
        everything: also other widths and bits, and training.
        progress: told of the forms done.

    Raises:
        BitfoldError: a run cannot be read, or there is no place to keep kernels.
    """
    begun = time.perf_counter()
    folder = cache_folder()
    if folder is None or (folder.exists() and not os.access(folder, os.W_OK)):
        raise BitfoldError(
            "there is no place to keep compiled kernels",
            got=f"{folder or 'the folders of the package and of the user'}: not to be written to",
            expected="a folder that may be",
            fix="name one: export NUMBA_CACHE_DIR=/var/cache/bitfold",
        )
    before = _kept(folder)
    for path in runs:
        load(path).scorer(wait=True)
    if everything or not runs:
        forms = list(_forms(everything))
        for done, (collection, rows) in enumerate(forms):
            progress("compiling", done, len(forms))
            _read(collection, rows, training=everything)
        progress("compiling", len(forms), len(forms))
    after = _kept(folder)
    made = sorted(name for name, when in after.items() if before.get(name) != when)
    return Warmed(folder, tuple(made), len(after) - len(made), time.perf_counter() - begun)


def _kept(folder: Path) -> dict[str, int]:
    """The compiled kernels of a folder, and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.nbc")}


def _forms(everything: bool) -> Iterator[tuple[EmbeddingCollection, int]]:
    """Small collections that need a kernel each or some, and how many rows to read of them."""
    stats = Counted({"ids": (np.arange(IDS), np.ones(IDS))})
    for width in ALL_WIDTHS if everything else WIDTHS:
        rows = [1, SERIAL_NUMBERS // width + 1] if torch.get_num_threads() > 1 else [1]
        for bits in ALL_BITS if everything else BITS:
            for method in ("hash", "hot-cold"):
                for hashed in (False, True):
                    field = Field("ids", distinct=IDS) if hashed else Field("ids", IDS)
                    options: dict[str, Any] = {} if bits is None else {"bits": bits}
                    made = EmbeddingCollection(
                        [field], width, method=method, budget="2x", seed=0, stats=stats, **options
                    )
                    for count in rows:
                        yield made, count


def _read(collection: EmbeddingCollection, rows: int, *, training: bool) -> None:
    """Read single ids and bags; and train on them."""
    ids = torch.zeros(rows, 1, dtype=torch.int64)
    pairs, offsets = torch.zeros(2 * rows, dtype=torch.int64), torch.arange(rows + 1) * 2
    served = collection.serving()
    with torch.no_grad():
        served(ids)
        served(pairs, offsets)
    kinds: Iterable[Any] = OPTIMIZERS.values() if training else ()
    for kind in kinds:
        optimizer = kind(collection.parameters(), lr=0.1)
        for given in ((ids,), (pairs, offsets)):
            collection(*given).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
