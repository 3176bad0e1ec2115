"""What changed between two runs, as one small file; and the new run, made of the old one and it.

Bytes are compared and made, not models: any two runs have a delta, and it is small where their
tables have the same shapes. Whoever applies it has the new run to the byte, or nothing.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import bitfold
from bitfold.errors import BitfoldError, OtherBase
from bitfold.files import sha256, whole
from bitfold.outputs import new_file, new_folder
from bitfold.records import broken, unreadable
from bitfold.remote import fetched
from bitfold.runs.delta_file import AGAIN, DeltaFile, Piece, head_of, read_delta, read_part
from bitfold.runs.delta_pieces import joined, pieces_of
from bitfold.runs.delta_ways import PIECE, unpack_patch, unpack_rows, unpack_whole, zstd
from bitfold.runs.manifest import MANIFEST, RUN, is_complete, verify


@dataclass(frozen=True)
class Delta:
    """A delta that was written.

    Attributes:
        path: the file.
        base: the digest of the old run: SHA-256 of its manifest file.
        result: that of the new run.
        bytes: the delta's.
        run_bytes: those of the new run's files.
        files: how many the new run has.
        same: how many of them are as they were.
    """

    path: Path
    base: str
    result: str
    bytes: int
    run_bytes: int
    files: int
    same: int


def run_digest(run: Path) -> str:
    """What tells a run from every other: the SHA-256 of its manifest file, in hexadecimal.

    Raises:
        BitfoldError: it is not there, or may not be read.
    """
    try:
        return sha256(run / MANIFEST)
    except OSError as error:
        raise unreadable(run / MANIFEST, error) from None


def delta(old: str | Path, new: str | Path, out: str | Path, *, force: bool = False) -> Delta:
    """Write what changed from one run to another.

    Of a table of the same shape it has the rows that changed, by how much; of other files whatever
    is smaller of their own bytes and of their difference from the old ones; of those that are the
    same nothing. What is beside a run's manifest (logs of its training, checkpoints) is left out.

    Args:
        old: the run that readers have.
        new: the run that they should have.
        out: the file to write.
        force: replace it if it is there.

    Raises:
        BitfoldError: `old` or `new` is no finished run, or was changed; `out` cannot be.

    Example:
        >>> import tempfile, bitfold
        >>> rows = {"user": [1, 2, 3, 4] * 50, "clicked": [0, 1, 1, 0] * 50}
        >>> how = {"label": "clicked", "fields": "user", "method": "full", "width": 4}
        >>> old, new = (bitfold.train(rows, seed=seed, **how) for seed in (0, 1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = delta(old.path, new.path, f"{folder}/day.delta")
        ...     found = apply(old.path, made.path, f"{folder}/run")
        ...     scores = bitfold.load(found).predict({"user": 1})
        >>> bool(scores == new.predict({"user": 1}))
        True
    """
    zstd()
    with fetched([old, new]) as (one, two), new_file(out, force=force, inputs=[old, new]) as path:
        before, names = verify(Path(one)), sorted(verify(Path(two)).names)
        base, result = run_digest(Path(one)), run_digest(Path(two))
        files: dict[str, list[Piece]] = {name: [] for name in (MANIFEST, *names)}
        with tempfile.TemporaryFile(dir=path.parent) as packed:
            for name, pieces in files.items():
                there = name in before or name == MANIFEST
                try:
                    for piece, data in pieces_of(
                        Path(one, name) if there else None, Path(two, name)
                    ):
                        joined(pieces, piece)
                        packed.write(data)
                except ValueError as error:
                    raise broken(
                        Path(two, name), error, "a file that stays as it is", AGAIN
                    ) from None
            packed.seek(0)
            with path.open("wb") as file:
                file.write(head_of(base, result, files, bitfold.__version__))
                shutil.copyfileobj(packed, file, PIECE)
        same = sum(all(piece.way == "same" for piece in pieces) for pieces in files.values())
        size = sum(piece.size for pieces in files.values() for piece in pieces)
        return Delta(Path(out), base, result, path.stat().st_size, size, len(files), same)


def apply(run: str | Path, delta: str | Path, out: str | Path, *, force: bool = False) -> Path:
    """Make the new run of the old one and a delta.

    Nothing is written before the delta's head, the old run and the room on the disk were looked
    at; the new run appears when every file of it was found to be the one that the delta was made
    of, to the byte.

    Args:
        run: the run that the delta was made from.
        delta: a file that `delta` wrote.
        out: the folder of the new run.
        force: replace a run that is there.

    Returns:
        The new run's folder.

    Raises:
        OtherBase: the delta was made from another run.
        BitfoldError: the delta is no delta, is truncated, was changed or is of a newer format;
            `run` is no finished run, or was changed; `out` cannot be.
    """
    zstd()
    with fetched([run, delta]) as (one, two):
        made = read_delta(two)
        check_base(Path(one), made)
        files = verify(Path(one))
        with new_folder(out, RUN, force=force, inputs=[run, delta]) as place:
            _check_room(place, made)
            _write(made, Path(one), files.names, place)
            _check_made(made, place)
    return Path(out)


def check_base(run: Path, made: DeltaFile) -> None:
    """Raise unless a delta was made from this run.

    Raises:
        OtherBase: it was made from another.
    """
    found = run_digest(run)
    if found != made.base:
        raise OtherBase(
            f"the delta {made.path} is not of this run",
            got=f"the run {found}",
            expected=f"the run {made.base}, from which it was made",
            fix="apply the deltas in their order, or copy the whole run",
        )


def _check_made(made: DeltaFile, place: Path) -> None:
    """Raise unless what was written is the new run, and nothing beside."""
    got = f"the run {run_digest(place)}"
    if run_digest(place) == made.result:
        try:
            if {MANIFEST, *verify(place).names} == made.files.keys():
                return
            got = "a file too many"
        except BitfoldError as error:
            got = error.problem.replace(f"{place}/", "").replace(str(place), "the new run")
    raise broken(made.path, got, f"the run {made.result}", AGAIN)


def _check_room(place: Path, made: DeltaFile) -> None:
    free = shutil.disk_usage(place).free
    if made.new_bytes > free:
        raise BitfoldError(
            f"there is no room for the run of {made.path}",
            got=f"{free:,} bytes free",
            expected=f"{made.new_bytes:,} bytes",
            fix="free some space, or name an output elsewhere",
        )


def _write(made: DeltaFile, run: Path, names: frozenset[str], place: Path) -> None:
    """Write the files of the new run."""
    with made.path.open("rb") as file:
        file.seek(made.start)
        for name in made.files:
            there = name in names or name == MANIFEST
            with (
                open(run / name if there else os.devnull, "rb") as old,  # noqa: PTH123
                whole(place / name),
                (place / name).open("wb") as out,
            ):
                for piece, packed in made.pieces(file, name):
                    try:
                        for part in _parts(piece, packed, old):
                            out.write(part)
                    except ValueError as error:
                        where = f"{name} of {made.path}"
                        raise broken(where, error, "what was written", AGAIN) from None


def _parts(piece: Piece, packed: bytes, old: BinaryIO) -> Iterator[bytes]:
    """The new bytes of a piece."""
    if piece.way == "same":
        for at in range(piece.at, piece.at + piece.size, PIECE):
            yield read_part(old, at, min(PIECE, piece.at + piece.size - at))
    elif piece.way == "whole":
        yield unpack_whole(packed, piece.size, piece.item)
    elif piece.way == "rows":
        before = read_part(old, piece.at, piece.size)
        yield unpack_rows(packed, before, piece.item, piece.row)
    else:
        yield unpack_patch(packed, read_part(old, piece.at, piece.span), piece.size)


def applied(run: str | Path, delta: str | Path, places: str | Path | None = None) -> Path:
    """The new run of a delta in a folder of its own, for a process that serves the old one.

    Args:
        run: the run that is served.
        delta: what it should become.
        places: the folder of such runs; beside `run`, `.NAME.deltas`, if none is said. Whoever
            serves removes what it serves no more.

    Returns:
        The new run's folder, named by its digest; the same for the same delta, made once.

    Raises:
        OtherBase: the delta was made from another run.
        BitfoldError: as `apply`; nothing is left then.
    """
    made, run = read_delta(delta), Path(run)
    check_base(run, made)
    real = run.resolve()
    out = Path(places or real.with_name(f".{real.name}.deltas")) / made.result
    if is_complete(out):
        with suppress(BitfoldError):
            verify(out)
            if run_digest(out) == made.result:
                return out
    return apply(run, delta, out, force=True)
