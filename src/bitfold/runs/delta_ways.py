"""How a piece of a new file is written beside the piece of the old file that it follows.

    same    nothing: it is the old piece
    whole   its own bytes, packed
    rows    which rows changed, a bit a row, and what was added to each of their numbers, packed
    patch   packed with the old piece as what was said before: text, sorted ids, tables that grew

Numbers are written plane by plane: the first byte of all, then the second of all, so that the bytes
that hardly differ, those of the exponents, stand together. A difference is taken of the numbers'
bits as whole numbers, which for floats is a distance in the order of floats, and its sign goes to
the lowest bit: small differences of either sign have zeros in their upper bytes. Nothing is
rounded anywhere.

A piece is bounded (`MOST_PIECE`), so that tables of any size are read and written in little memory.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bitfold.errors import BitfoldError

if TYPE_CHECKING:
    import zstandard

PIECE = 4 << 20
"""Bytes of a new file that are written at once."""

MOST_PIECE = 2 * PIECE
"""Bytes of a piece, and of the old piece that it follows, that are read at most."""

ITEMS = (1, 2, 4, 8)
"""Bytes of a number."""

LEVEL = 9
WINDOW = 24  # of a patch, in bits: it sees all of the old piece

Bytes = npt.NDArray[np.uint8]


def most_packed(size: int) -> int:
    """The most bytes that a piece of `size` takes when it is packed."""
    return size + size // 8 + 1024


def zstd() -> Any:
    """The library that packs.

    Raises:
        BitfoldError: it is not installed.
    """
    try:
        import zstandard
    except ModuleNotFoundError:
        raise BitfoldError(
            "deltas need a package that is not installed",
            got="no zstandard",
            expected="the packages of bitfold[data]",
            fix="pip install 'bitfold[data]'",
        ) from None
    return zstandard


@cache
def _compressor() -> "zstandard.ZstdCompressor":
    made: zstandard.ZstdCompressor = zstd().ZstdCompressor(level=LEVEL)
    return made


def _words(data: bytes, item: int) -> npt.NDArray[Any]:
    return np.frombuffer(data, np.dtype(f"<u{item}"))


def _planes(words: npt.NDArray[Any]) -> bytes:
    """The first byte of all numbers, then the second, ..."""
    return words.view(np.uint8).reshape(-1, words.itemsize).T.tobytes()


def _from_planes(data: bytes, item: int) -> npt.NDArray[Any]:
    planes = np.frombuffer(data, np.uint8).reshape(item, -1)
    return np.ascontiguousarray(planes.T).reshape(-1).view(f"<u{item}")


def changed_rows(old: bytes, new: bytes, item: int, row: int) -> bytes:
    """Which rows changed, and by how much; unpacked.

    Args:
        old: the old rows.
        new: as many new ones.
        item: bytes of a number.
        row: bytes of a row.

    Example:
        >>> old, new = bytes(8), bytes([0, 0, 0, 0, 1, 255, 0, 0])
        >>> changed_rows(old, new, 1, 4).hex(" ")
        '40 02 01 00 00'
    """
    before, after = _words(old, item), _words(new, item)
    changed = (before != after).reshape(-1, row // item).any(1)
    moved = (after - before).reshape(-1, row // item)[changed].reshape(-1)
    signed = moved.view(f"<i{item}")
    folded = (moved << 1) ^ (signed >> (8 * item - 1)).view(moved.dtype)
    return np.packbits(changed).tobytes() + _planes(folded.astype(moved.dtype))


def with_rows(old: bytes, told: bytes, item: int, row: int) -> bytes:
    """The new rows of `changed_rows`.

    Raises:
        ValueError: it tells of other rows than there are.
    """
    rows = len(old) // row
    head = -(-rows // 8)
    changed = np.unpackbits(np.frombuffer(told[:head], np.uint8), count=rows).astype(bool)
    if len(told) - head != int(changed.sum()) * row:
        raise ValueError("the numbers of other rows than those that changed")
    folded = _from_planes(told[head:], item)
    one = folded.dtype.type(1)
    moved = (folded >> one) ^ (~(folded & one) + one)
    after = _words(old, item).copy().reshape(rows, row // item)
    after[changed] += moved.reshape(-1, row // item)
    return after.tobytes()


def pack_rows(old: bytes, new: bytes, item: int, row: int) -> bytes:
    """A piece by `rows`."""
    return _compressor().compress(changed_rows(old, new, item, row))


def unpack_rows(packed: bytes, old: bytes, item: int, row: int) -> bytes:
    """The piece of `pack_rows`.

    Raises:
        ValueError: it is not what was packed.
    """
    most = -(-(len(old) // row) // 8) + len(old)
    return with_rows(old, _unpacked(packed, most), item, row)


def pack_whole(new: bytes, item: int) -> bytes:
    """A piece by `whole`."""
    return _compressor().compress(_planes(_words(new, item)) if item > 1 else new)


def unpack_whole(packed: bytes, size: int, item: int) -> bytes:
    """The piece of `pack_whole`.

    Raises:
        ValueError: it is not what was packed.
    """
    found = _unpacked(packed, size, exact=True)
    return _from_planes(found, item).tobytes() if item > 1 else found


def pack_patch(old: bytes, new: bytes) -> bytes:
    """A piece by `patch`."""
    zstandard = zstd()
    said = zstandard.ZstdCompressionDict(old, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    how = zstandard.ZstdCompressionParameters.from_level(
        LEVEL, source_size=len(new), dict_size=len(old), window_log=WINDOW, write_dict_id=False
    )
    packed: bytes = zstandard.ZstdCompressor(dict_data=said, compression_params=how).compress(new)
    return packed


def unpack_patch(packed: bytes, old: bytes, size: int) -> bytes:
    """The piece of `pack_patch`.

    Raises:
        ValueError: it is not what was packed.
    """
    zstandard = zstd()
    said = zstandard.ZstdCompressionDict(old, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return _unpacked(packed, size, exact=True, said=said)


def _unpacked(packed: bytes, most: int, *, exact: bool = False, said: Any = None) -> bytes:
    """What was packed; a frame that would become more than `most` bytes is not unpacked."""
    zstandard = zstd()
    try:
        size = zstandard.frame_content_size(packed)
        if not 0 <= size <= most or (exact and size != most):
            raise ValueError(f"a piece of {size:,} bytes" if size >= 0 else "a piece of any size")
        if size == 0:
            return b""
        unpacker = zstandard.ZstdDecompressor(dict_data=said, max_window_size=1 << (WINDOW + 1))
        found: bytes = unpacker.decompress(packed, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from None
    if len(found) != size:
        raise ValueError("a piece of another size than it says")
    return found
