"""Where quotes begin and end in a block of text, and where its rows do."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

NEWLINE, RETURN = 10, 13

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Dialect:
    """How rows are told from bytes.

    Args:
        name: what messages call the file.
        separator: between cells.
        columns: how many there are.
        quote: the quote character, or empty where quotes mean nothing.
        guessed: whether nobody said that cells are quoted. Cells of several lines are then refused
            where they look like rows that a stray quote swallowed.
        returns: whether lines end with a carriage return alone.
        blanks: whether an empty line is a row.
    """

    name: str
    separator: str
    columns: int
    quote: str = '"'
    guessed: bool = True
    returns: bool = False
    blanks: bool = False


@dataclass(frozen=True)
class Quotes:
    """Where quoted cells begin and end.

    Args:
        opens: places of the opening quotes; a doubled quote within a cell closes and opens it.
        closes: places of the closing ones; one fewer if the last cell is open.
        has_lines: whether a line may end within a cell.
    """

    opens: Places
    closes: Places
    has_lines: bool = False

    @property
    def open_at(self) -> int | None:
        """Where the cell begins that is not closed."""
        if len(self.opens) == len(self.closes):
            return None
        return int(self.cells[0][-1])

    @cached_property
    def cells(self) -> tuple[Places, Places]:
        """First and last quote of each cell; an open one has no last."""
        apart = np.ones(len(self.opens), bool)
        apart[1:] = self.opens[1:] != self.closes[: len(self.opens) - 1] + 1
        last = np.append(apart[1:], True)[: len(self.closes)]
        return self.opens[apart], self.closes[last]

    def until(self, place: int) -> "Quotes":
        """Those that lie before a place."""
        opens, closes = self.opens[self.opens < place], self.closes[self.closes < place]
        return Quotes(opens, closes, self.has_lines)

    def inside(self, places: Places) -> npt.NDArray[np.bool_]:
        """Which places lie within quotes."""
        before = np.searchsorted(self.opens, places) - np.searchsorted(self.closes, places)
        out: npt.NDArray[np.bool_] = before > 0
        return out


def find_quotes(data: bytes, dialect: Dialect) -> Quotes | None:
    """Find the quoted cells: a quote opens a cell at its beginning only, as in RFC 4180."""
    quote = dialect.quote.encode()
    if not quote or quote not in data:
        return None
    letters = np.frombuffer(data, np.uint8)
    places = np.flatnonzero(letters == quote[0])
    last = dialect.separator.encode()[-1]
    before = letters[places - 1]
    if places[0] == 0:
        before[0] = NEWLINE
    begins = (before == last) | (before == NEWLINE) | (before == RETURN)
    # Where every other quote can open a cell, that is what it does.
    opens, closes = places[0::2], places[1::2]
    again = np.zeros(len(opens), bool)
    again[1:] = opens[1:] == closes[: len(opens) - 1] + 1
    if not (begins[0::2] | again).all():
        opens, closes = _walk(places, begins)
    found = Quotes(opens, closes)
    newlines = np.flatnonzero(letters == NEWLINE)
    has_lines = bool(found.inside(newlines).any())
    return Quotes(opens, closes, has_lines) if len(opens) else None


def _walk(places: Places, begins: npt.NDArray[np.bool_]) -> tuple[Places, Places]:
    """The same, quote by quote, where some stand in the middle of a cell and mean nothing."""
    opens: list[int] = []
    closes: list[int] = []
    is_open, closed = False, -2
    for place, begin in zip(places.tolist(), begins.tolist(), strict=True):
        if is_open:
            closes.append(place)
            is_open, closed = False, place
        elif begin or place == closed + 1:
            opens.append(place)
            is_open = True
    return np.array(opens, np.int64), np.array(closes, np.int64)


def row_ends(data: bytes, quotes: Quotes | None) -> Places:
    """Where the line feed of each row stands."""
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == NEWLINE)
    if quotes is None or not quotes.has_lines:
        return ends
    return ends[~quotes.inside(ends)]
