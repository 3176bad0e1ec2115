"""Text in blocks of whole rows: line ends, quotes and the length of lines, in one pass.

The block reader decides where a row ends, before anything is parsed. So a quote that is never
closed is found after one block instead of at the end of the file, the parser's rows can be held
against the lines, and a line's number is known without reading the file again.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bitfold.data.quotes import NEWLINE, RETURN, Dialect, Places, Quotes, find_quotes, row_ends
from bitfold.errors import BitfoldError
from bitfold.terminal import printable

BLOCK_BYTES = 4 << 20
"""Text is parsed in blocks of this many bytes; no line may be longer."""


@dataclass(frozen=True)
class Block:
    """Whole rows of text, each ending with a line feed.

    Args:
        line: the number of the first line in the file, from 1.
    """

    data: bytes
    line: int
    dialect: Dialect

    @cached_property
    def quotes(self) -> "Quotes | None":
        """The quoted cells, if there are any."""
        return find_quotes(self.data, self.dialect)

    @cached_property
    def ends(self) -> Places:
        """Where each row's line feed stands."""
        return row_ends(self.data, self.quotes)

    @cached_property
    def rows(self) -> int:
        """How many rows a parser must find."""
        data = self.data
        quoted = self.quotes is not None and self.quotes.has_lines
        if not quoted and (self.dialect.blanks or not _may_have_blanks(data)):
            return data.count(b"\n")
        if self.dialect.blanks:
            return len(self.ends)
        starts = np.concatenate([[0], self.ends[:-1] + 1])
        lengths = self.ends - starts
        letters = np.frombuffer(data, np.uint8)
        blank = (lengths == 0) | ((lengths == 1) & (letters[starts] == RETURN))
        return int(len(self.ends) - blank.sum())

    def without(self, rows: int) -> "Block":
        """The block without its first rows."""
        if rows == 0:
            return self
        cut = int(self.ends[rows - 1]) + 1
        line = self.line + self.data.count(b"\n", 0, cut)
        return Block(self.data[cut:], line, self.dialect)

    def line_of(self, place: int) -> int:
        """The number of the line that holds a byte."""
        return self.line + self.data.count(b"\n", 0, place)


def _may_have_blanks(data: bytes) -> bool:
    # One letter is found much quicker than three.
    return data[:1] in b"\r\n" or b"\n\n" in data or (b"\r" in data and b"\n\r\n" in data)


def blocks(stream: Iterable[bytes], dialect: Dialect) -> Iterator[Block]:
    """The rows of a stream in blocks; the byte order mark is left out.

    Raises:
        BitfoldError: for a quote that is never closed or swallows rows, a line that is too long,
            and a carriage return that ends no line.
    """
    rest, line, first = b"", 1, True
    for more in stream:
        data = rest + (more.replace(b"\r", b"\n") if dialect.returns else more)
        if first:
            data, first = data.removeprefix(b"\xef\xbb\xbf"), False
        _check_returns(more, line, rest, dialect)
        cut, quotes = _last_end(data, dialect)
        if len(data) - cut > BLOCK_BYTES:
            raise too_long(data, cut, line, quotes, dialect)
        if cut:
            block = Block(data[:cut], line, dialect)
            # What was found once is not looked for again.
            block.__dict__["quotes"] = None if quotes is None else quotes.until(cut)
            _check(block)
            yield block
            line += data.count(b"\n", 0, cut)
        rest = data[cut:]
    if rest:
        data = rest.removesuffix(b"\r") + b"\n"
        quotes = find_quotes(data, dialect)
        if quotes is not None and quotes.open_at is not None:
            raise _unclosed(data, quotes.open_at, line, dialect)
        block = Block(data, line, dialect)
        _check(block)
        yield block


def _last_end(data: bytes, dialect: Dialect) -> tuple[int, Quotes | None]:
    """Where the last whole row ends."""
    quotes = find_quotes(data, dialect)
    if quotes is None or not quotes.has_lines:
        return data.rfind(b"\n") + 1, quotes
    ends = row_ends(data, quotes)
    return (int(ends[-1]) + 1 if len(ends) else 0), quotes


def _check(block: Block) -> None:
    """Hold a block's carriage returns and its cells of several lines against the rules."""
    data, dialect = block.data, block.dialect
    returns = data.count(b"\r")
    if returns and returns != data.count(b"\r\n"):
        letters = np.frombuffer(data, np.uint8)
        places = np.flatnonzero(letters == RETURN)
        places = places[letters[places + 1] != NEWLINE]
        if block.quotes is not None:
            places = places[~block.quotes.inside(places)]
        if len(places):
            raise _stray_return(block.line_of(int(places[0])), dialect)
    if block.quotes is not None and block.quotes.has_lines:
        _check_cells(block, block.quotes)


def _check_cells(block: Block, quotes: Quotes) -> None:
    data, dialect = block.data, block.dialect
    separator = dialect.separator.encode()
    newlines = np.flatnonzero(np.frombuffer(data, np.uint8) == NEWLINE)
    starts, ends = quotes.cells
    several = np.searchsorted(newlines, starts) != np.searchsorted(newlines, ends)
    for start, end in zip(starts[several].tolist(), ends[several].tolist(), strict=True):
        after = data[end + 1 : end + 1 + len(separator)]
        if after[:1] not in (b"\n", b"\r") and after != separator:
            raise _swallowed(block, start, end)
        if dialect.guessed:
            opening = data[data.rfind(b"\n", 0, start) + 1 : data.index(b"\n", start)]
            closing = data[data.rfind(b"\n", start, end) + 1 : data.index(b"\n", end)]
            if opening.count(separator) == closing.count(separator) == dialect.columns - 1:
                raise _swallowed(block, start, end)


def _check_returns(more: bytes, line: int, rest: bytes, dialect: Dialect) -> None:
    if dialect.returns and b"\n" in more:
        place = more.index(b"\n")
        found = line + rest.count(b"\n") + more.count(b"\r", 0, place)
        raise BitfoldError(
            f"line {found} of {dialect.name} ends in another way than those before",
            got="a line feed, after lines that end with a carriage return",
            expected="one kind of line end in a file",
            fix="convert the file: tr '\\r' '\\n' < FILE > NEW",
        )


def _stray_return(line: int, dialect: Dialect) -> BitfoldError:
    return BitfoldError(
        f"line {line} of {dialect.name} holds a carriage return that ends no line",
        got="\\r in the middle of the line",
        expected="lines that end with \\n or \\r\\n",
        fix="delete it (tr -d '\\r' < FILE > NEW), or quote the cell",
    )


def too_long(
    data: bytes, cut: int, line: int, quotes: Quotes | None, dialect: Dialect
) -> BitfoldError:
    """The error for a row without an end; `cut` is where it begins, `line` where `data` does."""
    if quotes is not None and quotes.open_at is not None:
        return _unclosed(data, quotes.open_at, line, dialect)
    number = line + data.count(b"\n", 0, cut)
    return BitfoldError(
        f"line {number} of {dialect.name} is too long",
        got=f"{_shown(data[cut:])} and so on for more than {BLOCK_BYTES:,} bytes",
        expected=f"rows of text, none longer than {BLOCK_BYTES:,} bytes",
        fix="check that the file is text, and its line ends",
    )


def _unclosed(data: bytes, place: int, line: int, dialect: Dialect) -> BitfoldError:
    begin = data.rfind(b"\n", 0, place) + 1
    number = line + data.count(b"\n", 0, place)
    return BitfoldError(
        f"line {number} of {dialect.name} opens a quote that is never closed",
        got=_shown(data[begin : data.find(b"\n", place)]),
        expected="quotes in pairs",
        fix="close the quote or delete it; if quotes mean nothing in this file, say --quote none",
    )


def _swallowed(block: Block, start: int, end: int) -> BitfoldError:
    data = block.data
    lines = data.count(b"\n", start, end)
    begin = data.rfind(b"\n", 0, start) + 1
    return BitfoldError(
        f"line {block.line_of(start)} of {block.dialect.name} opens a quote that swallows "
        f"{lines} more line{'s' if lines > 1 else ''}",
        got=_shown(data[begin : data.index(b"\n", start)]),
        expected="one row a line, or a quoted cell that a separator follows",
        fix="--quote none if quotes mean nothing in this file; --quote double if its cells do "
        "hold line ends",
    )


def _shown(data: bytes) -> str:
    text = data[:120].decode("utf-8", "replace").rstrip("\r\n")
    return repr(printable(text if len(text) <= 60 else text[:57] + "..."))
