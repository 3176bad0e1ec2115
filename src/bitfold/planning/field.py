"""What a plan must know of a field."""

from collections.abc import Sequence
from dataclasses import dataclass

from bitfold.errors import BitfoldError, check_name


@dataclass(frozen=True)
class Field:
    """One categorical column, as its embedding sees it.

    Two modes of ids, never mixed in one field:

    - *dense*: ids are `0..num_embeddings-1`; anything else is an error.
    - *hashed* (`num_embeddings=None`): any int64 is an id, all 64 bits count.

    Args:
        name: unique among the fields of one collection.
        num_embeddings: how many ids there are (`V`), or None for hashed ids.
        distinct: for hashed ids, how many distinct ids the training data hold. A ratio budget
            and the default code width need it.

    Example:
        >>> Field("user", 6040).size
        6040
        >>> Field("query", distinct=1_000_000).hashed
        True
    """

    name: str
    num_embeddings: int | None = None
    distinct: int | None = None

    def __post_init__(self) -> None:
        check_name(str(self.name), "field")
        for word, value in (("num_embeddings", self.num_embeddings), ("distinct", self.distinct)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise BitfoldError(
                    f"{word} of field {self.name!r} must be an integer",
                    got=repr(value),
                    expected="an int, such as 100_000, or None",
                )
            if value is not None and not 1 <= value <= 2**63 - 1:
                raise BitfoldError(
                    f"{word} of field {self.name!r} is out of range",
                    got=value,
                    expected="1 to 2**63 - 1",
                    fix="leave num_embeddings out (None) for hashed ids, which may be any int64",
                )

    @property
    def hashed(self) -> bool:
        """Whether any int64 is an id of this field."""
        return self.num_embeddings is None

    @property
    def size(self) -> int | None:
        """Rows of the field's full table: `num_embeddings`, or the distinct ids if hashed."""
        return self.distinct if self.num_embeddings is None else self.num_embeddings


def check_columns(shape: Sequence[int], fields: int, each: str = "field") -> None:
    """Raise unless ids of a shape are `[B, F]`; `each` is what an error calls a column's owner."""
    if len(shape) != 2 or shape[1] != fields:
        raise BitfoldError(
            "ids of the wrong shape",
            got=list(shape),
            expected=f"[B, {fields}], a column for each {each}",
        )
