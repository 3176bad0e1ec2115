"""The same search for everybody: a grid of learning rate x weight decay, chosen by validation AUC.

Each method at each budget, the full table and the floors try every point of the grid on the first
seed. The best validation AUC chooses (of equals the earlier point), and all seeds are trained with
the chosen options. The test part is never looked at.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bitfold.comparison.config import Cell, CompareConfig
from bitfold.errors import BitfoldError, Diverged

if TYPE_CHECKING:
    from bitfold.data.prepared import PreparedLog
    from bitfold.training import TrainConfig

Row = dict[str, Any]
Trained = Callable[[Cell, "TrainConfig"], Row]
AXES = ("lr", "embedding_decay")
GRID_WORDS = ("grid_lr", "grid_decay")


@dataclass
class Grid:
    """The points that everybody tries, and what became of them.

    Args:
        lr: learning rates.
        embedding_decay: weight decays of the embeddings.
        searched: whether there is anything to choose; if not, the options of training stand.
        seed: the first seed, on which the points are tried.
        cells: each tried point with its validation AUC (None where training diverged).
        choices: the chosen point of each method and budget; `edge` names the options that lie at an
            end of their axis, where a better value may lie beyond.
    """

    lr: tuple[float, ...]
    embedding_decay: tuple[float, ...]
    searched: bool
    seed: int
    cells: list[Row] = field(default_factory=list)
    choices: list[Row] = field(default_factory=list)

    @classmethod
    def of(cls, config: CompareConfig, train: "TrainConfig") -> "Grid":
        """The grid of a comparison; an axis that is not said is the option of training alone."""
        return cls(
            lr=config.grid_lr or (train.lr,),
            embedding_decay=config.grid_decay or (train.embedding_decay,),
            searched=bool(config.grid_lr or config.grid_decay),
            seed=train.seed,
        )

    @property
    def points(self) -> list[dict[str, Any]]:
        """All points, in the order in which they are tried."""
        return [{"lr": lr, "embedding_decay": d} for lr in self.lr for d in self.embedding_decay]

    def check(self, log: "PreparedLog") -> None:
        """Raise where a point could not be chosen."""
        if self.searched and not log.rows.get("valid"):
            raise BitfoldError(
                "a grid chooses by validation AUC, and this log has no validation part",
                got=", ".join(f"{part} {rows:,}" for part, rows in log.rows.items()),
                expected="rows in the valid part",
                fix="choose another --split, or leave out --grid-lr and --grid-decay",
            )

    def trainings(self, cells: Sequence[Cell]) -> int:
        """How many trainings these cells take, tried points included."""
        return sum(len(self.points) if self._searches(cell) else 1 for cell in cells)

    def best(self, cell: Cell, training: "TrainConfig", trained: Trained) -> Row:
        """The figures of a cell, trained with the options that the grid chose.

        Args:
            cell: of a method and budget, those of the first seed come first.
            training: the cell's options of training.
            trained: gives the figures of a cell, trained now or kept from before.
        """
        if not self.searched:
            return trained(cell, training)
        if self._searches(cell):
            return self._try_all(cell, training, trained)
        chosen = next(
            choice
            for choice in self.choices
            if (choice["method"], choice["budget"]) == (cell.variant.name, cell.budget)
        )
        return trained(cell, replace(training, **{name: chosen[name] for name in AXES}))

    def _searches(self, cell: Cell) -> bool:
        return self.searched and cell.seed == self.seed

    def _try_all(self, cell: Cell, training: "TrainConfig", trained: Trained) -> Row:
        best: Row | None = None
        chosen: Row = {}
        for point in self.points:
            tried = replace(cell, tried=f"lr={point['lr']} decay={point['embedding_decay']}")
            here = {"method": cell.variant.name, "budget": cell.budget, **point}
            try:
                row = trained(tried, replace(training, **point))
                here["valid_auc"] = (row["valid"] or {}).get("auc")
            except Diverged:
                here["valid_auc"] = None
            self.cells.append(here)
            if here["valid_auc"] is None:
                continue
            if best is None or here["valid_auc"] > chosen["valid_auc"]:
                best, chosen = row, here
        if best is None:
            raise BitfoldError(
                f"training of {cell.title} diverged at every point of the grid",
                got=f"learning rates {', '.join(f'{lr:g}' for lr in self.lr)}",
                expected="one that trains",
                fix="give lower ones with --grid-lr",
            )
        self.choices.append(chosen | {"edge": self.edge(chosen)})
        return best

    def edge(self, chosen: Mapping[str, Any]) -> list[str]:
        """The options whose chosen value lies at an end of their axis.

        A decay of 0 is no end: nothing lies beyond it. An axis of one value has no ends.

        Example:
            >>> grid = Grid((1e-3, 2e-3), (0.0, 1e-6), searched=True, seed=0)
            >>> grid.edge({"lr": 2e-3, "embedding_decay": 0.0})
            ['lr']
        """
        return [
            name
            for name in AXES
            if len(getattr(self, name)) > 1
            and chosen[name] != 0
            and chosen[name] in (min(getattr(self, name)), max(getattr(self, name)))
        ]

    def to_json(self) -> Row:
        """What `results.json` holds under `grid`."""
        return {
            "searched": self.searched,
            "lr": list(self.lr),
            "embedding_decay": list(self.embedding_decay),
            "seed": self.seed,
            "chosen_by": "validation AUC" if self.searched else "nothing: the training options",
            "cells": self.cells,
            "choices": self.choices,
        }
