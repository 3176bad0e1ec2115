"""Text files with separators: their header, their reader, and why reading one failed."""

import codecs
import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

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
        skip: lines to skip: empty ones, and the header.
        wanted: the columns to read.
        missing: texts that mean a missing value, besides an empty cell.
    """

    names: tuple[str, ...]
    skip: int
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
    cells, blank = _first_line(file, quoted)
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
    return TextLayout(names, blank + (header == "yes"), quoted, config.missing)


def _first_line(file: LogFile, quoted: bool) -> tuple[list[str], int]:
    """The cells of the first line that is not empty, and the number of lines before it."""
    blank = 0
    with unpacking(file), open_bytes(file) as (stream, _):
        line = stream.readline(BLOCK_BYTES)
        while line and not line.strip(b"\r\n"):
            line = stream.readline(BLOCK_BYTES)
            blank += 1
    line = line.removeprefix(codecs.BOM_UTF8).rstrip(b"\r\n")
    if not line:
        raise BitfoldError(
            f"the file {file.path} is empty", got="no line", expected="a log with rows"
        )
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise _bad_utf8(file, blank + 1, error) from error
    return split_line(text, file.separator, quoted), blank


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
                block_size=BLOCK_BYTES, column_names=names, skip_rows=layout.skip
            ),
            parse_options=pc.ParseOptions(
                delimiter=file.separator[0],
                quote_char='"' if layout.quoted else False,
                newlines_in_values=layout.quoted,
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
        if "Empty CSV" in str(error) or "Could not skip" in str(error):
            yield iter(()), lambda: file.size
            return
        raise
    try:
        yield reader, raw.tell
    finally:
        reader.close()


@contextmanager
def open_bytes(file: LogFile) -> Iterator[tuple[io.BufferedReader, Callable[[], int]]]:
    """The unpacked bytes of a file, and the position in the file itself."""
    import pyarrow as pa

    raw = pa.OSFile(str(file.path), "rb")
    stream = pa.CompressedInputStream(raw, file.packing) if file.packing else raw
    with raw, io.BufferedReader(stream, 1 << 16) as buffered:
        yield buffered, raw.tell


def estimate_rows(file: LogFile, sample: int = 8 << 20) -> int:
    """About how many rows a text file has, from its first bytes; the same every time."""
    lines, more = 0, True
    with unpacking(file), open_bytes(file) as (stream, position):
        left = sample
        while left > 0:
            block = stream.read(min(left, 1 << 20))
            if not block:
                more = False
                break
            lines += block.count(b"\n")
            left -= len(block)
        consumed = position()
    return max(lines * file.size // max(consumed, 1) if more else lines, 1)


@contextmanager
def unpacking(file: LogFile) -> Iterator[None]:
    """Tell a file that cannot be unpacked as such."""
    try:
        yield
    except OSError as error:
        raise _broken_packing(file, error) from error


def why_text_failed(error: Exception, file: LogFile, layout: TextLayout) -> BitfoldError:
    """Read the file again, slowly, to say where it is broken."""
    try:
        with open_bytes(file) as (stream, _):
            found = _find_ragged(file, layout, _Lines(stream))
    except _BadLine as bad:
        return _bad_utf8(file, bad.number, bad.error)
    except OSError as broken:
        return _broken_packing(file, broken)
    if found is not None:
        return found
    return BitfoldError(
        f"{file.path} cannot be read",
        got=str(error).splitlines()[0],
        expected=f"rows of text, none longer than {BLOCK_BYTES:,} bytes",
        fix="check --format, --separator and the quotes in the file",
    )


class _BadLine(Exception):
    """A line that is no UTF-8."""

    def __init__(self, number: int, error: UnicodeDecodeError) -> None:
        self.number, self.error = number, error


class _Lines:
    """Lines of text, counted."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        for line in self._stream:
            self.number += 1
            try:
                yield line.decode()
            except UnicodeDecodeError as error:
                raise _BadLine(self.number, error) from error


def _find_ragged(file: LogFile, layout: TextLayout, lines: _Lines) -> BitfoldError | None:
    first = 1
    for text in lines:
        row = text
        # A cell in quotes may go on over several lines.
        while layout.quoted and row.count('"') % 2:
            more = next(iter(lines), None)
            if more is None or len(row) > BLOCK_BYTES:
                return BitfoldError(
                    f"line {first} of {file.path} opens a quote that is never closed",
                    got=repr(text.rstrip("\r\n")[:60]),
                    expected="quotes in pairs",
                    fix="close the quote, or delete it",
                )
            row += more
        row = row.rstrip("\r\n")
        cells = len(split_line(row, file.separator, layout.quoted))
        if row and cells != len(layout.names):
            return _ragged(file, first, cells, len(layout.names), row)
        first = lines.number + 1
    return None


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


def _broken_packing(file: LogFile, error: Exception) -> BitfoldError:
    how = file.packing or "text"
    return BitfoldError(
        f"{file.path} is truncated or no whole {how} file",
        got=str(error).splitlines()[0] if str(error) else type(error).__name__,
        expected=f"a whole {how} file",
        fix="copy or download it again",
    )
