"""All that a method of one's own is written with, under one name; docs/extending.md says how.

What is public here stays as it is between minor versions, as the package's own names do.

    from bitfold.extending import Ask, Group, Lookup, Method, Mixed, Program, Raw, option

Options and what a method is
    `Method`, `Traits`, `Phase`, `Forms`, `option`, `check_options`, `dense_only`, `method_kind`
What is asked for, and the bytes of an answer
    `Ask`, `Field`, `Statistics`, `Counted`, `field_sizes`, `allocate`, `check_minimum`, `place`
The answer: plain data
    `Group`, `PoolSpec`, `StoredSpec`, `Plan`, `Program`, `Lookup`, `Raw`, `Mixed`, `Stored`,
    `Mapped`, `Salted`, `derive_salt`, `slices_of`
Modules
    `Embedder`, `Corridor`, `OwnEmbedder`, `Table`, `Progress`, `RowMove`, `pack_bits`,
    `unpack_bits`, `build_map`, `Lifecycle`
Mistakes
    `BitfoldError`, `BudgetTooSmall`
"""

from bitfold.address import Lookup, Mapped, Mixed, Program, Raw, Salted, Stored
from bitfold.address.mixing import derive_salt
from bitfold.address.program import place
from bitfold.address.stored import pack_bits, unpack_bits
from bitfold.config import option
from bitfold.embedder.contract import Embedder, Progress, Table
from bitfold.embedder.corridor import Corridor
from bitfold.embedder.own import OwnEmbedder
from bitfold.errors import BitfoldError, BudgetTooSmall
from bitfold.kernels.map_building import build_map
from bitfold.method.allocation import allocate, check_minimum
from bitfold.method.base import Forms, Method, Phase, Traits, check_options, dense_only
from bitfold.method.hash import field_sizes
from bitfold.method.registry import method_kind
from bitfold.planning.ask import Ask
from bitfold.planning.field import Field
from bitfold.planning.plan import Plan
from bitfold.planning.slices import slices_of
from bitfold.planning.spec import Group, PoolSpec, StoredSpec
from bitfold.planning.statistics import Counted, Statistics
from bitfold.pool.moved import RowMove
from bitfold.training.lifecycle import Lifecycle

__all__ = [
    "Ask",
    "BitfoldError",
    "BudgetTooSmall",
    "Corridor",
    "Counted",
    "Embedder",
    "Field",
    "Forms",
    "Group",
    "Lifecycle",
    "Lookup",
    "Mapped",
    "Method",
    "Mixed",
    "OwnEmbedder",
    "Phase",
    "Plan",
    "PoolSpec",
    "Program",
    "Progress",
    "Raw",
    "RowMove",
    "Salted",
    "Statistics",
    "Stored",
    "StoredSpec",
    "Table",
    "Traits",
    "allocate",
    "build_map",
    "check_minimum",
    "check_options",
    "dense_only",
    "derive_salt",
    "field_sizes",
    "method_kind",
    "option",
    "pack_bits",
    "place",
    "slices_of",
    "unpack_bits",
]
