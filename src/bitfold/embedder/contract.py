"""The contract of embedders: modules that turn the ids of `F` fields into vectors."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bitfold.errors import BitfoldError
from bitfold.planning.plan import Plan
from bitfold.planning.statistics import Statistics
from bitfold.pool.moved import RowMove


class Table(NamedTuple):
    """Trained numbers of an embedder that an optimizer may move row by row.

    Args:
        owner: the module that has them as `weight`.
        weight: `[R, w]`, or `[R]` of a flat array.
        rows: whether a row is what lookups read: not of a flat array, where pieces overlap.
    """

    owner: nn.Module
    weight: Tensor
    rows: bool = True


class Progress(NamedTuple):
    """How far a training is.

    Args:
        step: steps made.
        epoch: epochs ended.
        epochs: epochs in all, 0 where nobody says.
        epoch_steps: steps of an epoch, 0 where nobody says.
    """

    step: int
    epoch: int = 0
    epochs: int = 0
    epoch_steps: int = 0


class Embedder(nn.Module):
    """The contract of a group of fields: `B` rows, `F` fields, `T` ids in bags, `D` width.

    Life cycle, driven by `bitfold.training.lifecycle` or by hand, all of it optional: `prepare`
    once, before the first step; `observe` with each step's gradient, `hear` with its loss;
    `maintain` between steps; `decide` and `inherit` where a phase follows another
    (`bitfold.training.phases`).
    """

    plan: Plan
    sparse: bool = False  # whether gradients are sparse tensors
    prepares: bool = False  # whether `prepare` has something to learn
    observes: bool = False  # whether `observe` wants to be called
    hears: bool = False  # whether `hear` wants to be told losses
    every: int = 0  # how many steps lie between two `maintain`s; 0: an epoch
    multiplies: bool = False  # whether matrices are multiplied, so that batches decide last bits
    exact: bool = True  # whether it serves the very vectors that it trains: not while it searches
    estimates: bool = False  # whether a choice's gradient is an estimate, straight through it
    takes_rows: bool = False  # whether `put_rows` can write vectors as they are
    zeros: bool = False  # whether some ids read zeros for want of numbers of their own
    owned: int = 0  # rows at the head of its table that single ids own, where it says
    fills_unseen: bool = True  # whether rows that no training id reads get the mean of the others

    @property
    def table(self) -> str | None:
        """The name of the parameter that is the only field's table; None where one is computed."""
        return None

    def forward(self, ids: Tensor, padding_idx: int | None = None) -> Tensor:
        """Vectors `[B, F, D]` of int64 ids `[B, F]`; those of `padding_idx` are zero."""
        raise NotImplementedError

    def forward_bags(
        self,
        ids: Tensor,
        offsets: Tensor,
        weights: Tensor | None = None,
        mode: str = "sum",
        padding_idx: int | None = None,
    ) -> Tensor:
        """Vectors `[B, F, D]` of bags: int64 ids `[T]`, offsets `[F * B + 1]`, field-major."""
        raise NotImplementedError

    def vectors(self, ids: Tensor, field: Tensor) -> Tensor:
        """Vectors `[T, D]` of int64 ids `[T]` that are in range, with the field of each `[T]`.

        In torch's own operations: a graph of several groups reads them in place of bags.
        """
        raise NotImplementedError

    def bytes(self, phase: str = "serving") -> dict[str, int]:
        """Bytes by kind, to serve or to train (before any optimizer's state)."""
        if phase not in ("serving", "training"):
            raise BitfoldError("unknown phase", got=phase, expected="serving or training")
        kinds = self.plan.by_kind
        if phase == "training":
            tensors = [*self.parameters(), *self.buffers()]
            kinds["weights"] = sum(each.nbytes for each in tensors)
            kinds["gradients"] = sum(each.nbytes for each in self.parameters())
        return kinds

    def used_bytes(self) -> int | None:
        """Serving bytes but for rows that are reserved and not used yet; None where none are."""
        return None

    def serving(self) -> "Embedder":
        """A packed and frozen copy; the bytes of its state dict are `bytes("serving")`."""
        raise NotImplementedError

    def exact_in_plain(self, mode: str | None) -> bool:
        """Whether plain torch gives the kernels' vectors to the last bit.

        Args:
            mode: how bags are pooled; None for single ids.
        """
        return True

    def resume(self) -> "Embedder":
        """A copy that can be trained on: the inverse of `serving`.

        Raises:
            BitfoldError: training needs more than what serving kept.
        """
        raise BitfoldError(
            f"method {self.plan.method!r} cannot be trained on from its serving form",
            got="a packed and frozen module",
            expected="a training checkpoint",
        )

    def reset_parameters(self) -> None:
        """Draw fresh weights from the seed, or from torch's generator where none was said."""
        raise NotImplementedError

    def redraw(self, std: float, generator: torch.Generator | None = None) -> bool:
        """Draw fresh weights, for vectors of deviation `std`; False if that cannot be done."""
        return False

    def read(self, reading: Callable[[Tensor], Tensor]) -> Tensor:
        """What `reading` makes of the table; for embedders that have one."""
        raise NotImplementedError

    def check(self, ids: Tensor) -> None:
        """Raise `IdOutOfRange` for a dense id of `[B, F]` that has no vector."""
        raise NotImplementedError

    def members(self) -> Iterable[tuple["Embedder", Sequence[int]]]:
        """The embedders that have the fields, with the numbers of those; most often itself."""
        return ((self, range(len(self.plan.fields))),)

    def tables(self) -> Iterable[Table]:
        """The numbers that optimizers may move row by row."""
        return ()

    def factors(self, ids: Tensor, field: Tensor | None = None) -> Tensor | None:
        """What each term counts: signs, importances, masks; None where all count 1.

        Args:
            ids: int64 `[B, F]`, or `[T]` with the field of each id.
            field: int64 `[T]`.

        Returns:
            `[B, F, C, K]` or `[T, C, K]`, with gradients where they are learned.
        """
        return None

    def put_rows(self, field: int, chunks: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Write the vectors of a field's ids, as far as they can be held; where it `takes_rows`.

        Args:
            field: its number.
            chunks: ids int64 `[n]`, their vectors `[n, D]`, and what each counts `[n]`.
        """
        raise NotImplementedError

    def prepare(self, stats: Statistics) -> None:
        """Take what the training part is like: counts, frequent ids, signatures."""

    def observe(self, ids: Tensor, field: Tensor, grad: Tensor) -> None:
        """See a step: `N` ids, the field of each `[N]`, the gradient of their vectors `[N, D]`."""

    def hear(self, loss: float) -> None:
        """Take the mean loss of a step, after it was made, where whoever trains tells it."""

    def maintain(self, at: Progress) -> Sequence[RowMove]:
        """Put the tables in order between two steps; returns the rows that changed places."""
        return ()

    def decide(self, judge: Callable[[], float]) -> None:
        """Settle, at the end of a phase, what only held-out rows can tell.

        Args:
            judge: what the model is worth as it stands, on validation rows; higher is better.
        """

    def inherit(self, before: "Embedder") -> None:
        """Take over what the embedder of the phase before has found, beside what its plan says."""


def embedders(module: nn.Module) -> list[Embedder]:
    """The embedders of a module, those that hold others before them."""
    return [part for part in module.modules() if isinstance(part, Embedder)]
