"""Text files with separators: their header, their reader, and why reading one failed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bitfold.data.config import DataConfig
from bitfold.data.header import first_cells, name_columns, quote_of
from bitfold.data.lines import BLOCK_BYTES, Block, blocks
from bitfold.data.logfile import LogFile
from bitfold.data.quotes import Dialect
from bitfold.data.ragged import why_parsing_failed
from bitfold.data.rows import frame_of
from bitfold.data.sources import ahead, broken_packing, open_bytes, peek
from bitfold.errors import BitfoldError

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class TextLayout:
    """The columns of a text file.

    Args:
        names: of all columns in order; empty for columns without a name.
        skip: rows to skip at the top: empty lines, and the header.
        dialect: how rows are told from bytes.
        missing: texts that mean a missing value, besides an empty cell.
        said: what to tell the user of the header.
        wanted: the columns to read.
    """

    names: tuple[str, ...]
    skip: int
    dialect: Dialect
    missing: tuple[str, ...]
    said: str | None = None
    wanted: tuple[str, ...] = ()

    def wanting(self, names: Sequence[str]) -> "TextLayout":
        """The same layout, reading these columns."""
        return replace(self, wanted=tuple(names))


def text_layout(
    file: LogFile, config: DataConfig, required: Sequence[str] = ()
) -> TextLayout | None:
    """Look at the first lines of a text file; None for one without a line.

    Args:
        required: the columns that are wanted. Where the label is not among them, as in scoring,
            a file without a header may lack columns that are not wanted.

    Raises:
        BitfoldError: for a file whose first line is no text or too long, whose columns are not
            those that were named, or that cannot be unpacked.
    """
    data = peek(file, BLOCK_BYTES).removeprefix(b"\xef\xbb\xbf")
    returns = b"\n" not in data and b"\r" in data
    if returns:
        data = data.replace(b"\r", b"\n")
    quote, guessed = quote_of(data, file, config)
    found = first_cells(data, file, quote)
    if found is None:
        return None
    cells, blank = found
    names, header, said = name_columns(cells, file, config, required)
    if len(cells) == 1 and not header:
        blank = 0  # an empty line of one column is a row
    dialect = Dialect(
        str(file.path), file.separator, len(names), quote, guessed, returns, len(names) == 1
    )
    return TextLayout(names, blank + header, dialect, config.missing, said)


@contextmanager
def open_text(
    file: LogFile, layout: TextLayout
) -> Iterator[tuple["Iterator[pl.DataFrame]", Callable[[], int]]]:
    """The frames of the wanted columns, and the position in the file in bytes."""
    with open_bytes(file) as (stream, position):
        reading = ahead(stream, BLOCK_BYTES)
        try:
            yield _frames(file, layout, reading), position
        finally:
            reading.close()  # type: ignore[attr-defined]


def _frames(file: LogFile, layout: TextLayout, stream: Iterator[bytes]) -> "Iterator[pl.DataFrame]":
    import pyarrow as pa

    left = layout.skip
    with broken_packing(file):
        for whole in blocks(stream, layout.dialect):
            skipped = min(left, len(whole.ends)) if left else 0
            left -= skipped
            block = whole.without(skipped)
            if not block.data or not block.rows:
                continue
            try:
                table = _parse(block, layout)
            except pa.ArrowMemoryError:
                raise
            except pa.ArrowException as error:
                raise why_parsing_failed(error, block) from error
            if table.num_rows != block.rows:
                raise BitfoldError(
                    f"the rows of {file.path} do not agree with its lines",
                    got=f"{table.num_rows:,} rows from line {block.line:,} on",
                    expected=f"{block.rows:,}, as line ends say",
                    fix="say --quote none if quotes mean nothing in this file",
                )
            yield frame_of(table)


def _parse(block: Block, layout: TextLayout) -> Any:
    """One block to a table of text columns, null where a cell is missing."""
    import pyarrow as pa
    import pyarrow.csv as pc

    dialect, data = block.dialect, block.data
    separator = dialect.separator
    if len(separator) > 1:
        # Arrow's separators are one byte: one that the block does not hold stands in.
        separator = next(chr(code) for code in range(1, 32) if _is_free(code, data))
        data = data.replace(dialect.separator.encode(), separator.encode())
    # Columns that nobody wants need names of their own: some files repeat a name.
    names = [
        name if name in layout.wanted else f"\0{index}" for index, name in enumerate(layout.names)
    ]
    # Where quotes mean nothing by a guess, an empty cell may still be written as two of them.
    empty = ["", '""'] if dialect.guessed and not dialect.quote else [""]
    return pc.read_csv(
        pa.BufferReader(data),
        read_options=pc.ReadOptions(block_size=len(data) + 1, column_names=names),
        parse_options=pc.ParseOptions(
            delimiter=separator,
            quote_char=dialect.quote or False,
            newlines_in_values=block.quotes is not None and block.quotes.has_lines,
            ignore_empty_lines=not dialect.blanks,
        ),
        convert_options=pc.ConvertOptions(
            include_columns=list(layout.wanted),
            column_types={name: pa.string() for name in layout.wanted},
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
            null_values=[*empty, *layout.missing],
        ),
    )


def _is_free(code: int, data: bytes) -> bool:
    return code not in (9, 10, 13) and bytes([code]) not in data


def estimate_rows(file: LogFile, sample: int = 8 << 20) -> int:
    """About how many rows a text file has, from its first bytes; the same every time."""
    lines, more = 0, True
    with broken_packing(file), open_bytes(file) as (stream, position):
        left = sample
        while left > 0:
            block = bytes(stream.read(min(left, 1 << 20)))
            if not block:
                more = False
                break
            lines += block.count(b"\n") or block.count(b"\r")
            left -= len(block)
        consumed = position()
    return max(lines * file.size // max(consumed, 1) if more else lines, 1)
