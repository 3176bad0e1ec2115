"""What a method is asked for: fields, a width, a budget, and what numbers are kept in."""

from dataclasses import dataclass

from bitfold.planning.field import Field
from bitfold.planning.spec import FINGERPRINT_BYTES, PoolSpec, dtype_size, steps_bytes
from bitfold.planning.statistics import Statistics


@dataclass(frozen=True)
class Ask:
    """What a method is asked for.

    Args:
        fields: what is embedded.
        dim: `D`, the width of the vectors.
        budget: the serving bytes allowed, or None.
        dtype: the type of the vectors, and of the numbers while they are trained.
        numbers: what pools keep them in when they serve: the dtype, or `q8` to `q1`.
        scale: with few bits, what shares a step: a `slice` or a `row`.
        seed: what hashes are salted from.
        stats: how often ids occur, where that is known.
        reserved: bytes for centres and steps that a first try came to.
    """

    fields: tuple[Field, ...]
    dim: int
    budget: int | None = None
    dtype: str = "float32"
    numbers: str = "float32"
    scale: str = "slice"
    seed: int = 0
    stats: Statistics | None = None
    reserved: int | None = None

    @property
    def packed(self) -> bool:
        """Whether pools keep their numbers in few bits."""
        return self.numbers.startswith("q")

    def row_bytes(self, width: int | None = None) -> int:
        """Bytes of a row of `width` numbers, `D` if not said; with `scale=row` its step too.

        Example:
            >>> Ask((), 16).row_bytes(), Ask((), 16, numbers="q3").row_bytes(8)
            (64, 3)
        """
        size = PoolSpec("pool", 0, width or self.dim, self.numbers, slices=self._slices).row_bytes
        by_row = self.packed and self.scale == "row"
        return size + steps_bytes(0, 1, 1, "row") * by_row

    def fixed_bytes(self, slices: int, width: int | None = None, lookups: int = 0) -> int:
        """Bytes beside the rows: a fingerprint, steps of up to so many slices, learned factors.

        Args:
            slices: how many slices of rows the program can come to have.
            width: numbers of a row; `D` if not said.
            lookups: how many of them have a learned factor.
        """
        size = FINGERPRINT_BYTES + lookups * dtype_size(self.dtype)
        if not self.packed:
            return size
        if self.reserved is not None:
            return size + self.reserved
        return size + steps_bytes(slices, 0, width or self.dim, self.scale)

    @property
    def _slices(self) -> tuple[int, ...]:
        return (0,) if self.packed else ()
