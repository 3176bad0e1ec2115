"""A run: a trained model and all it needs to score raw rows."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from bitfold.data.asked import reading_config
from bitfold.data.schema import Schema
from bitfold.data.vocabulary import Vocabulary
from bitfold.errors import BitfoldError
from bitfold.nets.model import ClickModel
from bitfold.outputs import new_folder
from bitfold.planning.plan import Plan
from bitfold.progress import Progress
from bitfold.remote import fetched
from bitfold.runs.config import RunConfig
from bitfold.runs.evaluate import evaluate
from bitfold.runs.manifest import RUN, verify
from bitfold.runs.scorer import Scorer
from bitfold.runs.scoring import scores
from bitfold.runs.warming import KernelsLater, kernels_of
from bitfold.showing import Shown
from bitfold.terminal import printable

if TYPE_CHECKING:
    from bitfold.data.batch import Batch
    from bitfold.data.frames import Data
    from bitfold.data.single import RowEncoder
    from bitfold.ranking import RankConfig


@dataclass(frozen=True, repr=False)
class Run(Shown):
    """A trained model with all that it needs to score raw rows; `bitfold.load` reads one.

    `to_frame()` has one row of options and figures, so that frames of several runs can be joined.

    Args:
        path: its folder.
        model: a `ClickModel` in evaluation mode.
        schema: how raw rows become batches.
        config: the options it was trained with.
        metrics: the figures of metrics.json.
        plan: where the embeddings keep every number.
        dense: the map from hashed to dense ids, where the method needed one.
        digest: the SHA-256 of its manifest, in hexadecimal; it tells the run from any other.
    """

    path: Path
    model: ClickModel
    schema: Schema
    config: RunConfig
    metrics: dict[str, Any]
    plan: Plan
    dense: Vocabulary | None = None
    digest: str = ""

    def batches(
        self, data: "Data", batch_size: int = 8192, *, fields_only: bool = False, **reading: Any
    ) -> Iterator["Batch"]:
        """Raw rows as the model takes them, in the input's order.

        Args:
            data: as for `predict`.
            batch_size: B; the last batch may be smaller.
            fields_only: leave out labels, weights and groups, whatever they hold.
            reading: as for `predict`.
        """
        from bitfold.data.raw import read_batches

        config = reading_config(self.schema.config, reading) if reading else None
        with fetched(data) as source:
            for batch in read_batches(
                source,
                self.schema,
                batch_size,
                fields_only=fields_only,
                encoder=self._encoder,
                reading=config,
            ):
                yield batch if self.dense is None else self.dense.apply(batch)

    @cached_property
    def _encoder(self) -> "RowEncoder":
        """What turns a few rows into ids, made once."""
        from bitfold.data.single import RowEncoder

        return RowEncoder(self.schema.rules())

    @cached_property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return next(self.model.parameters()).device

    def predict(
        self, data: "Data", batch_size: int = 8192, **reading: Any
    ) -> npt.NDArray[np.float32]:
        """Probabilities `[B]` of raw rows, in the input's order.

        Only the fields and the numeric columns are needed; what else there is is not looked at.
        The types come from the values themselves and from the run's schema, never from the other
        rows: a row has the same score alone and among others.

        Args:
            data: files (paths or patterns); or rows in memory: a pandas or Polars frame, an Arrow
                table, columns by name, one dictionary, or any iterable of dictionaries. None, NaN
                and a key that is not there are missing values.
            batch_size: rows that are scored at once.
            reading: how files are read, if not as the run's log was: `format`, `separator`,
                `header`, `columns`, `missing`, `quote`, as for `bitfold predict`.

        Raises:
            BitfoldError: a column is missing, or holds what cannot be read.

        Example:
            >>> import bitfold
            >>> rows = {"user": [1, 2, 3, 4] * 50, "clicked": [0, 1, 1, 0] * 50}
            >>> run = bitfold.train(rows, label="clicked", fields="user", method="full", width=4)
            >>> run.predict([{"user": 1}, {"user": "new"}, {"user": None}]).shape
            (3,)
        """
        parts = list(scores(self, data, batch_size, **reading))
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def scorer(self, *, wait: bool = False) -> Scorer:
        """What scores single rows and batches fast, from any number of threads; for serving.

        It shares the model's weights and needs nothing of the run's folder. Its scores are those
        of `predict`, bit for bit. Where plain torch gives the same bits, that answers while the
        kernels are read or compiled; with `wait`, and where it does not, they are made ready
        first.

        Example:
            >>> import bitfold
            >>> rows = {"user": [1, 2, 3, 4] * 50, "clicked": [0, 1, 1, 0] * 50}
            >>> run = bitfold.train(rows, label="clicked", fields="user", method="full", width=4)
            >>> scorer = run.scorer()
            >>> scorer.columns
            ('user',)
            >>> scorer.score({"user": 1}) == float(run.predict({"user": 1})[0])
            True
        """
        return Scorer(
            self.model, self.schema, self.dense, digest=self.digest, rate=self.negative_rate,
            wait=wait,
        )  # fmt: skip

    def evaluate(
        self,
        data: "Data",
        part: str = "test",
        *,
        ranking: "RankConfig | None" = None,
        progress: Progress | None = None,
        **reading: Any,
    ) -> dict[str, Any]:
        """What the run is worth on a log; see `bitfold.runs.evaluate.evaluate`."""
        return evaluate(self, data, part, ranking=ranking, progress=progress, **reading)

    def save(self, out: str | Path) -> Path:
        """Copy the run's folder, such as a temporary one that goes when the run does.

        Args:
            out: a folder that does not exist yet.

        Raises:
            BitfoldError: it exists, cannot be written, or the run's files were changed meanwhile.
        """
        out = Path(out)
        if out.exists():
            raise BitfoldError(f"{out} exists", got="a folder in the way", fix="name another")
        verify(self.path)
        with new_folder(out, RUN, inputs=[self.path]) as place:
            shutil.copytree(self.path, place, dirs_exist_ok=True)
        return out

    def records(self) -> list[dict[str, Any]]:
        """One row: the options that tell runs apart, and the figures."""
        options = self.config.train
        row: dict[str, Any] = {"run": str(self.path), "method": options.method}
        row |= {"budget": options.budget, "width": options.vector_width, "network": options.network}
        row |= {"embedding_sets": options.embedding_sets, "seed": options.seed}
        plain = (int, float, str, type(None))
        return [row | {k: v for k, v in self.metrics.items() if isinstance(v, plain)}]

    def _title(self) -> str:
        auc = self.metrics.get("auc")
        options = self.config.train
        quality = "" if auc is None else f", AUC {auc:.4f}"
        return (
            f"Run {self.path}: {options.method}, {self.metrics.get('bytes', 0):,} bytes, "
            f"{options.network}{quality}{self.config.taught.told}{self.config.cold.told}"
        )

    def __repr__(self) -> str:
        return f"<{printable(self._title())}>"

    @cached_property
    def _later(self) -> KernelsLater | None:
        """What scores a few rows before there are kernels; made once."""
        on_cpu = self.device.type == "cpu"
        return kernels_of(self.model, self.schema) if on_cpu else None

    @cached_property
    def negative_rate(self) -> float | None:
        """The share of negatives that the training log kept; predictions are corrected for it."""
        return self.schema.config.negative_rate
