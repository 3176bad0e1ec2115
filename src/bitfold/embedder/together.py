"""All fields of an embedder, and whole tables beside them, read in one call."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

from torch import Tensor

from bitfold.embedder.contract import Embedder
from bitfold.embedder.corridor import Corridor
from bitfold.errors import BitfoldError
from bitfold.kernels.part import Part, Source, Table


@cache
def _kernels() -> Any:
    from bitfold.kernels import together  # and Numba, which importing a package must not

    return together


class Reader:
    """How an embedder's parts were last read together: held until they change."""

    def __init__(self) -> None:
        self.made: Any = None

    def read(
        self, embedder: Embedder, rows: int, sources: Sequence[Source], beside: Sequence[Table]
    ) -> "Read | None":
        """Vectors of all fields, then of the tables beside.

        Args:
            embedder: any that does not observe.
            rows: `B`.
            sources: where the ids are, of each field, then of each table.
            beside: whole tables.

        Returns:
            None where an embedder, or so large a batch, needs more than this.

        Raises:
            IdOutOfRange: for an id that has no row.
        """
        if rows * len(sources) * embedder.plan.embedding_dim > _kernels().MOST_NUMBERS:
            return None
        members, parts, order = list[Corridor](), list[Part](), list[int]()
        for member, fields in embedder.members():
            # A subclass keeps more of its fields than its pools and head.
            if not isinstance(member, Corridor) or type(member) is not Corridor:
                return None
            part = member.as_part()
            if part is None:
                return None
            members.append(member)
            parts.append(part)
            order += fields
        made = self.made
        if made is None or not made.fits(parts, beside):
            try:
                made = self.made = _kernels().Together(parts, beside)
            except BitfoldError:  # each says what is wrong with it when it is read
                return None
        for member in members:
            member.count_forward()
        count = len(order)
        ordered = [*(sources[field] for field in order), *sources[count:]]
        found, kept = _kernels().together(made, rows, ordered)
        places = list(range(len(sources)))
        for place, field in enumerate(order):
            places[field] = place
        return Read(found, places, lambda place: made.ids_of(kept, rows, place))


class Read(NamedTuple):
    """What was read: vectors `[B, D]` and ids `[B]` at the place of each field."""

    vectors: list[Tensor]
    places: list[int]
    ids: Callable[[int], Tensor]
