"""The file of a delta: a checked head, then pieces one after another.

    8 bytes      MAGIC
    8 bytes      how long the head is, little-endian
    the head     JSON: kind, version, digests of both runs' manifests, and of each file its pieces
    the pieces   in the head's order

A head is read whole, and found right, before anything else is: what the file is, its version, its
digest, its record; then that the pieces fill the file to its last byte, that each is bounded, and
that those of a file add up to it. A piece's digest is checked before it is unpacked.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import msgspec
import xxhash
from msgspec import Meta

from bitfold.errors import BitfoldError
from bitfold.records import (
    Count,
    Form,
    broken,
    checked_object,
    file_size,
    parse_object,
    record,
    sealed,
    unreadable,
)
from bitfold.records import Digest as PieceDigest
from bitfold.runs.delta_ways import ITEMS, MOST_PIECE, most_packed
from bitfold.runs.manifest import MANIFEST, Digest, PlainName

AGAIN = "make the delta again, or copy it again"
FORM = Form("bitfold delta", 1, sealed_from=1, fix=AGAIN)
MAGIC = b"bfdelta\n"
MOST_HEAD = 64 << 20

Size = Annotated[int, Meta(ge=1, le=MOST_PIECE)]


class Piece(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Some bytes of a new file, in the order of the file.

    `size` new bytes; the old piece has `span` bytes (as many, if it is 0) from `at` of the old file
    of that name; `item` and `row` are the bytes of a number and of a row, `packed` the bytes in the
    delta and `digest` their XXH3-128.
    """

    way: Literal["same", "whole", "rows", "patch"]
    size: Annotated[int, Meta(ge=1, le=2**53)]
    at: Count = 0
    span: Annotated[int, Meta(ge=0, le=MOST_PIECE)] = 0
    item: Annotated[int, Meta(ge=1, le=8)] = 1
    row: Annotated[int, Meta(ge=0, le=MOST_PIECE)] = 0
    packed: Annotated[int, Meta(ge=0, le=most_packed(MOST_PIECE))] = 0
    digest: PieceDigest | None = None

    def __post_init__(self) -> None:
        if self.way == "same":
            right = not (self.span or self.row or self.packed or self.digest)
        else:
            right = self.size <= MOST_PIECE and self.size % self.item == 0
            right = right and self.item in ITEMS and self.packed > 0 and self.digest is not None
            right = right and self.packed <= most_packed(self.size)
        if self.way == "rows":
            right = right and self.row > 0 and self.row % self.item == self.size % self.row == 0
        if self.way == "patch":
            right = right and self.span > 0
        if not right:
            raise ValueError(f"a piece by {self.way!r} that cannot be")

    @property
    def old(self) -> int:
        """Bytes of the old file that it follows."""
        return 0 if self.way == "whole" else self.span or self.size


class _Head(msgspec.Struct, forbid_unknown_fields=True):
    kind: str
    format: int
    bitfold: str
    base: Digest
    result: Digest
    files: dict[PlainName, list[Piece]]


@dataclass(frozen=True)
class DeltaFile:
    """A delta whose head was found right.

    Attributes:
        path: the file.
        base: the digest of the old run: SHA-256 of its manifest file.
        result: that of the new run.
        files: the pieces of each file of the new run, by its name.
        start: where the first piece lies.
    """

    path: Path
    base: str
    result: str
    files: Mapping[str, tuple[Piece, ...]]
    start: int

    def size(self, name: str) -> int:
        """Bytes of a file of the new run."""
        return sum(piece.size for piece in self.files[name])

    @property
    def new_bytes(self) -> int:
        """Bytes of the new run, with its manifest."""
        return sum(map(self.size, self.files))

    def pieces(self, file: BinaryIO, name: str) -> Iterator[tuple[Piece, bytes]]:
        """Each piece of a file with its packed bytes, from the open delta, which stands there.

        Raises:
            BitfoldError: its bytes are not those that were written.
        """
        for piece in self.files[name]:
            packed = file.read(piece.packed)
            if piece.packed and xxhash.xxh3_128_hexdigest(packed) != piece.digest:
                raise broken(self.path, f"another digest in {name}", "what was written", AGAIN)
            yield piece, packed


def read_delta(path: str | Path) -> DeltaFile:
    """The head of a delta.

    Raises:
        BitfoldError: the file is missing, may not be read, is no delta, is truncated, was changed,
            or is of a newer format.
    """
    path = Path(path)
    size = file_size(path)
    try:
        with path.open("rb") as file:
            magic, length = file.read(8), int.from_bytes(file.read(8), "little")
            if magic != MAGIC:
                raise BitfoldError(
                    f"{path} is no delta",
                    got="a file that begins with other bytes" if size else "an empty file",
                    expected="a file that `bitfold delta` wrote",
                    fix="check the path",
                )
            if length > min(MOST_HEAD, size - 16):
                raise broken(path, f"{size:,} bytes", "a head of its length", AGAIN)
            head = file.read(length)
    except OSError as error:
        raise unreadable(path, error) from None
    value = checked_object(parse_object(head, path, fix=AGAIN), FORM, path)
    found = record(value, _Head, path, fix=AGAIN)
    made = DeltaFile(
        path, found.base, found.result,
        {name: tuple(pieces) for name, pieces in found.files.items()}, 16 + length,
    )  # fmt: skip
    if MANIFEST not in made.files:
        raise broken(path, f"no {MANIFEST}", "every file of a run", AGAIN)
    packed = sum(piece.packed for pieces in made.files.values() for piece in pieces)
    if made.start + packed != size:
        raise broken(path, f"{size:,} bytes", f"{made.start + packed:,} bytes", AGAIN)
    return made


def head_of(base: str, result: str, files: Mapping[str, list[Piece]], version: str) -> bytes:
    """What a delta begins with, up to its first piece."""
    value: dict[str, Any] = FORM.head() | {"bitfold": version, "base": base, "result": result}
    value["files"] = msgspec.to_builtins(files)
    head = json.dumps(sealed(value), separators=(",", ":")).encode()
    return MAGIC + len(head).to_bytes(8, "little") + head


def read_part(file: BinaryIO, at: int, size: int) -> bytes:
    """Bytes of an open file, from `at`.

    Raises:
        ValueError: it is shorter.
    """
    found = os.pread(file.fileno(), size, at)
    if len(found) != size:
        raise ValueError("a file that is shorter than it was")
    return found
