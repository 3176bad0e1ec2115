"""What is read together: lookups with their heads, and whole tables beside them."""

from typing import Any, NamedTuple

from torch import Tensor


class Part(NamedTuple):
    """A lookup of single ids by the kernels.

    Args:
        weight: the pool's, float32 `[R, w]`; or codes.
        words: those of a reading, from `packed` to `bits`.
        head: `[f, w, D]` that lifts its `f` fields; None where vectors are `D` wide.
        sparse: whether the pool's gradient is that of the rows read alone.
        tables: what sources read.
    """

    weight: Tensor
    words: tuple[Any, ...]
    head: Tensor | None
    sparse: bool
    tables: tuple[Tensor, ...]

    @property
    def fields(self) -> int:
        """`f`."""
        return int(self.words[4])


class Table(NamedTuple):
    """A whole table: float32 `[V, D]`, of which `padding` learns nothing."""

    weight: Tensor
    padding: int | None
    sparse: bool
