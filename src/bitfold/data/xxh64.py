"""XXH64 of some bytes: by the library `xxhash`, or in plain Python where it is not installed.

Source: Collet, *XXH64* (the algorithm's published description).
"""

import struct
from collections.abc import Callable

Hash = Callable[[bytes, int], int]
"""The bytes and a seed of 64 bits to an unsigned number of 64 bits."""

_WHOLE = 2**64 - 1
_P1, _P2, _P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_P4, _P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


def hasher() -> Hash:
    """The fastest there is."""
    try:
        from xxhash import xxh64_intdigest
    except ImportError:
        return xxh64
    return xxh64_intdigest


def xxh64(data: bytes, seed: int = 0) -> int:
    """XXH64 of bytes of any length.

    Example:
        >>> hex(xxh64(b"")), xxh64(b"abc", 3)
        ('0xef46db3751d8e999', 3158726716732323587)
    """
    length = len(data)
    whole = length - length % 32
    if whole:
        lanes = [(seed + _P1 + _P2) & _WHOLE, (seed + _P2) & _WHOLE, seed, (seed - _P1) & _WHOLE]
        for stripe in struct.iter_unpack("<4Q", data[:whole]):
            lanes = [_round(lane, word) for lane, word in zip(lanes, stripe, strict=True)]
        turned = zip(lanes, (1, 7, 12, 18), strict=True)
        total = sum(_turned(lane, bits) for lane, bits in turned) & _WHOLE
        for lane in lanes:
            total = ((total ^ _round(0, lane)) * _P1 + _P4) & _WHOLE
    else:
        total = (seed + _P5) & _WHOLE
    total = (total + length) & _WHOLE
    eights = length - length % 8
    for (word,) in struct.iter_unpack("<Q", data[whole:eights]):
        total = (_turned(total ^ _round(0, word), 27) * _P1 + _P4) & _WHOLE
    if length - eights >= 4:
        (half,) = struct.unpack_from("<I", data, eights)
        total ^= half * _P1 & _WHOLE
        total = (_turned(total, 23) * _P2 + _P3) & _WHOLE
        eights += 4
    for byte in data[eights:]:
        total = _turned(total ^ (byte * _P5 & _WHOLE), 11) * _P1 & _WHOLE
    total = (total ^ (total >> 33)) * _P2 & _WHOLE
    total = (total ^ (total >> 29)) * _P3 & _WHOLE
    return total ^ (total >> 32)


def _round(lane: int, word: int) -> int:
    return _turned((lane + word * _P2) & _WHOLE, 31) * _P1 & _WHOLE


def _turned(number: int, bits: int) -> int:
    return ((number << bits) | (number >> (64 - bits))) & _WHOLE
