"""Lines of a user and the items that the user has: the files of graph recommenders.

    0 17 4 250
    1 4

One row a pair, in the line's order; spaces, tabs and commas part the values, or the one
separator that is named. A user may have several lines, or a line without items.
"""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitfold.data.config import DataConfig
from bitfold.data.files import pick
from bitfold.data.logfile import LogFile
from bitfold.data.rows import Rows
from bitfold.data.sources import broken_packing, open_bytes
from bitfold.errors import BitfoldError

if TYPE_CHECKING:
    import polars as pl

LINE_BYTES = 64 << 20
"""No line may be longer: some eight million items."""

_BLOCK_BYTES = 4 << 20
_COMMON = r"[^\s,]+"


@dataclass(frozen=True)
class Sequences:
    """How a file of lines is read: the two columns' names, and a pattern of one value."""

    names: tuple[str, ...]
    value: str
    wanted: tuple[str, ...] = ()


def sequence_layout(file: LogFile, config: DataConfig, required: Sequence[str] = ()) -> Sequences:
    """The layout of one file.

    Raises:
        BitfoldError: for columns that a line of a user and items does not have.
    """
    if len(config.columns) != 2:
        raise BitfoldError(
            "a file of sequences has two columns",
            got=", ".join(config.columns) or "none",
            expected="the user's name and the item's, such as --columns user,item",
        )
    pick(config.columns, required, file.path)
    value = _COMMON if config.separator is None else f"[^{re.escape(file.separator[0])}\r]+"
    return Sequences(config.columns, value, tuple(required))


def read_sequences(file: LogFile, layout: Sequences, before: int) -> Iterator[Rows]:
    """The pairs of a file, some lines at a time.

    Raises:
        BitfoldError: for a line that is no UTF-8 or endless, naming it.
    """
    rows = line = 0
    with broken_packing(file), open_bytes(file) as (stream, position):
        buffered = io.BufferedReader(stream, 1 << 16)
        while True:
            lines: list[bytes] = []
            size = 0
            while size < _BLOCK_BYTES:
                read = buffered.readline(LINE_BYTES + 1)
                if not read:
                    break
                if len(read) > LINE_BYTES:
                    raise _too_long(file, line + len(lines) + 1)
                lines.append(read)
                size += len(read)
            if not lines:
                return
            frame = _pairs(file, layout, lines, line)
            line += len(lines)
            if frame.height:
                done = before + min(position(), file.size)
                yield Rows(frame.select(layout.wanted), file.path, rows, True, done)
                rows += frame.height


def _pairs(file: LogFile, layout: Sequences, lines: list[bytes], before: int) -> "pl.DataFrame":
    import polars as pl

    texts = []
    for number, line in enumerate(lines, before + 1):
        try:
            texts.append(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            raise BitfoldError(
                f"line {number} of {file.path} is no UTF-8",
                got=f"the byte {error.object[error.start]:#04x}",
                expected="lines of a user and items, as text in UTF-8",
            ) from error
    user, item = layout.names
    return (
        pl.DataFrame({"line": texts}, schema={"line": pl.String})
        .select(pl.col("line").str.strip_chars("\r\n").str.extract_all(layout.value))
        .filter(pl.col("line").list.len() > 1)
        .select(
            pl.col("line").list.first().str.strip_chars().alias(user),
            pl.col("line").list.slice(1).alias(item),
        )
        .explode(item)
        .with_columns(pl.col(item).str.strip_chars())
    )


def estimate_pairs(file: LogFile, layout: Sequences, sample: int = 8 << 20) -> int:
    """About how many pairs a file holds, from its first bytes."""
    with broken_packing(file), open_bytes(file) as (stream, position):
        block = bytes(stream.read(sample))
        consumed = position()
        more = bool(stream.read(1))
    values = len(re.findall(layout.value.encode(), block))
    pairs = max(values - block.count(b"\n"), 1)
    return max(pairs * file.size // max(consumed, 1), 1) if more else pairs


def _too_long(file: LogFile, line: int) -> BitfoldError:
    return BitfoldError(
        f"line {line} of {file.path} does not end",
        got=f"more than {LINE_BYTES:,} bytes",
        expected="lines of a user and the user's items",
        fix="check --format: is this a file of sequences?",
    )
