"""The life of embedders in a training: prepared once, put in order between steps."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from bitfold.embedder.contract import Embedder, Progress, embedders
from bitfold.embedder.grouped import Grouped
from bitfold.errors import BitfoldError
from bitfold.optim.moves import carry
from bitfold.planning.statistics import Statistics
from bitfold.pool.moved import RowMove


class Lifecycle:
    """Drives the embedders of a model; for the loop of `bitfold train`, and for anybody's.

    Embedders that watch gradients do so by themselves. What is left is to call `prepare` before
    the first step, `step` after each, and `epoch_ended` before an epoch is measured.

    Args:
        model: with embeddings of bitfold.
        optimizers: those that may keep state beside their tables, torch's own included.
        fill_unseen: whether rows that no training id reads get the mean of the others.
        epochs: how many there will be, 0 where nobody knows.
        epoch_steps: how many steps an epoch has, 0 where nobody knows.

    Example:
        >>> import bitfold
        >>> layer = bitfold.Embedding(1000, 8, budget="10x")
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        >>> life = Lifecycle(layer, [optimizer])
        >>> layer(torch.tensor([1, 2])).sum().backward()
        >>> optimizer.step()
        >>> life.step()
        >>> life.epoch_ended()
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer] = (),
        *,
        fill_unseen: bool = True,
        epochs: int = 0,
        epoch_steps: int = 0,
    ) -> None:
        self.optimizers = list(optimizers)
        self.embedders = [part for part in embedders(model) if not isinstance(part, Grouped)]
        for part in self.embedders:
            part.fills_unseen = fill_unseen
        self._every = [part for part in self.embedders if part.every]
        self._hears = [part for part in self.embedders if part.hears]
        self.steps, self.epoch, self.epochs, self.epoch_steps = 0, 0, epochs, epoch_steps
        self.watch: Callable[[Embedder, Sequence[RowMove]], None] | None = None

    @property
    def needs_statistics(self) -> bool:
        """Whether an embedder has something to prepare."""
        return any(part.prepares for part in self.embedders)

    def prepare(self, stats: Statistics) -> None:
        """Tell every embedder what the training part is like."""
        for part in self.embedders:
            part.prepare(stats)

    def at(self, step: int, epoch: int) -> None:
        """Go on from there, as a resumed training does."""
        self.steps, self.epoch = step, epoch

    def step(self, loss: float | Tensor | None = None) -> None:
        """A step was made.

        Args:
            loss: its mean loss, for embedders that are led by it (`scall`).
        """
        self.steps += 1
        if loss is not None:
            for part in self._hears:
                part.hear(float(loss))
        for part in self._every:
            if self.steps % part.every == 0:
                self._maintain(part)

    def epoch_ended(self) -> None:
        """An epoch's last step was made."""
        self.epoch += 1
        for part in self.embedders:
            self._maintain(part)

    def _maintain(self, part: Embedder) -> None:
        at = Progress(self.steps, self.epoch, self.epochs, self.epoch_steps)
        moves = part.maintain(at)
        carry(self.optimizers, moves)
        if self.watch is not None:
            self.watch(part, moves)

    def refuse_processes(self, count: int) -> None:
        """Raise if several processes would come to other tables.

        Raises:
            BitfoldError: an embedder changes rows by what its own process sees.
        """
        for part in self.embedders:
            if count > 1 and (part.observes or part.every):
                raise BitfoldError(
                    f"method {part.plan.method!r} moves rows by the gradients of one process",
                    got=f"{count} processes",
                    expected="one",
                    fix="train with devices=1",
                )
