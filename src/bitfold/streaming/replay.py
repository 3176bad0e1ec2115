"""Replay: a reservoir of past rows, some of which go into each step.

Shapes: `R` rows that are kept, `B` rows of a step, `F` fields, `N` numeric features.
"""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bitfold.data.batch import Batch
from bitfold.errors import BitfoldError
from bitfold.streaming.config import StreamConfig
from bitfold.streaming.strategy import Strategy

if TYPE_CHECKING:
    from bitfold.data.schema import Schema

_KEEP, _DRAW = 0, 1  # two streams of random numbers


class Replay(Strategy):
    """A uniform sample of the rows of all windows that are over, and its share of each step.

    A row takes `8 F + 4 N + 1` bytes, and 4 more where rows have weights; the count of rows that
    were seen takes 8. Random numbers follow from the seed, the step and the row's number, so there
    is no random state to keep.

    Args:
        rows: R.
        fields: F, each of one id.
        numeric: N.
        weighted: whether rows have weights.
        share: the share of a step's rows that come from here, below 1.
        seed: of the random numbers.

    Source: Vitter, Random Sampling with a Reservoir, 1985 (algorithm R).

    Example:
        >>> kept = Replay(100, fields=2, numeric=3, weighted=False, share=0.2, seed=0)
        >>> kept.row_bytes
        2908
    """

    reads = True
    ids: Tensor
    numbers: Tensor
    labels: Tensor
    weights: Tensor | None
    seen: Tensor

    def __init__(
        self, rows: int, *, fields: int, numeric: int, weighted: bool, share: float, seed: int
    ) -> None:
        super().__init__()
        self.rows, self.share, self.seed = rows, share, seed
        self.register_buffer("ids", torch.zeros(rows, fields, dtype=torch.int64))
        self.register_buffer("numbers", torch.zeros(rows, numeric))
        self.register_buffer("labels", torch.zeros(rows, dtype=torch.uint8))
        self.register_buffer("weights", torch.zeros(rows) if weighted else None)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @classmethod
    def of(cls, config: StreamConfig, schema: "Schema", seed: int) -> "Replay":
        """The reservoir of a log's rows.

        Raises:
            BitfoldError: a field has several ids a row.
        """
        if schema.has_bags:
            names = [info.name for info in schema.fields if info.kind == "bag"]
            raise BitfoldError(
                "rows of several ids a field are not kept for replay",
                got=f"multi-valued fields: {', '.join(names)}",
                expected="fields of one id a row, so that a row's bytes are known",
                fix="leave these fields out, or take another --strategy",
            )
        return cls(
            config.replay_rows,
            fields=len(schema.fields),
            numeric=len(schema.numeric_names),
            weighted=schema.config.weight is not None,
            share=config.replay_share,
            seed=seed,
        )

    @property
    def filled(self) -> int:
        """How many rows are kept."""
        return min(int(self.seen), self.rows)

    def drawn(self, rows: int, step: int) -> int:
        """How many rows a step of so many new ones gets: their share of all is `share`.

        Over steps it is, where one step's share is no whole number.
        """
        each = rows * self.share / (1 - self.share)
        return min(math.floor((step + 1) * each) - math.floor(step * each), self.filled)

    def mixed(self, batch: Batch, step: int) -> Batch:
        """The batch, and after it rows that are kept, each at most once."""
        count = self.drawn(batch.rows, step)
        if count == 0:
            return batch
        random = np.random.default_rng((self.seed, _DRAW, step))
        chosen = torch.from_numpy(random.choice(self.filled, count, replace=False))
        device = batch.numeric.device
        place = chosen.to(self.ids.device)
        assert batch.labels is not None, "rows that train have labels"

        def joined(ours: Tensor, theirs: Tensor) -> Tensor:
            return torch.cat([theirs, ours[place].to(device, theirs.dtype)])

        return Batch(
            joined(self.ids, batch.ids),
            None,
            joined(self.numbers, batch.numeric),
            joined(self.labels, batch.labels),
            None if self.weights is None or batch.weights is None
            else joined(self.weights, batch.weights),
        )  # fmt: skip

    def ended(self, window: int, batches: Iterable[Batch]) -> None:
        """Each row of the window takes a place with chance R / (rows seen until then)."""
        for batch in batches:
            self.keep(batch)

    def keep(self, batch: Batch) -> None:
        """Offer some rows, in order."""
        first = int(self.seen)
        random = np.random.default_rng((self.seed, _KEEP, first))
        numbers = np.arange(first, first + batch.rows)
        places = np.where(numbers < self.rows, numbers, random.integers(0, numbers + 1))
        # Of several rows at one place the last one stays.
        _, last = np.unique(places[::-1], return_index=True)
        taken = batch.rows - 1 - last
        taken = np.sort(taken[places[taken] < self.rows])
        place, source = torch.from_numpy(places[taken]), torch.from_numpy(taken)
        assert batch.labels is not None, "rows that train have labels"
        columns = [
            (self.ids, batch.ids), (self.numbers, batch.numeric), (self.labels, batch.labels),
            (self.weights, batch.weights),
        ]  # fmt: skip
        for ours, theirs in columns:
            if ours is not None and theirs is not None:
                ours[place] = theirs[source].to(ours.device, ours.dtype)
        self.seen += batch.rows
