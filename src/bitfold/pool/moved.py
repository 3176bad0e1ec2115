"""Rows of a pool that changed places."""

from typing import NamedTuple

from torch import Tensor


class RowMove(NamedTuple):
    """Rows of a table that changed their place or meaning: what an optimizer kept moves along.

    Args:
        weight: the table, moved already.
        source: int64 `[n]`, the rows whose state is carried; -1 for none.
        target: int64 `[n]`, the rows that have it now. Where the source is none it starts anew.
    """

    weight: Tensor
    source: Tensor
    target: Tensor
