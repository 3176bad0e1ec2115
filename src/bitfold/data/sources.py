"""The bytes of a file: plain, packed, the one member of a zip, standard input or a named pipe."""

import io
import os
import shutil
import stat
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bitfold.data.logfile import LogFile
from bitfold.errors import BitfoldError
from bitfold.terminal import printable

STDIN = "-"
"""The name of standard input on a command line."""

_SPOOLED: dict[object, Any] = {}
"""What was read from pipes, by the pipe: a pipe can be read once, a log is looked at twice."""


def spooled(path: Path) -> Path | None:
    """A file with what a pipe or standard input holds; None if `path` is an ordinary file.

    A pipe is copied to a temporary file, which goes away with the process: the header is looked
    at before the rows are read, Parquet must be read from its end, and rows are counted.

    Raises:
        BitfoldError: if standard input is a terminal, or a pipe cannot be read.
    """
    if str(path) in (STDIN, "/dev/stdin"):
        key: object = STDIN
        if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
            raise BitfoldError(
                "there is nothing on standard input",
                got="a terminal" if sys.stdin is not None else "no standard input",
                expected="rows from a pipe or a file",
                fix="bitfold ... - < rows.csv",
            )
    else:
        try:
            found = path.stat()
        except OSError:
            return None
        if not (stat.S_ISFIFO(found.st_mode) or stat.S_ISSOCK(found.st_mode)):
            return None
        key = (found.st_dev, found.st_ino)
    if key not in _SPOOLED:
        kept = tempfile.NamedTemporaryFile(prefix="bitfold-")  # noqa: SIM115 (kept open)
        if key == STDIN:
            shutil.copyfileobj(getattr(sys.stdin, "buffer", sys.stdin), kept, 1 << 20)
        else:
            with path.open("rb") as pipe:
                shutil.copyfileobj(pipe, kept, 1 << 20)
        kept.flush()
        _SPOOLED[key] = kept
    return Path(_SPOOLED[key].name)


def packing_of(path: Path) -> str | None:
    """How a file without a telling name is packed, or `parquet`: by its first bytes."""
    with path.open("rb") as file:
        magic = file.read(4)
    known = {b"PK\x03\x04": "zip", b"\x28\xb5\x2f\xfd": "zstd", b"PAR1": "parquet"}
    return "gzip" if magic[:2] == b"\x1f\x8b" else known.get(magic)


@contextmanager
def open_bytes(file: LogFile) -> Iterator[tuple[Any, Callable[[], int]]]:
    """The unpacked bytes of a file (`read(n)`), and the position in the file itself.

    Raises:
        BitfoldError: for a file that may not be read, or is no whole packed one.
    """
    import pyarrow as pa

    with ExitStack() as stack:
        try:
            if file.packing == "zip":
                raw: Any = stack.enter_context(file.real.open("rb"))
                archive = stack.enter_context(zipfile.ZipFile(raw))
                stream: Any = stack.enter_context(archive.open(zip_member(archive, file.path)))
            else:
                # A name that is no UTF-8 is given as bytes.
                raw = stream = stack.enter_context(pa.OSFile(os.fsencode(file.real), "rb"))
            if file.packing in ("gzip", "zstd"):
                stream = stack.enter_context(pa.CompressedInputStream(raw, file.packing))
        except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
            raise unreadable(file, error) from error
        yield stream, raw.tell


def zip_member(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    """The one file in a zip.

    Raises:
        BitfoldError: if there is none, or more than one.
    """
    members = [
        info
        for info in archive.infolist()
        if not info.is_dir() and not info.filename.startswith("__MACOSX/")
    ]
    if len(members) == 1 and not members[0].flag_bits & 1:
        return members[0]
    names = ", ".join(printable(info.filename) for info in members[:5])
    raise BitfoldError(
        f"{path} does not hold one file",
        got=("a member with a password: " if len(members) == 1 else f"{len(members)} files: ")
        + (names or "none"),
        expected="a zip of one text file",
        fix="unpack it, and name the files that make the log",
    )


def ahead(stream: Any, size: int) -> Iterator[bytes]:
    """Blocks of a stream; while one is used the next is read and unpacked."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(stream.read, size)
        while block := bytes(waiting.result()):
            waiting = pool.submit(stream.read, size)
            yield block


def peek(file: LogFile, limit: int) -> bytes:
    """The first bytes of a file: 64 KiB, or up to `limit` where they hold no end of a line."""
    with broken_packing(file), open_bytes(file) as (stream, _):
        data = bytes(stream.read(1 << 16))
        while data and b"\n" not in data.lstrip(b"\r\n\xef\xbb\xbf") and len(data) <= limit:
            more = bytes(stream.read(1 << 20))
            if not more:
                break
            data += more
    return data


@contextmanager
def broken_packing(file: LogFile) -> Iterator[None]:
    """Say which file could not be unpacked or read."""
    try:
        yield
    except (OSError, zipfile.BadZipFile, EOFError) as error:
        raise unreadable(file, error) from error
    except Exception as error:
        if type(error).__module__ == "zlib":  # zlib.error, out of a broken zip
            raise unreadable(file, error) from error
        raise


def unreadable(file: LogFile, error: Exception) -> BitfoldError:
    """The error for a file whose bytes cannot be had."""
    import pyarrow as pa

    if isinstance(error, PermissionError):
        return forbidden(file.path)
    if isinstance(error, FileNotFoundError | IsADirectoryError):
        return BitfoldError(
            f"the file {file.path} is gone",
            got=_line(error),
            expected="a file that stays while it is read",
        )
    if isinstance(error, pa.ArrowMemoryError | MemoryError):
        return out_of_memory(file.path, error)
    how = file.packing or "text"
    return BitfoldError(
        f"{file.path} is truncated or no whole {how} file",
        got=_line(error),
        expected=f"a whole {how} file",
        fix="copy or download it again",
    )


def forbidden(path: Path) -> BitfoldError:
    """The error for a file or folder that this user may not read."""
    return BitfoldError(
        f"{path} may not be read",
        got="no permission",
        expected="a file that this user may read",
        fix=f"ask its owner, or chmod +r {path}",
    )


def out_of_memory(path: Path, error: Exception) -> BitfoldError:
    """The error for a file that needs more memory than there is."""
    return BitfoldError(
        f"the memory is not enough to read {path}",
        got=_line(error),
        expected="memory for one piece of the file at a time",
        fix="free some memory or raise the limit; Parquet is read best in row groups of 64 MiB",
    )


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def first_text(data: bytes) -> str:
    """The first line of some bytes that is not empty, for guesses; broken bytes are replaced."""
    text = io.StringIO(data[: 1 << 16].decode("utf-8", "replace"), newline=None)
    return next((line.strip("\n\ufeff") for line in text if line.strip("\n\ufeff")), "")
