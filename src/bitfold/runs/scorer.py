"""The fast path: rows in memory to scores, from any number of threads, without a file."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from bitfold.data.checking import rows_of
from bitfold.data.frames import in_memory
from bitfold.data.memory_log import MemoryLog
from bitfold.data.raw import read_batches
from bitfold.data.schema import Schema
from bitfold.data.single import Encoded, RowEncoder
from bitfold.data.vocabulary import Vocabulary
from bitfold.errors import BitfoldError
from bitfold.nets.model import ClickModel
from bitfold.runs.scoring import EVALUATION_ROWS, ahead, predict_batch, probabilities
from bitfold.runs.warming import KernelsLater, kernels_of

if TYPE_CHECKING:
    from bitfold.data.batch import Batch

Scored = npt.NDArray[np.float32]


class Scorer:
    """Scores rows in memory, as `Run.predict` does and to the same bits; `Run.scorer` makes one.

    What is done to each column is decided once. A row then goes value by value into the model's
    tensors, with no frame, no query and no table between. Nothing is written to, so any number of
    threads may use one scorer.

    Args:
        model: in evaluation mode; its weights are shared, not copied.
        schema: how rows become ids and numbers.
        dense: a further map of ids, where the method needed one.
        digest: what tells the run from any other.
        rate: the share of negatives that the training log kept.
        wait: for the kernels, even where plain torch gives the same bits meanwhile.
    """

    def __init__(
        self,
        model: ClickModel,
        schema: Schema,
        dense: Vocabulary | None = None,
        *,
        digest: str = "",
        rate: float | None = None,
        wait: bool = False,
    ) -> None:
        self.digest = digest
        self._model, self._schema, self._dense, self._rate = model, schema, dense, rate
        self._encoder = RowEncoder(schema.rules(dense))
        self._few = self._encoder if dense is None else RowEncoder(schema.rules())
        device = next(model.parameters()).device
        self._device = None if device.type == "cpu" else device
        self.columns: tuple[str, ...] = self._encoder.columns
        """The names of the raw columns that are read; others are not looked at."""
        self._later: KernelsLater | None = None
        if self._device is None:
            self._later = kernels_of(model, schema)
            if wait:
                self._later.wait()

    def score(self, row: Mapping[str, Any]) -> float:
        """The probability of one row: values by column name.

        A key that is not there, None and NaN are missing values.

        Raises:
            BitfoldError: naming the column, for a value that cannot be read.
        """
        return float(self._scored(self._encoder.encode((row,)))[0])

    def scores(self, rows: Sequence[Mapping[str, Any]]) -> Scored:
        """Probabilities float32 `[B]` of B rows, in their order.

        Raises:
            BitfoldError: naming the row and the column, for a value that cannot be read.
        """
        rows = rows_of(rows)
        if len(rows) <= EVALUATION_ROWS:
            return self._scored(self._encoder.encode(rows))
        starts = range(0, len(rows), EVALUATION_ROWS)
        encode, size = self._encoder.encode, EVALUATION_ROWS
        encoded = (encode(rows[start : start + size], start) for start in starts)
        return np.concatenate([self._scored(each) for each in ahead(encoded)])

    def scores_of(self, data: Any) -> Scored:
        """Probabilities float32 `[B]` of a table in memory, in its rows' order.

        Args:
            data: a pandas or Polars frame, an Arrow table, columns by name, dictionaries.

        Raises:
            BitfoldError: a column is missing, or holds what cannot be read; or the data are paths.
        """
        if isinstance(data, list | tuple) and not any(isinstance(each, str) for each in data[:1]):
            return self.scores(data)
        memory = in_memory(data)
        if memory is None:
            raise BitfoldError(
                "a scorer reads no files",
                got=f"{data!r}"[:80],
                expected="a frame, an Arrow table, columns by name, or dictionaries",
                fix="run.predict reads files",
            )
        try:
            parts = [self._predicted(batch) for batch in self._batches(memory)]
        except BitfoldError:
            if memory.rows:  # rows that can be read again
                self._name_the_row(memory)
            raise
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    @torch.no_grad()
    def _scored(self, rows: Encoded) -> Scored:
        offsets = None if rows.offsets is None else self._tensor(rows.offsets)
        ids, numbers = self._tensor(rows.ids), self._tensor(rows.numbers)
        later = self._later
        if later is None or later.ready:
            logits = self._model.logits(ids, offsets, numbers)
        else:
            logits = later(lambda: self._model.logits(ids, offsets, numbers))
        return probabilities(logits, self._rate)

    def _predicted(self, batch: "Batch") -> Scored:
        if self._later is None:
            return predict_batch(self._model, batch, self._rate)
        return self._later(lambda: predict_batch(self._model, batch, self._rate))

    def _tensor(self, column: npt.NDArray[Any]) -> torch.Tensor:
        made = torch.from_numpy(column)
        return made if self._device is None else made.to(self._device)

    def _batches(self, memory: MemoryLog) -> "Iterator[Batch]":
        batches = read_batches(
            memory, self._schema, EVALUATION_ROWS, fields_only=True, encoder=self._few
        )
        if memory.rows > EVALUATION_ROWS:
            batches = ahead(batches)
        for batch in batches:
            dense = batch if self._dense is None else self._dense.apply(batch)
            yield dense if self._device is None else dense.to(self._device)

    def _name_the_row(self, memory: MemoryLog) -> None:
        """Raise what is wrong with the first wrong row, if going row by row tells it."""
        done = 0
        for rows in memory.records(self.columns, EVALUATION_ROWS) or ():
            self._encoder.encode(rows, done)
            done += len(rows)

    def __repr__(self) -> str:
        return f"<Scorer {self.digest[:12]}: {len(self.columns)} columns>"
