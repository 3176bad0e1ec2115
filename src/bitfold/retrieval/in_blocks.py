"""The mean cross entropy of a batch against many vectors, a block of rows after another.

All scores of a batch are a matrix `[B, N]`, 64 MiB at 4,096 rows, and autograd holds several of it.
Here a block of rows is scored, and its loss and gradients are made at once, while its scores are in
the processor's cache. What is held is one block, and the gradients.

Shapes: `B` rows, each of which took the item at its own place of the first group; `N` vectors of
all groups; `H` further ones of each row; `D` the width; `b` rows of a block.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bitfold.ranking.questions import blocks

SCORES = 1 << 18
"""How many scores a block has, if that is a row or more: 1 MiB of float32."""


@dataclass(frozen=True)
class Shared:
    """Vectors that all rows of a batch are scored against.

    Args:
        vectors: `[N, D]`.
        places: int64 `[N]`, which items they are of.
        log_q: `[N]`, the log of the chance to be drawn; None where it is not corrected for.
        hardest: take only so many of each row, the nearest; 0 takes all.
    """

    vectors: Tensor
    places: Tensor
    log_q: Tensor | None = None
    hardest: int = 0


@dataclass(frozen=True)
class Scoring:
    """How a batch is scored: all that does not learn.

    Args:
        groups: what all rows are scored against; the batch's own items first.
        hidden: rows, ascending, and columns of scores that count for nothing; or None.
        prior: `[B, H]`, what the scores of each row's own vectors have beside them, or None.
        margin: taken off each row's score of the item that it took.
    """

    groups: Sequence[Shared]
    hidden: tuple[Tensor, Tensor] | None = None
    prior: Tensor | None = None
    margin: float = 0.0

    def block(self, users: Tensor, own: Tensor | None, start: int) -> Tensor:
        """The scores `[b, N + H]` of a block of rows; -inf is what counts for nothing.

        Args:
            users: `[b, D]`.
            own: `[b, H, D]`, or None.
            start: the first of the rows.
        """
        parts = []
        stop = start + len(users)
        for group, none in zip(self.groups, self._nothing(start, stop), strict=True):
            found = users @ group.vectors.T
            if group.log_q is not None:
                found -= group.log_q
            found.masked_fill_(none, -torch.inf)
            if 0 < group.hardest < found.shape[1]:
                values, columns = found.topk(group.hardest, dim=1)
                found = torch.full_like(found, -torch.inf).scatter_(1, columns, values)
            parts.append(found)
        parts[0][:, start:stop].diagonal().sub_(self.margin)
        if own is not None:
            found = (own @ users[:, :, None]).squeeze(2)
            parts.append(found if self.prior is None else found + self.prior[start:stop])
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _nothing(self, start: int, stop: int) -> Sequence[Tensor]:
        """Which scores of some rows count for nothing, bool `[b, N]` of each group.

        A row's own item does not, wherever it comes again; at the row's own place it does.
        """
        places = [group.places for group in self.groups]
        found = places[0][start:stop, None] == torch.cat(places)
        if self.hidden is not None:
            rows, columns = self.hidden
            first, last = torch.searchsorted(rows, rows.new_tensor([start, stop])).tolist()
            found[rows[first:last] - start, columns[first:last]] = True
        found[:, start:stop].fill_diagonal_(False)
        return torch.split(found, [len(each) for each in places], dim=1)


class CrossEntropy(torch.autograd.Function):
    """The mean over rows of the cross entropy of their scores; a row's own item is right.

    `apply(scoring, users, own, *vectors)`: users `[B, D]`, own `[B, H, D]` or None, and the
    vectors `[N, D]` of each group.
    """

    @staticmethod
    def forward(
        ctx: Any, scoring: Scoring, users: Tensor, own: Tensor | None, *vectors: Tensor
    ) -> Tensor:
        """The loss; what `backward` gives is made on the way."""
        grads = [
            torch.zeros_like(each) if each is not None and learns else None
            for each, learns in zip((users, own, *vectors), ctx.needs_input_grad[1:], strict=True)
        ]
        total, width = users.new_zeros(()), sum(map(len, vectors))
        for start, stop in blocks(len(users), max(1, SCORES // width)):
            some, theirs = users[start:stop], None if own is None else own[start:stop]
            logs = scoring.block(some, theirs, start).log_softmax(dim=1)
            right = logs[:, start:stop].diagonal()
            total -= right.sum()
            logs.exp_()
            right -= 1  # of `logs`, which are the loss's slopes by the scores now
            _add(grads, logs, some, theirs, vectors, start)
        ctx.save_for_backward(*grads)
        ctx.count = len(users)
        return total / len(users)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """What was made."""
        share = grad / ctx.count
        return None, *(None if each is None else each * share for each in ctx.saved_tensors)


def _add(
    grads: Sequence[Tensor | None],
    slopes: Tensor,
    users: Tensor,
    own: Tensor | None,
    vectors: Sequence[Tensor],
    start: int,
) -> None:
    """Add what a block's slopes `[b, N + H]` give to the gradients that are wanted."""
    widths = [len(each) for each in vectors]
    *shared, last = torch.split(slopes, [*widths, slopes.shape[1] - sum(widths)], dim=1)
    for_users, for_own, *for_vectors = grads
    if for_users is not None:
        mine = for_users[start : start + len(users)]
        for slope, each in zip(shared, vectors, strict=True):
            mine.addmm_(slope, each)
        if own is not None:
            mine += (last[:, None] @ own).squeeze(1)
    if for_own is not None:
        for_own[start : start + len(users)] = last[:, :, None] * users[:, None]
    for slope, grad in zip(shared, for_vectors, strict=True):
        if grad is not None:
            grad.addmm_(slope.T, users)
