"""Dense ids out of range: found, and complained of by the field's name."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bitfold.address.words import exporting
from bitfold.errors import BitfoldError, IdOutOfRange
from bitfold.kernels.choice import recorded
from bitfold.planning.field import Field


def out_of_range(
    fields: Sequence[Field], limits: Tensor, ids: Tensor, field: Tensor | None = None
) -> Tensor | None:
    """Which dense ids are out of range, where that can only be told when a graph is run.

    Args:
        fields: `F` of them.
        limits: int64 `[F]`, how many dense ids each field has, 0 for hashed ids.
        ids: int64 `[B, F]`, or `[T]` with the field of each.
        field: int64 `[T]`.

    Raises:
        IdOutOfRange: for such an id, where it can be told at once.
    """
    if ids.is_meta or all(each.hashed for each in fields):
        return None
    limit = limits if field is None else limits[field]
    bad = (ids < 0) | (ids >= limit)
    if any(each.hashed for each in fields):
        bad = bad & (limit > 0)
    if exporting():
        return bad
    if torch.compiler.is_compiling():
        torch._assert_async(~bad.any(), "a dense id is outside 0..num_embeddings-1")
    elif recorded(bad):
        return bad
    elif bool(bad.any()):
        _complain(fields, ids, field, bad)
    return None


def limits_of(fields: Sequence[Field]) -> list[int]:
    """How many dense ids each field has, 0 for hashed ids.

    Example:
        >>> limits_of([Field("user", 40), Field("query")])
        [40, 0]
    """
    return [field.num_embeddings or 0 for field in fields]


def guarded(ids: Tensor, bad: Tensor | None) -> Tensor:
    """The ids as they are; a graph that is run with `bad` ones raises, as a table would."""
    if bad is None:
        return ids
    if exporting():
        return ids.masked_fill(bad, 0)
    return ids * ids.new_ones(1)[bad.long()]  # the second of one number


def spoiled(vectors: Tensor, bad: Tensor | None) -> Tensor:
    """Vectors `[..., D]` of ids `[...]`; in an exported graph those of `bad` ones are no numbers.

    Such a graph cannot say what was wrong: it must not give the vector of another id, either.
    """
    if bad is None or not exporting():
        return vectors
    return vectors.masked_fill(bad.unsqueeze(-1), torch.nan)


def _complain(fields: Sequence[Field], ids: Tensor, field: Tensor | None, bad: Tensor) -> None:
    where = bad.nonzero()[0]
    place = [int(step) for step in where]
    number = place[-1] if field is None else int(field[place[0]])
    spec = fields[number]
    raise IdOutOfRange(
        f"an id of field {spec.name!r} is out of range",
        got=f"{int(ids[tuple(where)])} at {place} ({int(bad.sum())} such ids)",
        expected=f"0 to {(spec.num_embeddings or 0) - 1}",
        fix="check how the ids were made, or use hashed ids (num_embeddings=None)",
    )


def as_int64(ids: Tensor) -> Tensor:
    """Ids as int64; those that are no integers are refused.

    Raises:
        BitfoldError: for ids of another type.
    """
    if ids.dtype == torch.int32:
        return ids.long()
    if ids.dtype != torch.int64:
        raise BitfoldError("ids are integers", got=ids.dtype, expected="torch.int64")
    return ids
