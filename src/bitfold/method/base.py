"""What a method is: options, and a plan for fields, a width and a budget."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from bitfold.address import Lookup, Program, Raw
from bitfold.address.program import place
from bitfold.config import check_choices, option, to_json
from bitfold.embedder.contract import Embedder
from bitfold.embedder.corridor import Corridor
from bitfold.errors import BitfoldError
from bitfold.method.settling import settled
from bitfold.planning.ask import Ask
from bitfold.planning.field import Field
from bitfold.planning.plan import Plan
from bitfold.planning.slices import slices_of
from bitfold.planning.spec import FEW_BITS, SCALES, Group, PoolSpec, StoredSpec

MOST_STD = 1e6  # far beyond what any model begins with, and far below what float32 holds
Forms = tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Traits:
    """What a method can do and needs, for whoever must choose or prepare.

    Args:
        hashed_ids: whether any int64 can be an id.
        needs_counts: whether it needs to know how often ids occur (`Embedder.prepare`).
        uncompressed: whether it is the full table, which has no budget of its own.
        narrow: whether its pools can be kept in few bits.
        why_wide: why they cannot, where that is so.
    """

    hashed_ids: bool = True
    needs_counts: bool = False
    uncompressed: bool = False
    narrow: bool = True
    why_wide: str = ""


@dataclass(frozen=True)
class Phase:
    """A part of a training, at the end of which a method may plan anew.

    Args:
        name: unique among the method's phases.
        share: of the epochs, between 0 and 1.
        start: `carry` goes on with the weights of the phase before, the network's too, `fresh`
            draws them anew.
    """

    name: str
    share: float
    start: str = "carry"


@dataclass(frozen=True)
class Method(ABC):
    """One way to make vectors of ids. A subclass is a frozen dataclass of its options.

    Register it by its name in `bitfold.method.names`, by an entry point of the group
    `bitfold.methods`, or with `--plugin FILE`.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    summary: ClassVar[str]
    when: ClassVar[str]
    traits: ClassVar[Traits] = Traits()
    needs_bits: ClassVar[bool] = True  # whether few bits must be said, or it finds them itself
    forms: ClassVar[Forms] = ({},)
    """Options that the contract tests try, one mapping a form (`budget` may be among them)."""

    std: float = option(
        0.01, help="deviation of a fresh vector's components; raise it for models without an MLP"
    )
    bits: int | None = option(
        None, help="bits of a served number: 8, 4, 3, 2 or 1; its floating type when not said"
    )
    scale: str = option(
        "slice", help="with few bits: steps that a slice of rows shares, or one a row",
        choices=SCALES,
    )  # fmt: skip

    low_precision: bool = option(
        False, help="with few bits: keep codes while training, too, rounded by chance"
    )
    map: bool = option(
        False, help="give hashed ids places of their own by a compact map, 10.5 bits an id"
    )

    def __post_init__(self) -> None:
        check_choices(self)
        if not 0 < self.std <= MOST_STD:
            raise BitfoldError(
                "std is out of range", got=self.std, expected=f"above 0, up to {MOST_STD:,.0f}"
            )
        if self.low_precision:
            self._check_low_precision()
        if self.bits is None:
            return
        if self.bits not in FEW_BITS:
            expected = ", ".join(str(bits) for bits in FEW_BITS)
            raise BitfoldError(
                "bits is out of range", got=self.bits, expected=f"{expected} or none"
            )
        if not self.traits.narrow:
            raise BitfoldError(
                f"method {self.name!r} does not keep its numbers in few bits",
                got=f"bits={self.bits}",
                expected="bits=none" + (self.traits.why_wide and f": {self.traits.why_wide}"),
            )

    def _check_low_precision(self) -> None:
        """Raise unless pools can be codes while they are trained."""
        got = "low_precision=true"
        if not self.traits.narrow or type(self).build is not Method.build:
            raise BitfoldError(
                f"method {self.name!r} keeps its numbers in floats while they are trained",
                got=got,
                expected="low_precision=false, or a method that is an address, a pool and a fusion",
            )
        if self.bits is None and self.needs_bits:
            raise BitfoldError(
                "low precision is that of few bits", got=f"{got} without bits", expected="bits=4"
            )
        if self.scale != "slice":
            raise BitfoldError(
                "in low precision slices share their steps",
                got=f"{got}, scale={self.scale}",
                expected="scale=slice",
            )

    @property
    def oversize(self) -> bool:
        """Whether it may weigh more than the full table where no budget is said."""
        return self.map

    def refuse_map(self, kept: str) -> None:
        """Raise if places of a map were asked for; `kept` is what each dense id has."""
        if self.map:
            raise BitfoldError(
                f"method {self.name!r} keeps {kept}",
                got="map=true",
                expected="map=false",
                fix="map the values to dense ids with a vocabulary, or choose cce or hot-cold",
            )

    @abstractmethod
    def plan(self, ask: Ask) -> Group:
        """How the fields' vectors are stored within the budget, as one group of all fields.

        Raises:
            BudgetTooSmall: if nothing fits; it names the least number of bytes that does.
        """

    def groups(self, ask: Ask) -> tuple[Group, ...]:
        """How the fields' vectors are stored; several groups for a method that mixes others."""
        return (settled(self.plan, ask),)

    def reasons(self, ask: Ask, groups: Sequence[Group]) -> tuple[str, ...]:
        """Why these groups, a sentence each, for a method that chooses."""
        return ()

    def build(
        self, plan: Plan, *, seed: int | None, device: torch.device | str | None, sparse: bool
    ) -> Embedder:
        """The module of a plan of one group, its weights drawn from `seed`, or by torch."""
        return Corridor(
            plan, std=self.std, seed=seed, device=device, sparse=sparse,
            low_precision=self.low_precision and plan.group.pools[0].packed,
        )  # fmt: skip

    def phases(self, group: Group) -> Sequence[Phase]:
        """The parts of a training; none for a method that plans once."""
        return ()

    def begin(self, plan: Plan) -> Group:
        """The group that the first phase trains, of a plan of one; most often its own.

        A method whose first phase trains another module than a loop without phases does says so.
        """
        return plan.group

    def advance(self, group: Group, embedder: Embedder, phase: Phase) -> Group:
        """The group that the next phase begins with: what this one trained is in the embedder.

        What no group can say, a mask for example, the next embedder takes by `Embedder.inherit`.
        """
        return group

    def whole(self, ask: Ask, width: int | None = None) -> Group | None:
        """A row of its own for every id, for budgets that hold it; its address has no fingerprint.

        Args:
            ask: what the method was asked for.
            width: numbers of a row, `D` if not said.

        Returns:
            None with hashed ids, and where an int64 cannot number the rows.
        """
        sizes = [field.num_embeddings for field in ask.fields]
        known = [size for size in sizes if size is not None]
        bases, rows = place(known)
        if len(known) < len(sizes) or rows >= 1 << 63:
            return None
        lookups = zip(known, bases, strict=True)
        program = Program(1, tuple((Lookup(Raw(), size, base),) for size, base in lookups), rows)
        return self.finish(ask, program, "sum", width=width)

    def finish(
        self,
        ask: Ask,
        program: Program,
        fusion: str,
        *,
        width: int | None = None,
        stored: Sequence[StoredSpec] = (),
        step: int = 0,
    ) -> Group:
        """The group of a method with an address and one pool.

        Args:
            ask: what the method was asked for.
            program: the address; its rows are the pool's.
            fusion: the fusion's name.
            width: numbers of a vector before the head, `D` if not said.
            stored: integers beside the pool.
            step: 1 for a flat array, whose numbers are the program's rows.
        """
        if program.rows >= 1 << 63:
            raise BitfoldError(
                f"method {self.name!r} would number more cells than an int64 can",
                got=f"{program.rows} rows",
                expected="fewer than 2**63",
                fix="fewer code_bits, or more blocks",
            )
        width = width or ask.dim
        slices = slices_of(program, fusion) if ask.packed else ()
        pool = PoolSpec(
            "pool", program.rows, width // program.chunks, ask.numbers, step,
            slices=slices, scale=ask.scale if ask.packed else "slice",
        )  # fmt: skip
        return Group(
            fields=tuple(range(len(ask.fields))),
            method=self.name,
            version=self.version,
            options=to_json(self),
            program=program,
            pools=(pool,),
            stored=tuple(stored),
            fusion=fusion,
            width=width,
            dtype=ask.dtype,
        )


def only(method: str, groups: Sequence[Group]) -> Group:
    """The only one of a method's groups.

    Raises:
        BitfoldError: there are several.
    """
    if len(groups) > 1:
        raise BitfoldError(
            f"method {method!r} stores these fields in several ways",
            got=f"{len(groups)} groups",
            expected="one group",
            fix="ask for groups() in place of plan()",
        )
    return groups[0]


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


def check_options(
    method: str, options: Mapping[str, Any], **ranges: float | tuple[float, float]
) -> None:
    """Raise unless each named option is None or within its range: the least, or least and most."""
    for name, said in ranges.items():
        value = options[name]
        least, most = said if isinstance(said, tuple) else (said, math.inf)
        if value is None or (least <= value <= most and value < math.inf):
            continue
        wrong = "too small" if value < least else "too large" if value > most else "out of range"
        raise BitfoldError(
            f"{name} of method {method!r} is {wrong}",
            got=value,
            expected=f"{most:,} or less" if value > most else f"{least} or more",
        )


def check_chunks(chunks: int | None, dim: int) -> None:
    """Raise if a vector of `dim` numbers has no so many pieces of one width."""
    if chunks and dim % chunks:
        raise BitfoldError(
            "chunks must divide the width",
            got=f"width {dim}, {chunks} chunks",
            expected="a number of chunks that divides the width",
        )
