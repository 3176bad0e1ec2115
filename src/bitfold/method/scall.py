"""SCALL: ids own a part of their vector, more of them or less, as a policy that learns says.

Source: Qu et al., "Scalable Dynamic Embedding Size Search for Streaming Recommendation", CIKM 2024,
arXiv 2407.15411: a soft actor-critic reads the mean frequency of groups of users and of items, says
the parameters of two distributions of sizes, and is paid by the quality of the recommender; sizes
are dealt by frequency under a total. Here each large field has a distribution; sizes are whole
pieces; a piece is found by a compact map, and what an id does not own it shares.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from bitfold.address import Lookup, Mapped, Mixed, Program
from bitfold.address.mixing import derive_salt, field_salt
from bitfold.config import option
from bitfold.embedder.contract import Embedder
from bitfold.embedder.resizing import Resizing
from bitfold.embedder.size_policy import POLICIES
from bitfold.errors import BitfoldError
from bitfold.method.base import Forms, Method, check_chunks, check_options
from bitfold.method.hash import field_sizes
from bitfold.method.hot_rows import check_share, split
from bitfold.planning.ask import Ask
from bitfold.planning.plan import Plan
from bitfold.planning.spec import Group, StoredSpec

MOST_PIECES = 255  # a size is kept in a byte
USUAL_PIECES = 4
OWNED = "owned"  # the name of the map of pieces that ids own


@dataclass(frozen=True)
class Scall(Method):
    """Pieces of their own for the ids that are frequent now; a policy says how many for whom."""

    own: float = option(0.5, help="the share of the budget that owned pieces take, with their map")
    pieces: int | None = option(
        None, help="pieces of a vector, which sizes count; 4 or what divides the width, if not said"
    )
    policy: str = option(
        "scall",
        help="what decides sizes: the actor-critic of the paper; `static`, one distribution for "
        "ever; in proportion to `frequency`; `random` distributions",
        choices=POLICIES,
    )
    distributions: int = option(
        3, help="of sizes: one for each of the largest fields, the last for the others together"
    )
    bands: int = option(8, help="g, groups of ids by frequency, whose means the policy sees")
    shape: float = option(
        4.0, help="the power of the rank that sizes follow before anything is learned; 0: all alike"
    )
    power: float = option(
        0.5, help="with policy=frequency: the power of the frequency that sizes follow"
    )
    drawn: bool = option(
        False, help="draw sizes from their distribution, as in the paper, in place of even shares"
    )
    slots: float = option(1.0, help="slots that count ids, for each owned piece; not served")
    every: int = option(100, help="after how many steps sizes change")
    decay: float = option(0.98, help="what counts are multiplied with then, to follow changes")
    hidden: int = option(32, help="width of the policy's two hidden layers; not served")
    discount: float = option(0.9, help="what a reward counts one change later")

    name: ClassVar[str] = "scall"
    summary: ClassVar[str] = "ids own more or less of their vector, by a policy that learns"
    when: ClassVar[str] = "streams: ids come and go, and how frequent they are changes"
    forms: ClassVar[Forms] = (
        {"every": 3},
        {"every": 2, "policy": "random", "own": 0.8, "drawn": True, "distributions": 1},
        {"every": 2, "policy": "frequency", "pieces": 2, "bits": 4},
        {"every": 4, "policy": "static", "slots": 2.0, "decay": 0.5, "shape": 0.0},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(
            self.name, vars(self), pieces=1, distributions=1, bands=(1, 4096), every=1,
            hidden=(1, 4096),
        )  # fmt: skip
        check_share("own", self.own)
        for name, good, expected in (
            ("decay", 0 < self.decay <= 1, "above 0, up to 1"),
            ("discount", 0 <= self.discount < 1, "0 to below 1"),
            ("slots", 0 < self.slots <= 1000, "above 0, up to 1,000"),
            ("shape", 0 <= self.shape < math.inf, "0 or more"),
            ("power", 0 <= self.power < math.inf, "0 or more"),
        ):
            if not good:
                got = getattr(self, name)
                raise BitfoldError(f"{name} is out of range", got=got, expected=expected)
        if (self.pieces or 1) > MOST_PIECES:
            raise BitfoldError(
                "pieces is out of range", got=self.pieces, expected=f"1 to {MOST_PIECES}"
            )

    def plan(self, ask: Ask) -> Group:
        """Owned pieces with their map, and shared pieces for the rest of the budget."""
        field_sizes(self.name, ask.fields, ask.budget)
        check_chunks(self.pieces, ask.dim)
        whole = self.whole(ask)
        if whole is not None and whole.bytes(ask.dim) <= (ask.budget or 0):
            return whole
        pieces = self.pieces or pieces_of(ask.dim)
        own, shared = split(self.name, ask, self.own, whole, pieces=pieces)
        fields = tuple(_lookups(ask, field.name, pieces, own, shared) for field in ask.fields)
        program = Program(pieces, fields, own + shared)
        stored = [StoredSpec(*table) for table in program.tables.values()]
        return self.finish(ask, program, "sum", stored=stored)

    def build(
        self, plan: Plan, *, seed: int | None, device: torch.device | str | None, sparse: bool
    ) -> Embedder:
        """The corridor whose ids change their sizes, or a whole table."""
        if not any(each.name == OWNED for each in plan.group.stored):
            return super().build(plan, seed=seed, device=device, sparse=sparse)
        return Resizing(
            plan, policy=self.policy, bands=self.bands, distributions=self.distributions,
            shape=self.shape, power=self.power, drawn=self.drawn, slots=self.slots,
            every=self.every, decay=self.decay, hidden=self.hidden, discount=self.discount,
            std=self.std, seed=seed, device=device, sparse=sparse,
        )  # fmt: skip


def pieces_of(dim: int) -> int:
    """How many pieces vectors of a width have, if nobody says.

    Example:
        >>> pieces_of(16), pieces_of(6), pieces_of(7)
        (4, 3, 1)
    """
    return next(count for count in range(USUAL_PIECES, 0, -1) if dim % count == 0)


def _lookups(ask: Ask, field: str, pieces: int, own: int, shared: int) -> tuple[Lookup, ...]:
    """The lookups of a field, one a piece: a row that the id owns, or one that it shares.

    One map has all pieces that are owned, each under the id mixed by a salt of the piece.
    """
    keys = [Mixed(field_salt(ask.seed, field, piece)) for piece in range(pieces)]
    salt = derive_salt(ask.seed, 0)
    return tuple(
        Lookup(Mapped(OWNED, own, salt, key, shared, key), own + shared, 0) for key in keys
    )
