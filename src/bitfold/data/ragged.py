"""Why a block of text could not be parsed, with the line."""

from typing import TYPE_CHECKING

import numpy as np

from bitfold.errors import BitfoldError
from bitfold.terminal import printable

if TYPE_CHECKING:
    from bitfold.data.lines import Block


_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"PAR1": "Parquet",
}
_SUFFIXES = {"gzip": ".gz", "zstd": ".zst", "zip": ".zip", "Parquet": ".parquet"}


def why_parsing_failed(error: Exception, block: "Block") -> BitfoldError:
    """The error for a block that the parser refused."""
    try:
        block.data.decode()
    except UnicodeDecodeError as broken:
        return bad_utf8(block.dialect.name, block.line, block.data, broken)
    found = _ragged(block)
    if found is not None:
        return found
    return BitfoldError(
        f"{block.dialect.name} cannot be read from line {block.line:,} on",
        got=printable(str(error).splitlines()[0][:200]),
        expected="rows of text",
        fix="check --format, --separator and the quotes in the file",
    )


def bad_utf8(name: str, line: int, data: bytes, error: UnicodeDecodeError) -> BitfoldError:
    """The error for bytes that are no UTF-8; `line` is the number of the first line in `data`."""
    number = line + data.count(b"\n", 0, error.start)
    place = error.start - (data.rfind(b"\n", 0, error.start) + 1)
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff") and line == 1
    packed = next((name for magic, name in _MAGIC.items() if data.startswith(magic)), None)
    if packed is not None and line == 1:
        return BitfoldError(
            f"{name} is no text",
            got=f"a {packed} file",
            expected="text in UTF-8, as its name or --format says",
            fix=f"rename it, so that its name ends in {_SUFFIXES[packed]}",
        )
    return BitfoldError(
        f"line {number} of {name} is no UTF-8",
        got=f"the byte {data[error.start]:#04x} at position {place + 1} of the line",
        expected="text in UTF-8",
        fix=f"convert the file, for example with iconv -f {'utf-16' if wide else 'latin1'} "
        "-t utf-8",
    )


def _ragged(block: "Block") -> BitfoldError | None:
    """The first row whose columns are too many or too few."""
    dialect, data = block.dialect, block.data
    separator = dialect.separator.encode()
    if len(separator) > 1:
        counts = np.array([row.count(separator) for row in data.split(b"\n")[:-1]])
    else:
        places = np.flatnonzero(np.frombuffer(data, np.uint8) == separator[0])
        if block.quotes is not None:
            places = places[~block.quotes.inside(places)]
        counts = np.diff(np.searchsorted(places, block.ends), prepend=0)
    begin = 0
    for end, count in zip(block.ends.tolist(), counts.tolist(), strict=True):
        row = data[begin:end].rstrip(b"\r")
        if count != dialect.columns - 1 and row:
            return _ragged_row(block, begin, count + 1, row)
        begin = end + 1
    return None


def _ragged_row(block: "Block", begin: int, got: int, row: bytes) -> BitfoldError:
    text = row[:120].decode("utf-8", "replace")
    shown = repr(printable(text if len(row) <= 60 else text[:57] + "..."))
    quoted = not block.dialect.quote and '"' in text
    return BitfoldError(
        f"line {block.line_of(begin)} of {block.dialect.name} is ragged",
        got=f"{got} column{'s' if got != 1 else ''}: {shown}",
        expected=f"{block.dialect.columns} columns, as in the first line",
        fix="say --quote double if quotes enclose cells here"
        if quoted
        else "mend or delete the line; a cell that holds the separator must be quoted",
    )
