"""Text files with separators: their header, their reader, and why reading one failed."""

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import IO, Any

from bitfold.data.config import DataConfig
from bitfold.data.files import LogFile
from bitfold.data.formats import LAYOUTS, MOVIELENS_HEADER
from bitfold.errors import BitfoldError

BLOCK_BYTES = 4 << 20
"""Text is parsed in blocks of this many bytes; no line may be longer."""


@dataclass(frozen=True)
class TextLayout:
    """The columns of a text file.

    Args:
        names: of all columns in order; empty for the gaps of a doubled separator.
        header: whether the first line holds the names.
        wanted: the columns to read.
        missing: texts that mean a missing value, besides an empty cell.
    """

    names: tuple[str, ...]
    header: bool
    quoted: bool
    missing: tuple[str, ...]
    wanted: tuple[str, ...] = ()

    def wanting(self, names: Sequence[str]) -> "TextLayout":
        """The same layout, reading these columns."""
        return replace(self, wanted=tuple(names))


def text_layout(file: LogFile, config: DataConfig) -> TextLayout:
    """Look at the first line of a text file.

    Raises:
        BitfoldError: for a file without a line, whose first line is no text, or that cannot be
            unpacked.
    """
    known = LAYOUTS.get(config.format)
    quoted = known.quoted if known is not None else True
    cells = _first_line(file, quoted)
    header = config.header
    if header == "auto" and config.format == "movielens":
        header = "yes" if cells[0] == MOVIELENS_HEADER else "no"
    if header == "auto":
        header = "no" if config.columns else "yes"
    names = config.columns
    if not names:
        if header == "no":
            names = tuple(f"column_{index}" for index in range(1, len(cells) + 1))
        else:
            names = tuple(cells)
    if len(names) != len(cells):
        raise BitfoldError(
            f"{file.path} does not have the columns that were named",
            got=f"{len(cells)} columns in its first line",
            expected=f"{len(names)}: {', '.join(names)}",
            fix="check --columns, --separator and --format",
        )
    return TextLayout(names, header == "yes", quoted, config.missing)


def _first_line(file: LogFile, quoted: bool) -> list[str]:
    with _unpacking(file), _open_bytes(file) as (stream, _):
        line = stream.readline(BLOCK_BYTES)
        while line and not line.strip(b"\r\n"):
            line = stream.readline(BLOCK_BYTES)
    line = line.removeprefix(codecs.BOM_UTF8).rstrip(b"\r\n")
    if not line:
        raise BitfoldError(
            f"the file {file.path} is empty", got="no line", expected="a log with rows"
        )
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise _bad_utf8(file, 1, error) from error
    return split_line(text, file.separator, quoted)


def split_line(text: str, separator: str, quoted: bool) -> list[str]:
    """The cells of one line."""
    if len(separator) == 2:
        return text.split(separator)
    quoting: Any = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    return next(csv.reader([text], delimiter=separator, quoting=quoting), [""])


@contextmanager
def open_text(file: LogFile, layout: TextLayout) -> Iterator[tuple[Any, Callable[[], int]]]:
    """A reader of record batches of the wanted columns, and the position in the file in bytes."""
    import pyarrow as pa
    import pyarrow.csv as pc

    # Columns that nobody wants need names of their own: some files repeat a name.
    names: list[str] = []
    for index, name in enumerate(layout.names):
        names.append(name if name in layout.wanted else f"\0{index}")
        if len(file.separator) == 2 and index + 1 < len(layout.names):
            names.append(f"\0gap{index}")
    raw = pa.OSFile(str(file.path), "rb")
    stream = pa.CompressedInputStream(raw, file.packing) if file.packing else raw
    try:
        reader = pc.open_csv(
            stream,
            read_options=pc.ReadOptions(
                block_size=BLOCK_BYTES, column_names=names, skip_rows=int(layout.header)
            ),
            parse_options=pc.ParseOptions(
                delimiter=file.separator[0], quote_char='"' if layout.quoted else False
            ),
            convert_options=pc.ConvertOptions(
                include_columns=list(layout.wanted),
                column_types={name: pa.string() for name in layout.wanted},
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
                null_values=["", *layout.missing],
            ),
        )
    except pa.ArrowInvalid as error:
        if "Empty CSV" in str(error):
            yield iter(()), lambda: file.size
            return
        raise
    try:
        yield reader, raw.tell
    finally:
        reader.close()


@contextmanager
def _open_bytes(file: LogFile) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """The unpacked bytes of a file, and the file itself (for its position)."""
    with file.path.open("rb") as raw:
        if file.packing == "gzip":
            with gzip.open(raw) as stream:
                yield stream, raw  # type: ignore[misc]
        elif file.packing == "zstd":
            import zstandard

            unpacker = zstandard.ZstdDecompressor()
            with unpacker.stream_reader(raw, read_across_frames=True) as packed:
                yield io.BufferedReader(packed), raw
        else:
            yield raw, raw


def estimate_rows(file: LogFile, sample: int = 8 << 20) -> int:
    """About how many rows a text file has, from its first bytes; the same every time."""
    lines, more = 0, True
    with _unpacking(file), _open_bytes(file) as (stream, raw):
        left = sample
        while left > 0:
            block = stream.read(min(left, 1 << 20))
            if not block:
                more = False
                break
            lines += block.count(b"\n")
            left -= len(block)
        consumed = raw.tell()
    return max(lines * file.size // max(consumed, 1) if more else lines, 1)


@contextmanager
def _unpacking(file: LogFile) -> Iterator[None]:
    import zstandard

    try:
        yield
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise _broken_packing(file, error) from error


def why_text_failed(error: Exception, file: LogFile, layout: TextLayout) -> BitfoldError:
    """Read the file again, slowly, to say where it is broken."""
    import zstandard

    line_number = 0
    try:
        with _open_bytes(file) as (stream, _):
            for line_number, line in enumerate(stream, start=1):
                stripped = line.rstrip(b"\r\n")
                if not stripped:
                    continue
                if len(line) > BLOCK_BYTES:
                    return BitfoldError(
                        f"line {line_number} of {file.path} is too long",
                        got=f"{len(line):,} bytes",
                        expected=f"at most {BLOCK_BYTES:,}",
                        fix="check the quotes and the line ends of the file",
                    )
                text = stripped.decode()
                cells = len(split_line(text, file.separator, layout.quoted))
                if cells != len(layout.names):
                    return _ragged(file, line_number, cells, len(layout.names), text)
    except UnicodeDecodeError as bad:
        return _bad_utf8(file, line_number, bad)
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as broken:
        return _broken_packing(file, broken, after=line_number)
    return BitfoldError(
        f"{file.path} cannot be read",
        got=str(error).splitlines()[0],
        expected="rows of text",
        fix="check --format, --separator and the quotes in the file",
    )


def _ragged(file: LogFile, line: int, got: int, expected: int, text: str) -> BitfoldError:
    shown = text if len(text) <= 60 else text[:57] + "..."
    return BitfoldError(
        f"line {line} of {file.path} is ragged",
        got=f"{got} column{'s' if got != 1 else ''}: {shown!r}",
        expected=f"{expected} columns, as in the first line",
        fix="mend or delete the line; a cell that holds the separator must be quoted",
    )


def _bad_utf8(file: LogFile, line: int, error: UnicodeDecodeError) -> BitfoldError:
    return BitfoldError(
        f"line {line} of {file.path} is no UTF-8",
        got=f"the byte {error.object[error.start]:#04x} at position {error.start + 1} of the line",
        expected="text in UTF-8",
        fix="convert the file, for example with iconv -f latin1 -t utf-8",
    )


def _broken_packing(file: LogFile, error: Exception, after: int = 0) -> BitfoldError:
    how = {"gzip": "gzip", "zstd": "zstd"}.get(file.packing or "", "text")
    place = f" after line {after:,}" if after else ""
    return BitfoldError(
        f"{file.path} is truncated or no whole {how} file",
        got=f"{str(error).splitlines()[0] if str(error) else type(error).__name__}{place}",
        expected=f"a whole {how} file",
        fix="copy or download it again",
    )
