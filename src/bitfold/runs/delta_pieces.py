"""A new file as pieces that follow an old file: which bytes belong together, and the smallest way.

A tensor of a safetensors file follows the old one of its name: row by row where numbers and rows
are of the same size, as far as both go. Everything else follows the old bytes as text would.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import xxhash

from bitfold.runs.delta_file import Piece, read_part
from bitfold.runs.delta_ways import (
    MOST_PIECE,
    PIECE,
    pack_patch,
    pack_rows,
    pack_whole,
)

SIZES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E5M2": 1, "F8_E4M3": 1, "BOOL": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1,
}  # fmt: skip
MOST_HEADER = 16 << 20
SMALL_ENOUGH = 0.75  # of a piece: a difference below it is taken without a look at other ways


class Tensor(NamedTuple):
    """Where a tensor lies in its file, the bytes of a number and of a row, and whether floats."""

    begin: int
    end: int
    item: int
    row: int
    floats: bool


class Region(NamedTuple):
    """Bytes of a new file, and those of the old one that they follow; by rows if `row` is not 0."""

    begin: int
    end: int
    item: int
    row: int
    floats: bool
    old: tuple[int, int]


def pieces_of(old: Path | None, new: Path) -> Iterator[tuple[Piece, bytes]]:
    """The pieces of a new file in its order, each with its packed bytes.

    Args:
        old: the old file of its name; None if there is none.
        new: the file.

    Raises:
        ValueError: a file becomes shorter while it is read.
    """
    with new.open("rb") as ours, (old or new).open("rb") as theirs:
        for region in regions(None if old is None else theirs, ours):
            yield from _pieces(theirs, ours, region)


def regions(old: BinaryIO | None, new: BinaryIO) -> Iterator[Region]:
    """A new file cut into what belongs together."""
    size, before = _size(new), 0 if old is None else _size(old)
    tensors, others = layout(new), {} if old is None else layout(old)
    at = min((each.begin for each in tensors.values()), default=size)
    head = min((each.begin for each in others.values()), default=before)
    if at:
        yield Region(0, at, 1, 0, False, (0, head))
    for name, each in sorted(tensors.items(), key=lambda pair: pair[1].begin):
        other = others.get(name, Tensor(0, 0, 1, 0, False))
        shared = 0
        if (each.item, each.row) == (other.item, other.row):
            shared = min(each.end - each.begin, other.end - other.begin)
            if shared:
                yield Region(
                    each.begin, each.begin + shared, each.item, each.row, each.floats,
                    (other.begin, other.begin + shared),
                )  # fmt: skip
        if each.begin + shared < each.end:
            begin = each.begin + shared
            yield Region(begin, each.end, each.item, 0, each.floats, (other.begin, other.end))


def layout(file: BinaryIO) -> dict[str, Tensor]:
    """Where the tensors of an open safetensors file lie; none if it is another file."""
    size = _size(file)
    length = int.from_bytes(read_part(file, 0, min(8, size)), "little")
    if size < 10 or length > min(MOST_HEADER, size - 8):
        return {}
    try:
        header: dict[str, Any] = json.loads(read_part(file, 8, length))
        header.pop("__metadata__", None)
        found = {name: _tensor(about, 8 + length) for name, about in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
    found = {name: each for name, each in found.items() if each.begin < each.end}
    at = 8 + length
    for each in sorted(found.values()):
        if each.begin != at or (each.end - each.begin) % each.row or each.row % each.item:
            return {}
        at = each.end
    return found if at == size else {}


def _tensor(about: dict[str, Any], start: int) -> Tensor:
    begin, end = about["data_offsets"]
    item, row = SIZES[about["dtype"]], SIZES[about["dtype"]]
    shape = about["shape"]
    for each in shape[1:]:
        row *= each
    if not 0 < row <= PIECE:
        row = item
    return Tensor(start + begin, start + end, item, row, about["dtype"][0] in "FB")


def _pieces(old: BinaryIO, new: BinaryIO, region: Region) -> Iterator[tuple[Piece, bytes]]:
    step = PIECE // max(region.row, region.item) * max(region.row, region.item)
    for begin in range(region.begin, region.end, step):
        data = read_part(new, begin, min(step, region.end - begin))
        if region.row:
            at = region.old[0] + begin - region.begin
            span = len(data)
        else:
            at, span = _near(region, begin, len(data))
        yield _smallest(region, read_part(old, at, span), data, at)


def _near(region: Region, begin: int, size: int) -> tuple[int, int]:
    """The old bytes around the same share of the way, as many as may be read."""
    first, last = region.old
    share = (begin - region.begin) / (region.end - region.begin)
    middle = first + int((last - first) * share) + size // 2
    at = max(first, min(middle - MOST_PIECE // 2, last - MOST_PIECE))
    return at, min(MOST_PIECE, last - at)


def _smallest(region: Region, old: bytes, new: bytes, at: int) -> tuple[Piece, bytes]:
    if old == new:
        return Piece("same", len(new), at), b""
    size, item, row = len(new), region.item, region.row
    found: list[tuple[Piece, bytes]] = []
    if row:
        packed = pack_rows(old, new, item, row)
        found.append((Piece("rows", size, at, 0, item, row, len(packed), _digest(packed)), packed))
        if len(packed) < size * SMALL_ENOUGH and region.floats:
            return found[0]
    if old and not (row and region.floats):
        packed = pack_patch(old, new)
        piece = Piece("patch", size, at, len(old), packed=len(packed), digest=_digest(packed))
        found.append((piece, packed))
    item = item if size % item == 0 else 1
    for each in {item, 1} if not region.floats else {item}:
        packed = pack_whole(new, each)
        piece = Piece("whole", size, item=each, packed=len(packed), digest=_digest(packed))
        found.append((piece, packed))
    return min(found, key=lambda pair: (len(pair[1]), pair[0].way))


def joined(pieces: list[Piece], piece: Piece) -> None:
    """Add a piece to those before it: old bytes that follow one another are one piece."""
    last = pieces[-1] if pieces else None
    if (
        last is not None
        and last.way == piece.way == "same"
        and last.at + last.size == piece.at
    ):  # fmt: skip
        pieces[-1] = Piece("same", last.size + piece.size, last.at)
    else:
        pieces.append(piece)


def _digest(packed: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(packed)


def _size(file: BinaryIO) -> int:
    return file.seek(0, 2)
