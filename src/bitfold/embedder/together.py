"""All fields of an embedder, and whole tables beside them, by one node of autograd."""

from typing import Any

from torch import Tensor

from bitfold.embedder.contract import Embedder
from bitfold.embedder.corridor import Corridor
from bitfold.kernels.together import Beside, Part, together


def read_together(embedder: Embedder, ids: Tensor, beside: Beside | None) -> list[Tensor]:
    """Vectors `[B, D]` of each field, then of the tables beside.

    Where an embedder needs more than kernels it reads by itself, and nothing is read beside it.

    Args:
        embedder: any that does not observe.
        ids: int64 `[B, F]`.
        beside: whole tables, and their ids.
    """
    members = list(embedder.members())
    own_columns: Any = getattr(embedder, "columns_of", None)  # of several members
    parts: list[Part] = []
    for member, _ in members:
        own = ids if len(members) == 1 else own_columns(ids, len(parts))
        can = type(member) is Corridor and not member.waits
        part = member.as_part(own) if isinstance(member, Corridor) and can else None
        if part is None:
            return embedder.apart(ids)
        parts.append(part)
    found = together(parts, beside)
    if len(members) == 1:
        return found
    ordered: list[Tensor] = [*found]
    for place, field in enumerate(f for _, fields in members for f in fields):
        ordered[field] = found[place]
    return ordered
