"""Aligned memory: one budget for tables, network, copies of its layers and stored rows.

Source: Zhou et al., A Model or 603 Exemplars, ICLR 2023 (arXiv 2205.13218).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bitfold.data.schema import Schema
from bitfold.errors import BitfoldError, BudgetTooSmall
from bitfold.method.sets import plan_sets
from bitfold.nets.expanding import ExpandingNetwork
from bitfold.planning.budget import parse_budget
from bitfold.planning.plan import Plan
from bitfold.runs import folder as runs
from bitfold.runs.options import TrainConfig
from bitfold.streaming.config import StreamConfig
from bitfold.streaming.strategies import make_strategy
from bitfold.streaming.strategy import Strategy


@dataclass(frozen=True)
class Beside:
    """What a stream holds beside its tables, in bytes.

    Args:
        network: of the network that is trained.
        copies: of the places for copies of its last layers, and what says how they are mixed.
        rows: of stored rows.
    """

    network: int
    copies: int
    rows: int

    @classmethod
    def of(cls, network: nn.Module, strategy: Strategy) -> "Beside":
        """Counted from the modules themselves."""
        size = sum(tensor.nbytes for tensor in network.state_dict().values())
        copies = network.copy_bytes if isinstance(network, ExpandingNetwork) else 0
        return cls(size - copies, copies, strategy.row_bytes)

    @property
    def total(self) -> int:
        """All kinds together."""
        return self.network + self.copies + self.rows

    def figures(self) -> dict[str, int]:
        """As a line of the record has them."""
        return {
            "network_bytes": self.network,
            "copy_bytes": self.copies,
            "row_bytes": self.rows,
        }

    def __str__(self) -> str:
        kinds = {"network": self.network, "copies": self.copies, "rows": self.rows}
        return ", ".join(f"{kind} {size:,}" for kind, size in kinds.items() if size)


def check_aligned(train: TrainConfig, config: StreamConfig) -> None:
    """Raise for aligned memory without a budget to align to.

    Raises:
        BitfoldError: there is none.
    """
    if config.memory == "aligned" and train.budget is None:
        raise BitfoldError(
            "aligned memory needs a budget",
            got="--memory aligned, and no --budget",
            expected="bytes for all that is kept",
            fix="say --budget 10MiB, or leave out --memory",
        )


def beside_of(schema: Schema, train: TrainConfig, config: StreamConfig) -> Beside:
    """What a stream will hold beside its tables, before anything is made."""
    with torch.device("meta"):
        model = runs.build_model(nn.Identity(), schema, train, seed=train.seed)
        return Beside.of(model.network, make_strategy(config, schema, train.seed))


def plan_aligned(
    schema: Schema, train: TrainConfig, config: StreamConfig, *, budget: str, **asked: Any
) -> Plan:
    """A plan of the tables, within what the budget leaves them.

    Raises:
        BudgetTooSmall: it leaves too little; `.minimum` is for all that is kept.
    """
    fields, width, sets = schema.embedding_fields(), train.vector_width, train.embedding_sets
    whole = parse_budget(budget, fields, width)
    beside = beside_of(schema, train, config)
    left = whole - beside.total
    try:
        plan = plan_sets(fields, width, sets, budget=max(left, 1), **asked)
        if left >= 1:
            return plan
        least = 1
    except BudgetTooSmall as error:
        least = error.minimum
    raise BudgetTooSmall(
        f"strategy {config.strategy!r} leaves too little to the tables of {train.method!r}",
        minimum=beside.total + least,
        got=f"{whole:,} bytes, of which {beside.total:,} are taken: {beside}",
        fix=f"raise the budget to {beside.total + least} bytes, or keep fewer rows or copies, or "
        "a smaller network",
    ) from None
