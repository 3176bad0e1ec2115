"""The first line of a text file: how it is quoted, and what its columns are called."""

from collections.abc import Sequence

from bitfold.data.config import DataConfig
from bitfold.data.formats import LAYOUTS, MOVIELENS_HEADER
from bitfold.data.lines import BLOCK_BYTES, too_long
from bitfold.data.logfile import LogFile
from bitfold.data.quotes import Dialect, find_quotes, row_ends
from bitfold.data.ragged import bad_utf8
from bitfold.errors import BitfoldError

QUOTES = {"none": "", "double": '"', "single": "'"}

_SAMPLE = 200  # lines that are looked at to see whether a file is quoted


def quote_of(data: bytes, file: LogFile, config: DataConfig) -> tuple[str, bool]:
    """The quote character (empty: none), and whether it is a guess.

    Text with tabs is read without quotes, unless a column is quoted in all of the first lines:
    a query or a title may begin with a quote that means nothing.
    """
    separator = file.separator
    if config.quote != "auto":
        quote = QUOTES[config.quote]
        if quote and len(separator) > 1:
            raise BitfoldError(
                "quotes cannot be read beside a separator of several characters",
                got=f"--quote {config.quote} and the separator {separator!r}",
                expected="--quote none, or a separator of one character",
            )
        return quote, False
    known = LAYOUTS.get(config.format)
    if len(separator) > 1 or (known is not None and not known.quoted):
        return "", True
    if separator != "\t":
        return '"', True
    return ('"' if _is_quoted(data) else ""), True


def _is_quoted(data: bytes) -> bool:
    """Whether some column of text with tabs is in quotes in each of the first lines."""
    lines = [line.strip(b"\r") for line in data[: 1 << 16].split(b"\n")]
    if len(lines) > 1:
        lines.pop()  # cut off, or empty
    rows = [line.split(b"\t") for line in lines[:_SAMPLE] if line]
    rows = [row for row in rows if len(row) == len(rows[0])]
    return bool(rows) and any(
        all(len(cell) > 1 and cell[:1] == cell[-1:] == b'"' for cell in column)
        for column in zip(*rows, strict=True)
    )


def first_cells(data: bytes, file: LogFile, quote: str) -> tuple[list[str], int] | None:
    """The cells of the first row that is not empty, and the number of empty lines before it.

    Args:
        data: the beginning of the file, without a byte order mark, lines ending with a line feed.

    Raises:
        BitfoldError: for bytes that are no UTF-8, and a line without an end.
    """
    blank = 0
    while data[:1] in (b"\n", b"\r") and data:
        cut = data.find(b"\n") + 1
        if not cut or data[:cut].strip(b"\r\n"):
            break
        data = data[cut:]
        blank += 1
    if not data.strip(b"\r\n"):
        return None
    dialect = Dialect(str(file.path), file.separator, 0, quote)
    quotes = find_quotes(data, dialect)
    ends = row_ends(data, quotes)
    if not len(ends) and (len(data) > BLOCK_BYTES or (quotes and quotes.open_at is not None)):
        raise too_long(data, 0, blank + 1, quotes, dialect)
    line = data[: int(ends[0])] if len(ends) else data
    try:
        text = line.rstrip(b"\r\n").decode()
    except UnicodeDecodeError as error:
        raise bad_utf8(str(file.path), blank + 1, line, error) from error
    return split_line(text, file.separator, quote), blank


def split_line(text: str, separator: str, quote: str) -> list[str]:
    """The cells of one row.

    Example:
        >>> split_line("7;'a; ''b''';c's", ";", "'")
        ['7', "a; 'b'", "c's"]
    """
    if not quote or quote not in text:
        return text.split(separator)
    cells: list[str] = []
    place = 0
    while True:
        cell = ""
        while text.startswith(quote, place):  # a doubled quote begins another piece
            end = text.find(quote, place + 1)
            end = len(text) if end < 0 else end
            cell += (quote if cell or text[place - 1 : place] == quote else "") + text[
                place + 1 : end
            ]
            place = end + 1
        stop = text.find(separator, place)
        if stop < 0:
            return [*cells, cell + text[place:]]
        cells.append(cell + text[place:stop])
        place = stop + len(separator)


def name_columns(
    cells: list[str],
    file: LogFile,
    config: DataConfig,
    required: Sequence[str],
) -> tuple[tuple[str, ...], bool, str | None]:
    """The names of all columns, whether the first row is a header, and what to say of it.

    Args:
        cells: of the first row.
        required: the columns that are wanted; without the label, rows are scored.
    """
    stripped = [cell.strip() for cell in cells]
    header = config.header
    if header == "auto" and config.format == "movielens":
        header = "yes" if stripped[0] == MOVIELENS_HEADER else "no"
    if header == "auto":
        header = "no" if config.columns else "yes"
    named = config.columns
    if header == "no" and _holds_names(stripped, named, required):
        said = f"the first line of {file.path} holds the columns' names: it is no row"
        return tuple(stripped), True, said
    if not named and header == "no":
        named = tuple(f"column_{index}" for index in range(1, len(cells) + 1))
    if not named:
        spaced = [cell for cell, name in zip(cells, stripped, strict=True) if cell != name]
        said = ", ".join(map(repr, spaced[:5]))
        return (
            tuple(stripped),
            True,
            (
                f"spaces around names in the header of {file.path} are left out: {said}"
                if spaced
                else None
            ),
        )
    label = config.label_rule.column if config.label_rule else None
    if len(named) != len(cells) and required and label is not None and label not in required:
        # Rows to score come without the label, or without all that the fields do not need.
        extra = (label, config.weight, config.group, config.time, config.split_rule.column)
        spare = (
            [label],
            [name for name in extra if name not in required],
            [name for name in named if name not in required],
        )
        for names in (tuple(n for n in named if n not in left) for left in spare):
            if len(names) == len(cells):
                return names, header == "yes", None
    if len(named) != len(cells):
        raise BitfoldError(
            f"{file.path} does not have the columns that were named",
            got=f"{len(cells)} columns in its first line",
            expected=f"{len(named)}: {', '.join(named)}",
            fix="check --columns, --separator and --format",
        )
    return named, header == "yes", None


def _holds_names(cells: list[str], named: Sequence[str], required: Sequence[str]) -> bool:
    """Whether the first line of a file without a header is one."""
    if not named or len(set(cells)) < len(cells):
        return False
    return set(cells) <= set(named) or (bool(required) and set(required) <= set(cells))
