"""The index of a pruned pool: which of its numbers are kept, as bytes. See `planning/kept.py`."""

import torch
from torch import Tensor

from bitfold.address.stored import pack_bits, unpack_bits
from bitfold.address.words import exporting, up
from bitfold.errors import BitfoldError
from bitfold.planning.kept import high_bits, index_of


def index_bytes(places: Tensor, numbers: int) -> Tensor:
    """The index of kept numbers, uint8.

    Args:
        places: int64 `[kept]`, ascending: numbers of a pool are counted row by row.
        numbers: how many there are.

    Example:
        >>> index = index_bytes(torch.tensor([0, 3, 9]), 16)
        >>> index.tolist(), places_of(index, 16, 3).tolist()
        ([9, 2], [0, 3, 9])
    """
    kept, found = len(places), index_of(numbers, len(places))
    if found.low < 0:
        return pack_bits(_ones(places, numbers), 1)
    high = (places.cpu() >> found.low) + torch.arange(kept)
    parts = [pack_bits(_ones(high, high_bits(numbers, kept, found.low)), 1)]
    if found.low:
        parts.insert(0, pack_bits(places & (1 << found.low) - 1, found.low))
    return torch.cat(parts)


def places_of(index: Tensor, numbers: int, kept: int) -> Tensor:
    """The places that an index tells, int64 `[kept]`, ascending; the inverse of `index_bytes`.

    Raises:
        BitfoldError: it does not tell so many places.
    """
    found = index_of(numbers, kept)
    if exporting():
        return _places_exported(index, numbers, kept)
    if found.low < 0:
        places = unpack_bits(index, 1, numbers).nonzero().squeeze(1)
    else:
        ones = unpack_bits(index[found.low_bytes :], 1, high_bits(numbers, kept, found.low))
        places = ones.nonzero().squeeze(1)
        places = places - torch.arange(len(places), device=index.device) << found.low
        if found.low and len(places) == kept:
            places = places | unpack_bits(index[: found.low_bytes], found.low, kept)
    ordered = bool((places[1:] > places[:-1]).all()) and bool((places < numbers).all())
    if len(places) != kept or not ordered:
        raise BitfoldError(
            "the index of a pruned pool is damaged",
            got=f"{len(places)} places",
            expected=f"{kept} of {numbers}, in ascending order",
        )
    return places


def _places_exported(index: Tensor, numbers: int, kept: int) -> Tensor:
    """The same in a graph, where no shape follows from numbers; it was checked before."""
    low = index_of(numbers, kept).low
    if low < 0:
        return _set_bits(unpack_bits(index, 1, numbers), kept)
    after = index_of(numbers, kept).low_bytes
    ones = unpack_bits(index[after:], 1, high_bits(numbers, kept, low))
    places = up(_set_bits(ones, kept) - torch.arange(kept, device=index.device), low)
    return places + unpack_bits(index[:after], low, kept) if low else places


def _set_bits(ones: Tensor, kept: int) -> Tensor:
    """Where the first `kept` ones are."""
    rank = torch.where(ones == 1, ones.cumsum(0) - 1, kept).clamp(max=kept)
    places = torch.arange(ones.shape[0], device=ones.device)
    return ones.new_zeros(kept + 1).scatter(0, rank, places)[:kept]


def _ones(places: Tensor, length: int) -> Tensor:
    ones = torch.zeros(length, dtype=torch.int64)
    ones[places.cpu()] = 1
    return ones
