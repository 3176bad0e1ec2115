"""A training that is taught: the teacher, what it says of each batch, and learned targets."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bitfold.data.schema import Schema
from bitfold.errors import BitfoldError
from bitfold.nets.distilling import distill
from bitfold.nets.label_generator import LabelGenerator, Rows, meta_loss
from bitfold.nets.model import ClickModel, click_loss
from bitfold.runs.config import RunConfig
from bitfold.runs.folder import load
from bitfold.runs.ids import other_ids
from bitfold.runs.manifest import identity
from bitfold.runs.run import Run
from bitfold.runs.teaching import TeacherConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from bitfold.data.batch import Batch

HELD = 16  # one row in so many judges learned targets
RATE = 1e-3  # of the label generator's Adam
CLICKS = ("label", "negative_rate", "negatives", "negatives_by")
"""Options of a log that change neither ids nor numbers, but what a probability is of."""

_MIXERS = (-0x61C8864680B583EB, -0x40A7B892E31B1A47)  # odd: products are one to one


class Teaching:
    """What the loop asks for a loss when a run teaches it.

    Args:
        run: the teacher: served, frozen, in evaluation mode.
        config: what it counts for, and whether targets are learned.
        seed: what a label generator's first weights are drawn from.
        lr: the rate of the virtual step that judges learned targets: the student's own.
    """

    def __init__(self, run: Run, config: TeacherConfig, *, seed: int, lr: float) -> None:
        self.run, self.share, self.lr = run, config.teacher_share, lr
        self.generator: LabelGenerator | None = None
        self.optimizers: list[torch.optim.Optimizer] = []
        if config.teacher_meta:
            self.generator = LabelGenerator(self.share, seed=seed).to(run.device)
            self.optimizers = [torch.optim.Adam(self.generator.parameters(), lr=RATE)]

    @classmethod
    def of(cls, config: RunConfig, fabric: "Fabric") -> "Teaching | None":
        """The teaching of a run's configuration, if there is any.

        Raises:
            BitfoldError: the teacher is no finished run, or not the one that was named at first; or
                targets cannot be learned by this training.
        """
        words = config.taught
        if words.teacher is None:
            return None
        found = identity(Path(words.teacher))
        if found != config.teacher_digest:
            raise BitfoldError(
                "the teacher is not the one that this training began with",
                got=f"{words.teacher}, another run",
                expected=f"the run {config.teacher_digest}",
                fix="name the run as it was with --teacher, or train anew with --force",
            )
        if words.teacher_meta and fabric.world_size > 1:
            raise BitfoldError(
                "learned targets follow the gradients of one process",
                got=f"teacher_meta, {fabric.world_size} processes",
                expected="one",
                fix="train with devices=1, or without --teacher-meta",
            )
        if words.teacher_meta and config.train.network == "lr":
            raise BitfoldError(
                "learned targets follow the weights above the embeddings",
                got="teacher_meta with logistic regression, which has none",
                expected="another network",
                fix="say --network deepfm, or leave --teacher-meta out",
            )
        run = load(words.teacher, fabric.device)
        return cls(run, words, seed=config.train.seed, lr=config.train.lr)

    def check(self, log: Schema) -> None:
        """Raise unless the teacher reads this log's rows as the log has them.

        Raises:
            BitfoldError: it was trained on other ids or numbers, or to tell something else.
        """
        ours, theirs = log.to_json()["data"], self.run.schema.to_json()["data"]
        found = other_ids(log, self.run.schema)
        for name in CLICKS:
            if found is None and ours[name] != theirs[name]:
                found = f"with another {name}", ours[name], theirs[name]
        if found is not None:
            how, got, expected = found
            raise BitfoldError(
                f"the log was prepared {how} than the teacher's",
                got=got,
                expected=expected,
                fix="train the teacher on this log, or prepare the log as the teacher's was",
            )

    def learned(self, batch: "Batch") -> "Batch":
        """The batch as the student learns it: rows that are held out weigh nothing."""
        if self.generator is None:
            return batch
        weights = (~held_out(batch)).to(batch.numeric.dtype)
        return replace(batch, weights=weights if batch.weights is None else weights * batch.weights)

    def loss(self, model: ClickModel, module: Any, batch: "Batch", theirs: "Batch") -> Tensor:
        """The student's loss on a batch, which `learned` has made.

        Args:
            model: the student.
            module: the student as it is called with a batch's tensors.
            batch: its batch.
            theirs: the same rows, with the ids that the teacher takes.
        """
        assert batch.labels is not None
        with torch.no_grad():
            said = self.run.model(theirs)
        if self.generator is None:
            logits = module(batch.ids, batch.offsets, batch.numeric)
            return distill(logits, batch.labels, said, self.share, weights=batch.weights)
        with inputs_of(model.network) as inputs:
            logits = module(batch.ids, batch.offsets, batch.numeric)
        rows = Rows(
            inputs[0][0].detach().float(), batch.numeric, batch.labels, said, theirs.weights
        )
        self._learn(model.network, rows, held_out(batch))
        with torch.no_grad():
            targets = self.generator(batch.labels, said, logits)
        return click_loss(logits, targets, batch.weights)

    def _learn(self, network: nn.Module, rows: Rows, held: Tensor) -> None:
        """Make a step of the label generator."""
        assert self.generator is not None
        if not bool(held.any()) or bool(held.all()):
            return
        loss = meta_loss(network, self.generator, rows.taken(~held), rows.taken(held), self.lr)
        (optimizer,) = self.optimizers
        grads = torch.autograd.grad(loss, list(self.generator.parameters()))
        for weight, grad in zip(self.generator.parameters(), grads, strict=True):
            weight.grad = grad
        optimizer.step()
        optimizer.zero_grad()


def held_out(batch: "Batch") -> Tensor:
    """Which rows of a batch judge learned targets, bool `[B]`: one in `HELD`.

    A row's ids and numbers decide, so that it is held out in every epoch, whatever the order and
    wherever a training goes on, and rows that are alike are held out together.
    """
    count, rows = batch.ids, batch.rows
    if batch.offsets is None:
        cells = _mixed(count)
    else:  # a bag is the sum of its ids; sums of int64 wrap
        sums = torch.cat([count.new_zeros(1), _mixed(count).cumsum(0)])[batch.offsets.long()]
        cells = sums.diff().view(-1, rows).T
    cells = torch.cat([cells, batch.numeric.contiguous().view(torch.int32).long()], 1)
    places = torch.arange(1, cells.shape[1] + 1, device=cells.device) * _MIXERS[1]
    words = _mixed(_mixed(cells + places).sum(1))
    return words.remainder(HELD) == 0


def _mixed(words: Tensor) -> Tensor:
    """Words of 64 bits, each mixed."""
    for factor in _MIXERS:
        words = words * factor
        words = words ^ (words >> 32)
    return words


@contextmanager
def inputs_of(module: nn.Module) -> Iterator[Sequence[Any]]:
    """What a module is called with meanwhile."""
    found: list[Any] = []

    def keep(_: nn.Module, given: Any) -> None:
        found.append(given)

    handle = module.register_forward_pre_hook(keep)
    try:
        yield found
    finally:
        handle.remove()
