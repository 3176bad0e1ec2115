"""What a method is: options, and a plan for fields, a width and a budget."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from bitfold.address.fingerprint import FINGERPRINT_BYTES
from bitfold.address.program import Program
from bitfold.config import check_choices, option, to_json
from bitfold.embedder.contract import Embedder
from bitfold.embedder.corridor import Corridor
from bitfold.errors import BitfoldError
from bitfold.planning.field import Field
from bitfold.planning.plan import Plan, dtype_size


@dataclass(frozen=True)
class Method(ABC):
    """One way to make vectors of ids. A subclass is a frozen dataclass of its options (words).

    Register it by its name in `bitfold.method.registry`, by an entry point of the group
    `bitfold.methods`, or with `--plugin FILE`.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    summary: ClassVar[str]
    when: ClassVar[str]
    hashed_ids: ClassVar[bool] = True

    std: float = option(
        0.01, help="deviation of a fresh vector's components; raise it for models without an MLP"
    )

    def __post_init__(self) -> None:
        check_choices(self)
        if not 0 < self.std < math.inf:
            raise BitfoldError("std is out of range", got=self.std, expected="a number above 0")

    @abstractmethod
    def plan(
        self, fields: Sequence[Field], dim: int, budget: int | None, *, seed: int, dtype: str
    ) -> Plan:
        """How the fields' vectors are stored within `budget` bytes.

        Raises:
            BudgetTooSmall: if nothing fits; it names the least number of bytes that does.
        """

    def build(
        self, plan: Plan, *, seed: int | None, device: torch.device | str | None, sparse: bool
    ) -> Embedder:
        """The module that a plan describes, its weights drawn from `seed`, or torch's generator."""
        return Corridor(plan, std=self.std, seed=seed, device=device, sparse=sparse)

    def finish(
        self,
        fields: Sequence[Field],
        dim: int,
        budget: int | None,
        dtype: str,
        program: Program,
        fusion: str,
    ) -> Plan:
        """The plan of a corridor method, its bytes counted and held against the budget."""
        if program.rows >= 1 << 63:
            raise BitfoldError(
                f"method {self.name!r} would number more cells than an int64 can",
                got=f"{program.rows} rows",
                expected="fewer than 2**63",
                fix="fewer code_bits, or more blocks",
            )
        kinds = bytes_of(program, dim, dtype, fusion)
        plan = Plan(
            method=self.name,
            method_version=self.version,
            options=to_json(self),
            fields=tuple(fields),
            embedding_dim=dim,
            budget=budget,
            dtype=dtype,
            program=program,
            fusion=fusion,
            by_kind=kinds,
        )
        assert budget is None or plan.bytes <= budget, "a plan exceeds its budget"
        return plan


def bytes_of(program: Program, dim: int, dtype: str, fusion: str) -> dict[str, int]:
    """Serving bytes by kind of a corridor method."""
    width, size = dim // program.chunks, dtype_size(dtype)
    kinds = {"weights": program.rows * width * size}
    if fusion == "weighted":
        kinds["fusion"] = program.lookups * size
    if not program.plain:
        kinds["fingerprint"] = FINGERPRINT_BYTES
    return kinds


def dense_only(method: str, fields: Sequence[Field]) -> None:
    """Raise if a field has hashed ids."""
    for field in fields:
        if field.num_embeddings is None:
            raise BitfoldError(
                f"method {method!r} keeps a row per id and cannot take hashed ids",
                got=f"field {field.name!r} without num_embeddings",
                expected="dense ids 0..V-1",
                fix="map the values to dense ids with a vocabulary, or choose hash or binary-code",
            )


def check_options(method: str, options: Mapping[str, Any], **least: int) -> None:
    """Raise unless each named option is None or at least its least value."""
    for name, minimum in least.items():
        value = options[name]
        if value is not None and value < minimum:
            raise BitfoldError(
                f"{name} of method {method!r} is too small",
                got=value,
                expected=f"{minimum} or more",
            )
