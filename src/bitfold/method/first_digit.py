"""One pool for the first digits of all fields, a slice of its own for each later digit.

A first digit that reads the rows of all fields has many more to choose from than a slice of its
own would have, so few later rows are needed, and those of a product stay apart from the first
ones: they live around 1, where the first ones live around 0.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bitfold.address.radices import MOST_BLOCKS, least_radices
from bitfold.method.digits import WHOLE, Code, Digits, whole

MORE_BITS = 2
EXACT = 2**52  # codes up to which products of radices are exact as floats
LONGEST = 2**20  # sums of radices that are worth a table
SHARE = 0.75  # of the rows that first digits should keep; one later digit more where they would not


def first_digits(codes: Sequence[Code], rows: int) -> list[Digits]:
    """Digits of fields that share the rows of their first ones; small fields are whole.

    Args:
        codes: of the fields.
        rows: what there is for all digits together, `least_first_rows` or more.

    Returns:
        The digits of each field; of those that are not whole the first radix is the same.
    """
    most = rows // (WHOLE * len(codes))
    small = {number for number, code in enumerate(codes) if code.dense and code.ids <= most}
    left = rows - sum(codes[number].ids for number in small)
    pooled = [code for number, code in enumerate(codes) if number not in small]
    found = _shared(pooled, left)
    if found is None:  # as few rows as can be: small fields share them too
        pooled, small = list(codes), set()
        found = _shared(pooled, rows)
    assert found is not None, "the caller checks the minimum"
    digits = iter(found)
    return [
        whole(code.ids, 1) if number in small else next(digits) for number, code in enumerate(codes)
    ]


def least_first_rows(codes: Sequence[Code]) -> int:
    """The fewest rows with which all codes are told apart."""
    low, high = 1, max(map(_size, codes)) + len(codes)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if _shared(codes, middle) is None else (low, middle)
    return low


def _shared(codes: Sequence[Code], rows: int) -> list[Digits] | None:
    """Digits of fields of which none is whole; None where the rows cannot tell the codes apart."""
    sizes = [_size(code) for code in codes]
    first, later = 0, 0
    for count in range(1, MOST_BLOCKS):
        radix = _first_radix(sizes, rows, count)
        if radix > first:
            first, later = radix, count
        if radix >= SHARE * rows:
            break
    if not codes or not first:
        return None if codes else []
    pairs = zip(codes, sizes, strict=True)
    return [code.positional(_radices(size, first, later)) for code, size in pairs]


def _size(code: Code) -> int:
    """How many codes later digits tell apart: of hashed ids some more than there must be.

    Hashed ids do not fill a code, so with as few codes as ids many would share all their digits.
    """
    return code.size if code.dense else 1 << min(code.bits, code.least_bits + MORE_BITS)


def _first_radix(sizes: Sequence[int], rows: int, later: int) -> int:
    """The largest first radix that leaves room for `later` digits of each field; 0 for none."""
    spent = _spender(sizes, later)

    def fits(first: int) -> bool:
        return first + spent(first) <= rows

    # Below all sizes a smaller first radix may need more rows, and the search could pass by.
    whole = max(sizes, default=0)
    low, high = (whole if whole and fits(whole) else 0), rows
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _spender(sizes: Sequence[int], later: int) -> Callable[[int], int]:
    """The rows of all fields' later digits, given the first radix.

    Models have hundreds of fields, and many first radices are tried: sums are looked up.
    """
    largest = max(sizes, default=1)
    if largest > EXACT or sum(least_radices(largest, min(later, 2))) > LONGEST:
        return lambda first: sum(sum(_radices(size, first, later)[1:]) for size in sizes)
    told = np.asarray(sizes, np.int64)
    products = _products(largest, later)

    def spent(first: int) -> int:
        rest = -(-told // first)
        return int((np.searchsorted(products, rest) + 1).sum())

    return spent


@lru_cache(maxsize=64)
def _products(largest: int, later: int) -> NDArray[np.float64]:
    """The most codes that up to `later` digits tell apart, by the sum of their radices, from 1."""
    most = min(sum(least_radices(largest, count)) for count in range(1, later + 1))
    sums = np.arange(1, most + 1)
    found = sums.astype(np.float64)
    for count in range(2, later + 1):
        base, raised = np.divmod(sums, count)
        equal = base ** (count - raised.astype(np.float64))
        found = np.maximum(found, equal * (base + 1.0) ** raised)
    return found


def _radices(size: int, first: int, later: int) -> tuple[int, ...]:
    rest = -(-size // first)  # where it is 1, the later digit tells the fields apart
    found = [least_radices(rest, count) for count in range(1, later + 1)]
    return (first, *min(found, key=sum))
