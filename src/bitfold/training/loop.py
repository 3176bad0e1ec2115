"""The loop: steps, validation, early stopping, checkpoints."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from bitfold.errors import BitfoldError, Diverged
from bitfold.nets.model import ClickModel, click_loss
from bitfold.planning.plan import Plan
from bitfold.progress import Progress
from bitfold.runs.options import TrainConfig
from bitfold.runs.scoring import EVALUATION_ROWS, score
from bitfold.training import checkpoint
from bitfold.training.checkpoint import Position
from bitfold.training.cold import ColdTraining
from bitfold.training.distilling import Teaching
from bitfold.training.lifecycle import Lifecycle
from bitfold.training.logs import TrainingLog
from bitfold.training.phases import Stage
from bitfold.training.rows import TrainingRows

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from bitfold.data.batch import Batch

from bitfold.training.optimizers import training_bytes

PROGRESS_SECONDS = 0.1
JUDGED_BATCHES = 8  # of validation rows, that a candidate of a search is judged by
WARM_UP = 3  # steps of a process that its speed leaves out: they compile the kernels


class Logits(nn.Module):
    """The model as Fabric takes it: called with tensors, which it may cast or share out."""

    def __init__(self, model: ClickModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, offsets: Tensor | None, numeric: Tensor) -> Tensor:
        """Logits `[B]`."""
        return self.model.logits(ids, offsets, numeric)


@dataclass
class Trainer:
    """A training under way.

    `module` and `fabric_optimizers` are what Fabric made of `model` and `optimizers`;
    `life` drives the embedders, in every process; `stage` is the phase that is trained, and `plan`
    the one that an earlier phase has ended in.
    """

    fabric: "Fabric"
    model: ClickModel
    optimizers: Sequence[torch.optim.Optimizer]
    module: Any
    fabric_optimizers: Sequence[Any]
    rows: TrainingRows
    config: TrainConfig
    folder: Path
    position: Position
    lines: TrainingLog | None
    progress: Progress
    life: Lifecycle
    stage: Stage
    plan: Plan | None = None
    teaching: Teaching | None = None
    cold: ColdTraining | None = None
    negative_rate: float | None = None
    steps: int = 0  # of this process

    @property
    def beside(self) -> nn.Module | None:
        """What goes into the checkpoint beside the model: what makes targets, where it learns."""
        return None if self.teaching is None else self.teaching.generator

    def run(self) -> None:
        """Train to the end of the stage, or to where early stopping ends the training."""
        from bitfold.kernels.denormals import no_denormals

        with no_denormals():
            while not self.position.finished and self.position.epoch < self.stage.until:
                self._epoch()
                self._validate()
                self._checkpoint()

    def decide(self) -> None:
        """Let embedders settle, at the end of a phase, what only held-out rows can tell."""
        if self.rows.count("valid"):
            for part in self.life.embedders:
                part.decide(self._judged)

    def _judged(self) -> float:
        """The AUC of some validation rows by the model as it stands; -inf where it has none."""
        found: float | None = None
        if self.fabric.is_global_zero:
            batches = islice(self.rows.batches("valid", EVALUATION_ROWS), JUDGED_BATCHES)
            scores = score(
                self.model, batches, negative_rate=self.negative_rate, device=self.fabric.device
            )
            found = scores.summary(self.negative_rate)["auc"]
            found = -math.inf if math.isnan(found) else found
        found = self.fabric.broadcast(found)
        assert found is not None, "one process judges"
        return found

    def _epoch(self) -> None:
        at, config, fabric = self.position, self.config, self.fabric
        self.model.train()
        world, rows = fabric.world_size, self.rows.count("train")
        # This process's losses, their weights, and rows since the position was brought up to date.
        loss_sum = torch.zeros((), dtype=torch.float64, device=fabric.device)
        weight_sum: Tensor | int = 0
        pending = 0
        began = shown = time.perf_counter()

        def settle() -> float:
            """Bring the position up to date, over all processes.

            Returns:
                The mean loss since the log's last line.
            """
            nonlocal began, pending, weight_sum
            now = time.perf_counter()
            loss, weight, count = _sum_over(fabric, loss_sum, weight_sum, pending)
            if not math.isfinite(loss):
                raise diverged(at.step, config)
            names = ["step_seconds", "seconds"]
            if self.steps <= WARM_UP:
                names.append("warm_seconds")
                at.warm_rows += int(count)
            for name in names:
                setattr(at, name, getattr(at, name) + now - began)
            at.epoch_loss += loss
            at.window_loss += loss
            at.epoch_weight += weight
            at.window_weight += weight
            at.rows += int(count)
            at.epoch_rows += int(count)
            loss_sum.zero_()
            began, pending, weight_sum = now, 0, 0
            return _mean(at.window_loss, at.window_weight)

        for batch, *theirs in self._batches(self._place()):
            loss, weight = self._step(
                batch.to(fabric.device), *(each.to(fabric.device) for each in theirs)
            )
            loss_sum += loss.detach() * weight
            weight_sum = weight_sum + weight
            pending += batch.rows
            at.batch += 1
            at.step += 1
            self.steps += 1
            if self.steps == WARM_UP:
                settle()
            now = time.perf_counter()
            if now - shown > PROGRESS_SECONDS:
                shown = now
                here, weighed = float(loss_sum), float(weight_sum)
                if world == 1 and not math.isfinite(here):
                    raise diverged(at.step, config)
                done = at.epoch_rows + pending * world
                if done < rows:  # an epoch's last line comes with its validation
                    mean = _mean(at.window_loss + here, at.window_weight + weighed)
                    seconds = at.step_seconds - at.warm_seconds + now - began
                    counted = at.rows - at.warm_rows + pending * world
                    self._show(done, rows, mean, counted / max(seconds, 1e-9))
            if at.step % config.log_steps == 0:
                self._line(settle())
            if config.checkpoint_steps and at.step % config.checkpoint_steps == 0:
                settle()
                self._checkpoint()
                began = time.perf_counter()
        settle()
        if at.training_bytes == 0:
            at.training_bytes = training_bytes(self.model, self.optimizers)

    def _place(self) -> dict[str, Any]:
        """Which batches of the log this process takes next, and in which order they come."""
        return {
            "shuffle_seed": self.config.seed,
            "epoch": self.position.epoch,
            "start": self.position.batch,
            "rank": self.fabric.global_rank,
            "world_size": self.fabric.world_size,
        }

    def _batches(self, place: dict[str, Any]) -> Iterator[tuple["Batch", ...]]:
        """An epoch's batches, each with the same rows as a teacher takes them, if there is one."""
        size = self.config.batch_size
        if self.teaching is not None:
            return self.rows.pairs("train", size, self.teaching.run.dense, **place)
        return ((batch,) for batch in self.rows.batches("train", size, **place))

    def _step(self, batch: "Batch", theirs: "Batch | None" = None) -> tuple[Tensor, Tensor | int]:
        """One step on this process's share of its rows.

        Args:
            batch: the rows.
            theirs: the same rows as the teacher takes them, if there is one.

        Returns:
            The mean loss of the share, and the weight that the mean stands for.
        """
        for optimizer in self.fabric_optimizers:
            optimizer.zero_grad()
        assert batch.labels is not None
        if self.cold is not None:
            loss = self.cold.loss(self.model, self.module, batch)
        elif self.teaching is None or theirs is None:
            logits = self.module(batch.ids, batch.offsets, batch.numeric)
            loss = click_loss(logits, batch.labels, batch.weights)
        else:
            batch = self.teaching.learned(batch)
            loss = self.teaching.loss(self.model, self.module, batch, theirs)
        weight = batch.rows if batch.weights is None else batch.weights.sum(dtype=torch.float64)
        if self.fabric.world_size == 1:
            self.fabric.backward(loss)
        else:
            self.fabric.backward((loss * self._part(weight)).to(loss.dtype))
        for optimizer in self.fabric_optimizers:
            optimizer.step()
        self.life.step(loss.detach())
        return loss, weight

    def _part(self, weight: Tensor | int) -> Tensor | float:
        """What a share's mean loss counts for, so that the mean over processes is that of all rows.

        Gradients are averaged over processes alike, whatever the weight of their shares.
        """
        world = self.fabric.world_size
        if isinstance(weight, Tensor):
            every = _sum_over(self.fabric, weight)[0]
            return weight * world / every if every > 0 else 0.0
        stride = self.config.batch_size * world
        rows = min(stride, self.rows.count("train") - self.position.batch * stride)
        return weight * world / rows

    def _validate(self) -> None:
        """End the epoch: measure, keep the best weights, decide whether to go on."""
        at, config, fabric = self.position, self.config, self.fabric
        began = time.perf_counter()
        figures: dict[str, Any] = {
            "epoch": at.epoch + 1,
            "loss": _mean(at.epoch_loss, at.epoch_weight),
        }
        better = True
        self.life.epoch_ended()
        rows = self.rows.count("valid")
        if rows:
            # One process measures, and tells the others.
            summary: dict[str, float] | None = None
            if fabric.is_global_zero:
                batches = self.rows.batches("valid", EVALUATION_ROWS)
                scores = score(
                    self.model,
                    batches,
                    negative_rate=self.negative_rate,
                    device=fabric.device,
                    stage="validation",
                    total=rows,
                    progress=self.progress,
                )
                if not np.isfinite(scores.predictions).all():
                    raise diverged(at.step, config)
                summary = scores.summary(self.negative_rate)
            summary = fabric.broadcast(summary)
            assert summary is not None
            if math.isnan(summary["auc"]):
                raise BitfoldError(
                    "the validation part holds one class only, so no epoch can be chosen",
                    got=f"{rows:,} rows of one class",
                    expected="clicked and unclicked rows",
                    fix="choose another split, or one without a valid part",
                )
            figures |= summary
            better = at.best_auc is None or summary["auc"] > at.best_auc
            at.best_auc = summary["auc"] if better else at.best_auc
        at.valid.append(figures)
        at.epoch += 1
        at.worse_epochs = 0 if better else at.worse_epochs + 1
        if better:
            at.best_epoch = at.epoch
            if fabric.is_global_zero and self.stage.last:
                checkpoint.save_best(self.folder, at, self.model)
        at.seconds += time.perf_counter() - began
        self._line(figures["loss"], figures)
        all_rows = self.rows.count("train")
        self._show(
            all_rows,
            all_rows,
            figures["loss"],
            at.rows_per_second,
            figures.get("auc"),
            epoch=at.epoch,
        )
        at.batch = at.epoch_rows = 0
        at.epoch_loss = at.epoch_weight = 0.0
        if self.stage.last:
            at.finished = at.epoch >= config.epochs or 0 < config.patience <= at.worse_epochs

    def _line(self, loss: float, valid: dict[str, Any] | None = None) -> None:
        """Write a line of the log."""
        at = self.position
        at.window_loss = at.window_weight = 0.0
        if self.lines is None:
            return
        figures = (
            {}
            if valid is None
            else {
                f"valid_{name}": valid[name] for name in ("auc", "logloss", "gauc") if name in valid
            }
        )
        self.lines.write(
            at.step,
            epoch=at.epoch if valid is not None else at.epoch + 1,
            rows=at.rows,
            seconds=at.seconds,
            loss=loss,
            rows_per_second=at.rows_per_second,
            **figures,
        )

    def _checkpoint(self) -> None:
        at, fabric = self.position, self.fabric
        if at.training_bytes == 0:
            at.training_bytes = training_bytes(self.model, self.optimizers)
        random = {"cpu": _gather(fabric, torch.get_rng_state())}
        if fabric.device.type == "cuda":
            random["cuda"] = _gather(fabric, torch.cuda.get_rng_state(fabric.device))
        if fabric.is_global_zero:
            at.log_size = self.lines.size() if self.lines else 0
            checkpoint.save(
                self.folder, at, self.model, self.optimizers, random, self.plan, self.beside
            )
        fabric.barrier()

    def _show(
        self,
        done: int,
        rows: int,
        loss: float,
        speed: float,
        auc: float | None = None,
        epoch: int | None = None,
    ) -> None:
        """Tell where the epoch is; at its end with its own validation AUC and the best so far."""
        at = self.position
        facts = {"loss": round(loss, 4)}
        if auc is not None:
            facts["valid_auc"] = round(auc, 4)
        if at.best_auc is not None:
            facts["best_auc"] = round(at.best_auc, 4)
        stage = f"epoch {at.epoch + 1 if epoch is None else epoch}/{self.config.epochs}"
        self.progress(stage, done, rows, rows_per_second=round(speed), **facts)


def _sum_over(fabric: "Fabric", *values: Tensor | float) -> list[float]:
    """Numbers added up over all processes."""
    here = torch.tensor([float(value) for value in values], dtype=torch.float64)
    if fabric.world_size > 1:
        here = here.to(fabric.device)
        torch.distributed.all_reduce(here)
    summed: list[float] = here.tolist()
    return summed


def _mean(total: float, weight: float) -> float:
    return total / weight if weight > 0 else 0.0


def _gather(fabric: "Fabric", state: Tensor) -> Tensor:
    """The state of every process: `[bytes]` of a single one, else `[processes, bytes]`."""
    if fabric.world_size == 1:
        return state
    state = state.to(fabric.device)
    states = [torch.empty_like(state) for _ in range(fabric.world_size)]
    torch.distributed.all_gather(states, state)
    return torch.stack(states).cpu()


def diverged(step: int, config: TrainConfig) -> Diverged:
    """The error of a training whose losses or scores are no numbers any more."""
    return Diverged(
        f"training diverged before step {step}",
        got="a loss or scores that are not numbers",
        expected="finite ones",
        fix=f"lower lr (now {config.lr:g}), or check the numeric columns",
    )
