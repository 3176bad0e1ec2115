"""Which numbers of a pool are kept, told in the fewest bits: by a mask, or by their places.

A mask has one bit a number. Where few are kept their places in ascending order take less, as Elias
and Fano wrote them: the lowest `low` bits of each as they are, and what is above them in unary,
one bit a number and one a step. That is at most half a bit a number above what any code of all
choices of as many places needs, and its size follows from the two counts alone.

Source: Elias, "Efficient Storage and Retrieval by Content and Address of Static Files", J. ACM 21
(1974).
"""

from typing import NamedTuple

MOST_LOW = 40  # what integers are packed in at most


class Index(NamedTuple):
    """How kept numbers are told.

    Args:
        low: the bits of a place that are written as they are; -1 for a mask.
        low_bytes: how many bytes they take together.
        bytes: of all.
    """

    low: int
    low_bytes: int
    bytes: int


def index_of(numbers: int, kept: int) -> Index:
    """The smaller of a mask and places.

    Args:
        numbers: of a pool, kept or not.
        kept: how many are; 1 or more.

    Example:
        >>> index_of(16_000, 8_000)
        Index(low=-1, low_bytes=0, bytes=2000)
        >>> index_of(16_000, 160)
        Index(low=6, low_bytes=120, bytes=172)
    """
    found = Index(-1, 0, _bytes(numbers))
    for low in range(min(MOST_LOW, numbers.bit_length()) + 1):
        low_bytes = _bytes(kept * low)
        size = low_bytes + _bytes(high_bits(numbers, kept, low))
        if size < found.bytes:
            found = Index(low, low_bytes, size)
    return found


def high_bits(numbers: int, kept: int, low: int) -> int:
    """How many bits what is above the lowest `low` takes, for all places together."""
    return kept + ((numbers - 1) >> low)


def _bytes(bits: int) -> int:
    return -(-bits // 8)
