"""The cells of one column, value by value, to ids or numbers: what `single` is made of."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import repeat
from math import inf, nan
from typing import Any, Generic, TypeVar

from bitfold.data.canonical import NUMBER, bag_of, number_of, text_of, utf8
from bitfold.data.hashing import missing_id
from bitfold.data.rules import RowRules
from bitfold.data.spellers import same
from bitfold.data.types import speller
from bitfold.data.xxh64 import hasher
from bitfold.errors import BitfoldError

T = TypeVar("T")

_INTEGERS = ("int", "text:int", "cells:int")
"""Types in whose spelling an integer is written as ever."""

_MANY = 16  # rows from which looking at all values first is worth it
_WIDE = 2**64
_SIMPLE = {str, int, float, type(None)}


class Cells(Generic[T]):
    """What reads the cells of a column.

    Args:
        name: of the column.
        rules: how rows become ids and numbers.
    """

    def __init__(self, name: str, rules: RowRules) -> None:
        self.name = name
        self.missing = frozenset(rules.config.missing)

    def read(self, values: Sequence[Any], first: int) -> list[T]:
        """What each cell is.

        Args:
            values: the cells of some rows.
            first: the number of the first row, for messages.

        Raises:
            BitfoldError: naming the row and the column of what cannot be read.
        """
        out: list[T] = []
        try:
            self.into(out, values)
        except BitfoldError as error:
            name, row = self.name, first + len(out) + 1
            raise BitfoldError(
                f"{error.problem}: column {name!r}, row {row}",
                got=error.got,
                expected=error.expected,
                fix=error.fix,
            ) from None
        return out

    def into(self, out: list[T], values: Sequence[Any]) -> None:
        """Append what each cell is, one by one, so that `out` tells how far it came."""
        raise NotImplementedError


class HashedIds(Cells[int]):
    """Hashes of canonical texts, as unsigned numbers."""

    def __init__(self, name: str, rules: RowRules) -> None:
        super().__init__(name, rules)
        kind = rules.types.get(name, "")
        spell = speller(kind)
        self.spell = None if spell is same else spell
        self.plain = kind in _INTEGERS
        self.seed, self.hash = rules.config.hash_seed, hasher()
        self.none = missing_id(self.seed) % 2**64

    def into(self, out: list[int], values: Sequence[Any]) -> None:
        """Append the id of each value; a missing one has an id, too."""
        kinds = set(map(type, values)) if len(values) > _MANY else set()
        if kinds == {str} and self.spell is None and not self.missing:
            with suppress(UnicodeEncodeError):  # some rows came before the one to be named
                out.extend(map(self.hash, map(str.encode, values), repeat(self.seed)))
                return
            del out[:]
        elif kinds and len(kinds - {type(None)}) == 1 and kinds <= _SIMPLE:
            # Values of one type that are equal have one text.
            known = dict.fromkeys(values, 0)
            found: list[int] = []
            with suppress(BitfoldError):
                self.one_by_one(found, known)
                known.update(zip(known, found, strict=True))
                out.extend(map(known.__getitem__, values))
                return
        self.one_by_one(out, values)

    def one_by_one(self, out: list[int], values: Iterable[Any]) -> None:
        """Append the id of each value, whatever its type."""
        append, hashed, seed, spell = out.append, self.hash, self.seed, self.spell
        for value in values:
            kind = type(value)
            if kind is str:
                text = value
            elif kind is int and -_WIDE < value < _WIDE:
                text = str(value)
            else:
                text = text_of(value)
            if text is None or text in self.missing:
                append(self.none)
                continue
            if spell is not None and not (self.plain and kind is int):
                text = spell(text)
                if text is None:
                    append(self.none)
                    continue
            try:
                append(hashed(text.encode(), seed))
            except UnicodeEncodeError:
                append(hashed(utf8(text), seed))  # it says what is wrong


class DenseIds(Cells[int]):
    """Ids that the column holds already."""

    def into(self, out: list[int], values: Sequence[Any]) -> None:
        """Append each id."""
        out.extend(map(dense_id, values))


class Bag(Cells[list[int]]):
    """Several ids a row."""

    def __init__(self, name: str, rules: RowRules) -> None:
        super().__init__(name, rules)
        self.separator = rules.config.multi[name]
        self.dense = rules.config.ids == "dense"
        self.spell, self.hashed = speller(rules.types.get(name, "")), HashedIds(name, rules)

    def into(self, out: list[list[int]], values: Sequence[Any]) -> None:
        """Append the ids of each row's bag."""
        for value in values:
            if isinstance(value, str) and value in self.missing:
                out.append([])
                continue
            texts = bag_of(value, self.separator)
            if self.dense:
                out.append([dense_id(text) for text in texts if text != ""])
                continue
            spelt = [self.spell(text) for text in texts if text not in self.missing]
            out.append([self.hashed.hash(utf8(text), self.hashed.seed) for text in spelt if text])


class Numbers(Cells[float]):
    """Finite numbers; NaN where they are missing."""

    def into(self, out: list[float], values: Sequence[Any]) -> None:
        """Append each number."""
        floats = not self.missing and set(map(type, values)) == {float}
        if floats and inf not in values and -inf not in values:
            out.extend(values)
            return
        for value in values:
            lacking = self.missing and text_of(value) in self.missing
            number = nan if lacking else number_of(value)
            if number in (inf, -inf):
                raise BitfoldError(
                    "the numeric column holds what is no number",
                    # An integer may be too long to be spelt.
                    got=f"{number} of type {type(value).__name__}",
                    expected="finite numbers, or nothing where they are missing",
                )
            out.append(number)


def dense_id(value: Any) -> int:
    """An id that the column holds already.

    Raises:
        BitfoldError: it is missing, fractional or negative.
    """
    text = text_of(value)
    found = -1
    if text is not None and NUMBER.fullmatch(text):
        if text.lstrip("+-").isdigit():
            found = int(text) if len(text) < 400 else -1
        elif float(text).is_integer():
            found = int(float(text))
    if not 0 <= found < 2**63:
        raise BitfoldError(
            "the column holds what is no dense id",
            got="nothing (a missing value)" if text is None else repr(value)[:80],
            expected="whole numbers 0, 1, 2, ... in every row",
            fix="train with --ids hashed (any value works) or --ids vocabulary",
        )
    return found
