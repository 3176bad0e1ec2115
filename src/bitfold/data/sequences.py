"""Lines of a user and the items that the user has: the files of graph recommenders.

    0 17 4 250
    1 4

One row a pair, in the line's order; spaces, tabs and commas part the values, or the one
separator that is named. Lines end in any way. A value may stand in quotes. A user may have several
lines, or a line without items.
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
_JSON = re.compile(r'(?:^|["\s,:])\[|^\s*\{\s*"')


@dataclass(frozen=True)
class Sequences:
    """How a file of lines is read.

    Args:
        names: of the user's column and the item's.
        value: a pattern of one value.
        header: whether the first line is none of the data.
        missing: texts that mean a missing value.
        wanted: the columns to read.
    """

    names: tuple[str, ...]
    value: str
    header: bool = False
    missing: tuple[str, ...] = ()
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
    header = config.header == "yes"
    return Sequences(config.columns, value, header, config.missing, tuple(required))


def read_sequences(file: LogFile, layout: Sequences, before: int) -> Iterator[Rows]:
    """The pairs of a file, some lines at a time.

    Raises:
        BitfoldError: for a line that is no UTF-8, endless, or JSON, naming it.
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
            texts = list(_texts(file, lines, line))
            frame = _pairs(file, layout, texts[1:] if layout.header and not line else texts)
            line += len(lines)
            if frame.height:
                done = before + min(position(), file.size)
                yield Rows(frame.select(layout.wanted), file.path, rows, True, done)
                rows += frame.height


def _texts(file: LogFile, lines: list[bytes], before: int) -> Iterator[str]:
    """The lines as text; one that ends in a lone carriage return is a line, too."""
    for number, line in enumerate(lines, before + 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise BitfoldError(
                f"line {number} of {file.path} is no UTF-8",
                got=f"the byte {error.object[error.start]:#04x}",
                expected="lines of a user and items, as text in UTF-8",
            ) from error
        if _JSON.search(text):
            raise BitfoldError(
                f"line {number} of {file.path} is no line of a user and items",
                got=repr(text[:60].rstrip()),
                expected="values parted by spaces, tabs or commas, such as 0 17 4 250",
                fix="write it so, or as a table with a row for each pair",
            )
        yield from text.rstrip("\r\n").split("\r")


def _pairs(file: LogFile, layout: Sequences, texts: list[str]) -> "pl.DataFrame":
    import polars as pl

    user, item = layout.names
    frame = (
        pl.DataFrame({"line": texts}, schema={"line": pl.String})
        .select(pl.col("line").str.extract_all(layout.value))
        .filter(pl.col("line").list.len() > 1)
        .select(
            pl.col("line").list.first().alias(user),
            pl.col("line").list.slice(1).alias(item),
        )
        .explode(item)
        .with_columns(pl.all().str.strip_chars().str.replace('^"(.*)"$', "$1"))
        .filter(pl.col(item) != "")
    )
    if layout.missing:
        absent = pl.all().is_in(list(layout.missing))
        frame = frame.with_columns(pl.when(~absent).then(pl.all()))
    return frame


def estimate_pairs(file: LogFile, layout: Sequences, sample: int = 8 << 20) -> int:
    """About how many pairs a file holds, from its first bytes."""
    with broken_packing(file), open_bytes(file) as (stream, position):
        block = bytes(stream.read(sample))
        consumed = position()
        more = bool(stream.read(1))
    values = len(re.findall(layout.value.encode(), block))
    lines = max(block.count(b"\n"), block.count(b"\r"))
    pairs = max(values - lines, 1)
    return max(pairs * file.size // max(consumed, 1), 1) if more else pairs


def _too_long(file: LogFile, line: int) -> BitfoldError:
    return BitfoldError(
        f"line {line} of {file.path} does not end",
        got=f"more than {LINE_BYTES:,} bytes",
        expected="lines of a user and the user's items",
        fix="check --format: is this a file of sequences?",
    )
