"""The loop: steps over positives, a ranking after each epoch, early stopping, checkpoints."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bitfold.errors import Diverged
from bitfold.planning.plan import Plan
from bitfold.progress import Progress
from bitfold.ranking.candidates import Ints
from bitfold.ranking.questions import blocks
from bitfold.ranking.scoring import Ranking
from bitfold.retrieval import checkpoint
from bitfold.retrieval.checkpoint import Position
from bitfold.retrieval.in_blocks import Shared
from bitfold.retrieval.losses import among_first, bpr_loss, softmax_loss
from bitfold.retrieval.measuring import item_vectors, measure, user_vectors
from bitfold.retrieval.memory import Memory, weighed
from bitfold.retrieval.negatives import hard, nearest, unseen
from bitfold.retrieval.options import RetrieveConfig
from bitfold.retrieval.positives import Positives
from bitfold.retrieval.remarnet import among, leaned, relation
from bitfold.retrieval.towers import TwoTowers
from bitfold.training.lifecycle import Lifecycle
from bitfold.training.optimizers import training_bytes
from bitfold.training.phases import Stage

PROGRESS_SECONDS = 0.1


@dataclass
class Trainer:
    """A training under way; `stage` is the phase of the method that is trained."""

    model: TwoTowers
    positives: Positives
    ranking: Ranking | None
    config: RetrieveConfig
    optimizers: Sequence[torch.optim.Optimizer]
    life: Lifecycle
    folder: Path
    position: Position
    memory: Memory | None
    progress: Progress
    stage: Stage
    plan: Plan | None = None
    near: npt.NDArray[np.int32] | None = field(default=None, init=False)

    def run(self) -> None:
        """Train to the end of the stage, or to where early stopping ends the training."""
        from bitfold.kernels.denormals import no_denormals

        with no_denormals():
            while not self.position.finished and self.position.epoch < self.stage.until:
                self._epoch()
                self._validate()
                self._checkpoint()

    def _epoch(self) -> None:
        at, config = self.position, self.config
        self.near = self._nearest()
        self.model.train()
        order = np.random.default_rng([config.seed, at.epoch]).permutation(len(self.positives))
        steps = list(blocks(len(order), config.batch_size))
        shown = time.perf_counter()
        for start, stop in steps[at.batch :]:
            began = time.perf_counter()
            loss = self._step(order[start:stop])
            if not math.isfinite(loss):
                raise Diverged(
                    f"training diverged before step {at.step + 1}",
                    got="a loss that is no number",
                    expected="a finite one",
                    fix=f"lower lr (now {config.lr:g}), or raise temperature",
                )
            at.loss += loss * (stop - start)
            at.rows += stop - start
            at.all_rows += stop - start
            at.batch += 1
            at.step += 1
            now = time.perf_counter()
            at.step_seconds += now - began
            at.seconds += now - began
            if now - shown > PROGRESS_SECONDS and stop < len(order):
                shown = now
                self._show(stop, at.epoch + 1)
            # Hard negatives follow from the weights that an epoch begins with.
            often = 0 if config.hard else config.checkpoint_steps
            if often and at.step % often == 0:
                self._checkpoint()

    def _step(self, rows: Ints) -> float:
        """One step on some positives; its mean loss."""
        self._rate()
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss = self._loss(rows)
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in self.optimizers:
            optimizer.step()
        self.life.step()
        return float(loss.detach())

    def _rate(self) -> None:
        """The learning rate of this step, where it falls."""
        config = self.config
        if config.lr_end < 1:
            steps = -(-len(self.positives) // config.batch_size) * config.epochs
            done = self.position.step / max(steps - 1, 1)
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = config.lr * (1 - (1 - config.lr_end) * done)

    def _loss(self, rows: Ints) -> Tensor:
        config, positives = self.config, self.positives
        draw = np.random.default_rng([config.seed, self.position.epoch, self.position.batch, 1])
        places, owners = positives.item[rows], positives.user[rows]
        users, items = self._vectors(rows, places, owners, draw)
        own, negatives, hidden = self._own(owners, draw)
        if config.loss == "bpr":
            assert own is not None
            return bpr_loss(users, items, own, config.temperature, hidden)
        where = torch.from_numpy(places)
        log_q = self._log_q(where)
        drawn, remembered = self._drawn(draw), self._remembered(items, where)
        taken = self._taken(owners, places, [*drawn, *remembered])
        prior = None
        if config.popularity and negatives is not None:
            prior = config.popularity * self.log_q[negatives]
        if hidden is not None:
            prior = torch.zeros(hidden.shape) if prior is None else prior
            prior = prior.masked_fill(hidden, -torch.inf)
        cold = config.cold == "remarnet"
        margin = config.margin if cold else 0.0

        def over(items: Tensor, own: Tensor | None, shared: list[Shared]) -> Tensor:
            columns = len(places) + sum(len(each.places) for each in shared)
            return softmax_loss(
                users, items, where, config.temperature, log_q, tuple(shared), own,
                among_first(taken, columns), prior, margin,
            )  # fmt: skip

        loss = over(items, own, drawn)
        if remembered:
            # What is stored does not move: were the batch's items to learn beside it, they would
            # be drawn to their users and hardly driven from others. So the users alone do.
            still = [replace(each, vectors=each.vectors.detach()) for each in drawn]
            still_own = None if own is None else own.detach()
            loss = (loss + over(items.detach(), still_own, [*still, *remembered])) / 2
        if cold and config.relation:
            loss = loss + relation(users, positives, owners, places, log_q, config, taken)
        return loss

    def _taken(
        self, owners: Ints, places: Ints, shared: Sequence[Shared]
    ) -> tuple[Tensor, Tensor] | None:
        """Rows and columns, of the batch and then of `shared`, of what a row's user took."""
        if not self.config.mask_taken:
            return None
        columns = np.concatenate([places, *(each.places.numpy() for each in shared)])
        rows, columns = self.positives.met(owners, columns)
        return torch.from_numpy(rows), torch.from_numpy(columns)

    def _vectors(
        self, rows: Ints, places: Ints, owners: Ints, draw: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Vectors of the rows' users and items, `[B, D]` each."""
        positives, layout = self.positives, self.positives.layout
        both = layout.read_pairs(positives.context, rows, positives.item_columns, places)
        if both is not None:
            return self.model.pairs(*both)
        history = positives.histories(owners, places, draw) if layout.history else None
        users = layout.read(positives.context, rows, item=False, history=history)
        return self.model.users(users), self._items(places)

    def _items(self, places: Ints) -> Tensor:
        read = self.positives.layout.read(self.positives.item_columns, places, item=True)
        return self.model.items(read)

    def _own(
        self, owners: Ints, draw: np.random.Generator
    ) -> tuple[Tensor | None, Ints | None, Tensor | None]:
        """Negatives of each row: hard ones, and for pairs drawn ones.

        Returns:
            Vectors `[B, H, D]`, places `[B, H]`, and which are none, bool `[B, H]`: where a user
            took nearly all items, taken ones are among what is drawn.
        """
        found = []
        if self.config.loss == "bpr":
            found.append(unseen(self.positives, owners, max(self.config.sampled, 1), draw))
        if self.near is not None:
            found.append(hard(self.positives, self.near, owners, self.config.hard, draw))
        if not found:
            return None, None, None
        places = np.concatenate(found, axis=1)
        taken = self.positives.has(owners[:, None], places)
        hidden = torch.from_numpy(taken) if taken.any() else None
        return self._items(places.reshape(-1)).reshape(*places.shape, -1), places, hidden

    def _drawn(self, draw: np.random.Generator) -> list[Shared]:
        """Items drawn alike, for the whole batch."""
        count, size = self.config.sampled, len(self.positives.items.ids)
        if not count:
            return []
        places = draw.integers(0, size, count)
        # The correction of a chance that all share is that of one draw among so many items.
        log_q = torch.full((count,), -self.config.correction * math.log(size))
        log_q -= self.config.popularity * self.log_q[places]
        return [Shared(self._items(places), torch.from_numpy(places), log_q)]

    def _remembered(self, items: Tensor, places: Tensor) -> list[Shared]:
        """The memory as this step reads it; then the batch is stored."""
        if self.memory is None:
            return []
        vectors = self.memory.read(items.detach())
        held = self.memory.places.clone()
        found = []
        if self.position.epoch >= self.config.memory_after and len(held):
            log_q = weighed(self._log_q(held), len(held), len(places), self.config.memory_share)
            found = [Shared(vectors.clone(), held, log_q, self.config.memory_hardest)]
        self.memory.put(items, places)
        return found

    def _log_q(self, places: Tensor) -> Tensor | None:
        share = self.config.correction - self.config.popularity
        return share * self.log_q[places] if share else None

    @cached_property
    def log_q(self) -> Tensor:
        """The log of each item's share of the positives `[I]`."""
        return self.positives.log_q

    def _nearest(self) -> npt.NDArray[np.int32] | None:
        """The nearest items of each user, from the weights that the epoch begins with."""
        if not self.config.hard or self.position.epoch == 0:
            return None
        users = user_vectors(self.model, self.positives)
        items = item_vectors(self.model, self.positives)
        return nearest(self.positives, users, items, self.config.hard_depth)

    def _validate(self) -> None:
        """End the epoch: rank, keep the best weights, decide whether to go on."""
        at, config = self.position, self.config
        began = time.perf_counter()
        self.life.epoch_ended()
        at.epoch += 1
        figures: dict[str, Any] = {"epoch": at.epoch, "loss": at.loss / max(at.rows, 1)}
        better = True
        if self.ranking is not None:
            served = None
            if config.cold == "remarnet":
                items, _ = leaned(self.model, self.positives, self.ranking, config)
                served = among(self.model, self.positives, self.ranking, items)
            found = measure(self.model, self.positives, self.ranking, self.progress, served)
            figures |= {name: found[name] for name in self.ranking.config.names}
            better = at.best is None or figures[config.best_by] > at.best
            at.best = figures[config.best_by] if better else at.best
        at.valid.append(figures)
        at.worse_epochs = 0 if better else at.worse_epochs + 1
        if better:
            at.best_epoch = at.epoch
            if self.stage.last:
                checkpoint.save_best(self.folder, at, self.model)
        if at.training_bytes == 0:
            at.training_bytes = training_bytes(self.model, self.optimizers)
        at.seconds += time.perf_counter() - began
        self._show(len(self.positives), at.epoch, figures.get(config.best_by))
        at.batch = at.rows = 0
        at.loss = 0.0
        if self.stage.last:
            stopped = self.ranking is not None and 0 < config.patience <= at.worse_epochs
            at.finished = at.epoch >= config.epochs or stopped

    def _checkpoint(self) -> None:
        checkpoint.save(
            self.folder, self.position, self.model, self.optimizers, self.memory, self.plan
        )

    def _show(self, done: int, epoch: int, valid: float | None = None) -> None:
        at = self.position
        facts = {"loss": round(at.loss / max(at.rows, 1), 4)}
        if valid is not None:
            facts[f"valid_{self.config.best_by}"] = round(valid, 4)
        if at.best is not None:
            facts["best"] = round(at.best, 4)
        speed = round(at.all_rows / max(at.step_seconds, 1e-9))
        stage = f"epoch {epoch}/{self.config.epochs}"
        self.progress(stage, done, len(self.positives), rows_per_second=speed, **facts)
