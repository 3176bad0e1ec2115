"""Specs: what an embedding keeps, as plain data. Bytes are counted here, and nowhere else."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from bitfold.address.program import Program
from bitfold.errors import BitfoldError
from bitfold.planning.kept import index_of

BITS = {
    "float64": 64,
    "float32": 32,
    "bfloat16": 16,
    "float16": 16,
    "q8": 8,
    "q4": 4,
    "q3": 3,
    "q2": 2,
    "q1": 1,
}
"""How a pool may keep its numbers, and the bits of one."""
FEW_BITS = (8, 4, 3, 2, 1)
"""Of a packed number, `q8` to `q1`."""
FLOATS = ("float32", "float64", "bfloat16", "float16")
SCALES = ("slice", "row")
STORED = ("pointers", "map", "mask", "sketch", "signatures")
FINGERPRINT_BYTES = 8
OWN = "own"
"""The fusion of modules that fuse in a way of their own, from pools of any widths."""
_HALF = 2  # bytes of a float16, which centres and steps are kept in


def dtype_size(name: str) -> int:
    """Bytes of one floating number of that type."""
    return BITS[name] // 8


@dataclass(frozen=True)
class PoolSpec:
    """A pool as it is served.

    Args:
        name: the module that holds it.
        rows: `R`; of a flat array how many numbers.
        width: `w`, numbers that a lookup reads.
        numbers: one of `BITS`. Those of few bits are packed, a row in whole bytes.
        step: 0 for rows; 1 for a flat array, where a piece begins at any number.
        slices: with few bits, the first row of each run of rows that shares a centre and a step
            for each column; the first is 0.
        scale: with few bits, `slice`, or `row` for a step a row beside each slice's centre.
        kept: how many numbers are kept of a pruned pool, beside an index of which; None for all.

    Example:
        >>> PoolSpec("pool", 1000, 16).bytes
        64000
        >>> PoolSpec("pool", 1000, 16, kept=160).by_kind()
        {'weights': 640, 'mask': 172}
        >>> PoolSpec("pool", 1000, 16, "q2", slices=(0, 900)).by_kind()
        {'weights': 4000, 'steps': 128}
    """

    name: str
    rows: int
    width: int
    numbers: str = "float32"
    step: int = 0
    slices: tuple[int, ...] = ()
    scale: str = "slice"
    kept: int | None = None

    def __post_init__(self) -> None:
        some = 1 <= (self.kept or 0) <= self.rows * self.width and not (self.step or self.packed)
        ordered = all(a < b for a, b in zip(self.slices, self.slices[1:], strict=False))
        for name, got, good, expected in (
            ("rows", self.rows, self.rows >= 0, "0 or more"),
            ("width", self.width, self.width >= 1, "1 or more"),
            ("numbers", self.numbers, self.numbers in BITS, " or ".join(BITS)),
            ("step", self.step, self.step in (0, 1), "0 or 1"),
            ("scale", self.scale, self.scale in SCALES, " or ".join(SCALES)),
            ("kept", self.kept, self.kept is None or some, "1 to all floats of a pool of rows"),
            (
                "slices",
                self.slices[:8],
                self.slices[:1] == (0,) * self.packed and ordered,
                "first rows in ascending order, of packed rows from 0 on",
            ),
        ):
            if not good:
                raise BitfoldError(f"{name} of a pool cannot be", got=got, expected=expected)

    @property
    def bits(self) -> int:
        """Bits of one number."""
        return BITS[self.numbers]

    @property
    def packed(self) -> bool:
        """Whether numbers are kept in so few bits that they share bytes or scales."""
        return self.numbers.startswith("q")

    @property
    def row_bytes(self) -> int:
        """Bytes of a row; of one number of a flat array, as a fraction of a byte is none."""
        numbers = 1 if self.step else self.width
        return -(-numbers * self.bits // 8)

    @property
    def mean_row_bytes(self) -> float:
        """Bytes of a row of which not all numbers are kept, on average."""
        return self.row_bytes if self.kept is None else self.bytes / self.rows

    def by_kind(self) -> dict[str, int]:
        """Serving bytes by kind."""
        if self.kept is not None:
            index = index_of(self.rows * self.width, self.kept)
            return {"weights": self.kept * self.bits // 8, "mask": index.bytes}
        weights = -(-self.rows * self.bits // 8) if self.step else self.rows * self.row_bytes
        kinds = {"weights": weights}
        if self.packed:
            kinds["steps"] = steps_bytes(len(self.slices), self.rows, self.width, self.scale)
        return kinds

    @property
    def bytes(self) -> int:
        """Serving bytes."""
        return sum(self.by_kind().values())


def steps_bytes(slices: int, rows: int, width: int, scale: str) -> int:
    """Bytes of the centres and steps of packed rows: float16, by column for each slice.

    Example:
        >>> steps_bytes(2, 1000, 16, "slice"), steps_bytes(2, 1000, 16, "row")
        (128, 2064)
    """
    if scale == "row":
        return slices * width * _HALF + rows * _HALF
    return 2 * slices * width * _HALF


@dataclass(frozen=True)
class StoredSpec:
    """Integers that are kept beside the pools: pointers, maps, masks, sketches, signatures.

    Args:
        name: under which sources of the program name it.
        length: how many there are.
        bits: of each.
        kind: one of `STORED`, which is how their bytes are listed.

    Example:
        >>> StoredSpec("clusters", 1000, 5, "pointers").bytes
        625
    """

    name: str
    length: int
    bits: int
    kind: str

    def __post_init__(self) -> None:
        if self.length < 0 or not 1 <= self.bits <= 64 or self.kind not in STORED:
            raise BitfoldError(
                f"{self.name!r} cannot be stored",
                got=f"{self.length} of {self.bits} bits as {self.kind!r}",
                expected=f"1 to 64 bits each, as {' or '.join(STORED)}",
            )

    @property
    def bytes(self) -> int:
        """Bytes, in whole ones."""
        return -(-self.length * self.bits // 8)


@dataclass(frozen=True)
class Group:
    """Some fields of a plan that one embedder serves.

    Args:
        fields: which of the plan's fields, by number.
        method: the method's name, and `version` its version.
        options: the method's options, all of them.
        program: the address; None for modules of their own.
        pools: trained numbers; the first is the one that lookups read unless they say another.
        stored: integers beside them.
        fusion: the fusion's name; `own` for modules that fuse in a way of their own.
        width: numbers of a vector before the head; where it is not the plan's, each field has a
            head `[width, D]`.
        dtype: of the numbers while they are trained.
        own: bytes by kind of what modules of their own keep beside pools and tables.
    """

    fields: tuple[int, ...]
    method: str
    version: int
    options: dict[str, Any]
    program: Program | None
    pools: tuple[PoolSpec, ...]
    stored: tuple[StoredSpec, ...] = ()
    fusion: str = "sum"
    width: int = 0
    dtype: str = "float32"
    own: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.dtype not in FLOATS:
            raise BitfoldError("unknown dtype", got=self.dtype, expected=" or ".join(FLOATS))
        if self.program is None:
            return
        if self.width < 1 or self.width % self.program.chunks or not self.pools:
            raise BitfoldError(
                "the plan's width does not fit its chunks",
                got=f"width {self.width}, {self.program.chunks} chunks, {len(self.pools)} pools",
                expected="a positive multiple of the chunks, and a pool",
            )
        if len(self.fields) != len(self.program.fields):
            raise BitfoldError(
                "the plan's address is of other fields",
                got=f"{len(self.program.fields)} fields in the address",
                expected=f"{len(self.fields)}, as in the plan",
            )
        width = self.width // self.program.chunks
        rows = tuple(pool.rows for pool in self.pools)
        other = rows != (self.program.rows, *self.program.more_rows)
        if other or (self.fusion != OWN and any(pool.width != width for pool in self.pools)):
            raise BitfoldError(
                "the plan's pools are not those of its address",
                got=", ".join(f"{pool.name} [{pool.rows}, {pool.width}]" for pool in self.pools),
                expected=f"{(self.program.rows, *self.program.more_rows)} rows of {width} numbers",
            )
        missing = {StoredSpec(*table) for table in self.program.tables.values()} - {*self.stored}
        if missing:
            raise BitfoldError(
                "the plan's address reads tables that are not stored",
                got=", ".join(sorted(each.name for each in missing)),
                expected="each as a StoredSpec of its length, bits and kind",
            )

    def by_kind(self, dim: int) -> dict[str, int]:
        """Serving bytes by kind; `dim` is `D`, the plan's width."""
        kinds: dict[str, int] = {}
        for pool in self.pools:
            for kind, size in pool.by_kind().items():
                kinds[kind] = kinds.get(kind, 0) + size
        for each in self.stored:
            kinds[each.kind] = kinds.get(each.kind, 0) + each.bytes
        if self.fusion == "weighted" and self.program is not None:
            kinds["fusion"] = self.program.lookups * dtype_size(self.dtype)
        if self.width != dim:
            kinds["head"] = len(self.fields) * self.width * dim * dtype_size(self.dtype)
        for kind, size in self.own.items():
            kinds[kind] = kinds.get(kind, 0) + size
        if self.program is not None and (self.stored or not self.program.plain):
            kinds["fingerprint"] = FINGERPRINT_BYTES
        return kinds

    def bytes(self, dim: int) -> int:
        """Serving bytes, of every kind."""
        return sum(self.by_kind(dim).values())

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "fields": list(self.fields),
            "method": self.method,
            "method_version": self.version,
            "options": dict(self.options),
            "program": None if self.program is None else self.program.to_json(),
            "pools": [asdict(pool) | {"slices": list(pool.slices)} for pool in self.pools],
            "stored": [asdict(each) for each in self.stored],
            "fusion": self.fusion,
            "width": self.width,
            "dtype": self.dtype,
            "own": dict(self.own),
        }
