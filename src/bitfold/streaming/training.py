"""One window of a stream: every row is scored, and only then trained on."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from bitfold.data.manifest import MANIFEST_FILE
from bitfold.data.schema import Schema
from bitfold.embedder.memory import memory
from bitfold.embedding import EmbeddingCollection
from bitfold.errors import BitfoldError
from bitfold.files import without_nan
from bitfold.records import Count, Number, file_digest
from bitfold.runs.scoring import EVALUATION_ROWS, score
from bitfold.streaming.aligned import Beside
from bitfold.streaming.clock import Span
from bitfold.streaming.seen import Newness
from bitfold.streaming.strategy import Strategy
from bitfold.streaming.watching import Watched
from bitfold.streaming.windows import Window, other_log
from bitfold.training.checkpoint import Position
from bitfold.training.loop import Trainer, diverged
from bitfold.training.rows import TrainingRows

if TYPE_CHECKING:
    from bitfold.data.batch import Batch
    from bitfold.data.prepared import PreparedLog

SCORES = ("auc", "logloss", "gauc", "calibration", "ece")


@dataclass
class StreamPosition(Position):
    """Where a stream stands: `epoch` counts windows that are over, and `valid` has their figures.

    `scored` are the figures of the window at work, empty until all of it is scored; `passed` are
    the passes over it that have ended.
    """

    scored: dict[str, Number | None] = field(default_factory=dict)
    passed: Count = 0


@dataclass
class StreamTrainer(Trainer):
    """A stream under way: `rows` are those of the window at work.

    `watched` is in the checkpoint beside the model; `schema` says how rows are read.
    """

    position: StreamPosition
    watched: Watched | None = None
    schema: Schema | None = None
    strategy: Strategy = field(default_factory=Strategy)
    aligned: bool = False
    name: str = ""  # of the window at work

    @property
    def beside(self) -> nn.Module | None:
        """What is watched."""
        return self.watched

    def window(self, window: Window) -> dict[str, Any]:
        """Score a window, then train on it; without rows there is nothing to do.

        Returns:
            The window's figures, of numbers alone.

        Raises:
            BitfoldError: the training diverges, or the embeddings leave their budget.
        """
        at, log = self.position, window.log
        self.name = window.span.name
        line = _of(window.span, window.rows)
        if log is not None:
            line |= self._worked(log)
        at.valid.append(line)
        at.epoch += 1
        at.best_epoch = at.epoch
        at.batch = at.passed = at.epoch_rows = 0
        at.epoch_loss = at.epoch_weight = 0.0
        at.scored, at.log_digest = {}, None
        if log is not None:  # empty windows cost nothing to go through again
            self._checkpoint()
        return line

    def _worked(self, log: "PreparedLog") -> dict[str, Any]:
        """The figures of a window that has rows."""
        from bitfold.kernels.denormals import no_denormals

        at = self.position
        self.rows = TrainingRows(log)
        digest = file_digest(log.path / MANIFEST_FILE)
        if at.log_digest not in (None, digest):
            raise other_log(f"{self.name} was prepared from other rows", "the rows as they were")
        at.log_digest = digest
        watched = self.watched
        assert watched is not None, "a stream is watched"
        if not at.scored:
            watched.begin()
            at.scored = self._scored()
            self.strategy.begin(at.epoch, self.model.network)
        with no_denormals():
            seconds, rows = at.step_seconds, at.rows
            while at.passed < self.config.epochs:
                self._epoch()
                at.passed += 1
                at.batch = at.epoch_rows = 0
        if self.strategy.reads:
            self.strategy.ended(at.epoch, self.rows.batches("train", EVALUATION_ROWS))
        self.life.epoch_ended()
        trained = at.step_seconds - seconds
        size = self._serving_bytes()
        return dict(at.scored) | {
            "loss": at.epoch_loss / at.epoch_weight if at.epoch_weight > 0 else None,
            "churn": watched.churn() if at.scored["scored"] else None,
            "bytes": size,
            "used_bytes": self._used_bytes(size),
            "training_bytes": self._training_bytes(),
            "steps": at.step,
            "rows_per_second": (at.rows - rows) / trained if trained > 0 else None,
            **self._beside_bytes(size),
        }

    def _scored(self) -> dict[str, Any]:
        """Progressive validation, and what of the window is new. The first window is not scored:
        nothing was learned before it.
        """
        assert self.schema is not None, "a stream has a schema"
        assert self.watched is not None, "and is watched"
        began, first = time.perf_counter(), self.position.step == 0
        names = [info.name if info.kind != "bucket" else None for info in self.schema.fields]
        newness = Newness(self.watched.seen.numpy(), names)
        rows = self.rows.count("train")

        def seen() -> Iterator["Batch"]:
            for batch in self.rows.batches("train", EVALUATION_ROWS):
                newness.see(batch)
                yield batch

        found: dict[str, Any] = {"scored": float(not first)}
        if first:
            for _ in seen():
                pass
        else:
            rate = self.negative_rate
            scores = score(
                self.model, seen(), negative_rate=rate, device=self.fabric.device,
                stage=f"{self.name}: scoring", total=rows, progress=self.progress,
            )  # fmt: skip
            if not np.isfinite(scores.predictions).all():
                raise diverged(self.position.step, self.config)
            summary = scores.summary(rate)
            found |= {name: summary.get(name, math.nan) for name in SCORES}
            found["constant_logloss"] = scores.constant_logloss(rate)
            found |= newness.figures()
        self.watched.seen.numpy()[:] = newness.end()
        found["new_ids"] = newness.new_ids
        found["scoring_seconds"] = time.perf_counter() - began
        return {name: without_nan(value) for name, value in found.items()}

    def _step(self, batch: "Batch", theirs: "Batch | None" = None) -> tuple[Tensor, Tensor | int]:
        """One step, on what the strategy makes of the rows."""
        return super()._step(self.strategy.mixed(batch, self.position.step), theirs)

    def _beside_bytes(self, size: int) -> dict[str, int]:
        """What is held beside tables of `size` bytes, and what the budget bounds."""
        beside = Beside.of(self.model.network, self.strategy)
        counted = size + (beside.total if self.aligned else 0)
        return beside.figures() | {"counted_bytes": counted}

    def _serving_bytes(self) -> int:
        """Bytes of the embeddings as they would be served now, counted from the module itself.

        Raises:
            BitfoldError: they are more than the budget.
        """
        collection = self.model.embeddings
        assert isinstance(collection, EmbeddingCollection)
        size: int = sum(tensor.nbytes for tensor in collection.serving().state_dict().values())
        budget = collection.plan.budget
        if budget is not None and size > budget:
            raise BitfoldError(
                f"method {collection.plan.method!r} left its budget in {self.name}",
                got=f"{size:,} bytes to serve",
                expected=f"{budget:,} at most",
                fix="tell whoever wrote the method; another one keeps to its budget",
            )
        return size

    def _used_bytes(self, size: int) -> int | None:
        """Of `size` bytes to serve those but for reserved rows that nobody owns yet; None where
        none are reserved.
        """
        parts = [part for part in self.life.embedders if part.used_bytes() is not None]
        if not parts:
            return None
        free = sum(sum(part.bytes().values()) - (part.used_bytes() or 0) for part in parts)
        return size - free

    def _training_bytes(self) -> int:
        """Bytes of the embeddings as they are trained, with the optimizers' state of them.

        What a process keeps from step to step for its gradients depends on what it did before.
        """
        held = memory(self.model.embeddings, "training").by_kind
        states = (
            optimizer.state.get(weight, {})
            for weight in self.model.embeddings.parameters()
            for optimizer in self.optimizers
        )
        beside = (value for state in states for value in state.values())
        return sum(size for kind, size in held.items() if kind != "gradients") + sum(
            value.nbytes for value in beside if isinstance(value, Tensor)
        )

    def _place(self) -> dict[str, Any]:
        """The batches of the pass at work: each pass over each window has an order of its own."""
        at = self.position
        return super()._place() | {"epoch": at.epoch * self.config.epochs + at.passed}

    def _show(
        self, done: int, rows: int, loss: float, speed: float, auc: float | None = None,
        epoch: int | None = None,
    ) -> None:  # fmt: skip
        """Tell where the pass is."""
        self.progress(
            f"{self.name}: training", done, rows, loss=round(loss, 4), rows_per_second=round(speed)
        )


def _of(span: Span, rows: int) -> dict[str, Any]:
    return {"rows": rows, "start": span.start, "end": span.end, "scored": 0.0}
