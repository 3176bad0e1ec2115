"""The small languages inside the options: labels, splits, transforms and crosses."""

import math
import re
from dataclasses import dataclass

from bitfold.errors import BitfoldError, unknown_name


@dataclass(frozen=True)
class Label:
    """A label: a column of 0 and 1, or a column and a comparison."""

    column: str
    compare: str | None = None
    value: str | None = None


@dataclass(frozen=True)
class Split:
    """How rows are dealt to train, valid and test."""

    kind: str
    fractions: tuple[float, float, float] = (1.0, 0.0, 0.0)
    last: tuple[int, int] = (0, 0)
    column: str | None = None


@dataclass(frozen=True)
class Transform:
    """What is done to numeric columns: `log`, `standard` or `buckets`."""

    kind: str
    buckets: int = 0


def parse_label(text: str) -> Label:
    """Read `clicked` or `rating>=4`.

    Example:
        >>> parse_label("rating >= 4")
        Label(column='rating', compare='>=', value='4')
    """
    match = re.fullmatch(r"\s*([^<>=!]+?)\s*(>=|<=|==|!=|>|<|=)\s*(.+?)\s*", text)
    if match is None:
        if not text.strip() or re.search(r"[<>=!]", text):
            raise BitfoldError(
                "the label cannot be read",
                got=repr(text),
                expected="a column, or a comparison such as rating>=4",
            )
        return Label(text.strip())
    column, compare, value = match.groups()
    compare = "==" if compare == "=" else compare
    if compare not in ("==", "!="):
        try:
            bound = float(value)
        except ValueError:
            bound = math.nan
        if not math.isfinite(bound):
            raise BitfoldError(
                "the label is compared with what is no number",
                got=repr(text),
                expected=f"a number after {compare}",
                fix="compare text with == or !=",
            )
    return Label(column, compare, value)


def parse_split(text: str) -> Split:
    """Read `random:0.8,0.1,0.1`, `time:0.8,0.1,0.1`, `last:1,1` or `column:NAME`.

    Example:
        >>> parse_split("random:0.8,0.1,0.1").fractions
        (0.8, 0.1, 0.1)
    """
    kind, _, rest = text.partition(":")
    if kind not in ("random", "time", "last", "column"):
        raise unknown_name("split", kind, ("random", "time", "last", "column"))
    if kind == "column":
        if not rest:
            raise BitfoldError("the split names no column", got=repr(text), expected="column:NAME")
        return Split("column", column=rest)
    return _last(text, rest) if kind == "last" else _fractions(kind, text, rest)


def check_split(split: Split, *, group: str | None, time: str | None) -> None:
    """Raise if a split lacks the column that it goes by."""
    for kind, name, column in (("time", "time", time), ("last", "group", group)):
        if split.kind == kind and not column:
            raise BitfoldError(
                f"a split by {kind!r} needs the {name} column",
                got=f"no {name}",
                expected=f"--{name} COLUMN",
                fix=f"name the {name} column",
            )


def _last(text: str, rest: str) -> Split:
    pieces = rest.split(",")
    if len(pieces) != 2 or not all(piece.strip().isdecimal() for piece in pieces):
        raise BitfoldError(
            "the split cannot be read",
            got=repr(text),
            expected="last:V,T with two counts, such as last:1,1",
        )
    valid, test = (int(piece) for piece in pieces)
    return Split("last", last=(valid, test))


def _fractions(kind: str, text: str, rest: str) -> Split:
    try:
        shares = [float(piece) for piece in rest.split(",")]
    except ValueError:
        shares = []
    if len(shares) != 3 or not all(math.isfinite(share) and share >= 0 for share in shares):
        raise BitfoldError(
            "the split cannot be read",
            got=repr(text),
            expected=f"{kind}:A,B,C with three fractions of 0 or more, such as {kind}:0.8,0.1,0.1",
        )
    if abs(sum(shares) - 1) > 1e-6:
        raise BitfoldError(
            "the fractions of the split do not sum to 1",
            got=f"{text} sums to {sum(shares):g}",
            expected="train, valid and test fractions that sum to 1",
            fix=f"for example {kind}:0.8,0.1,0.1",
        )
    if shares[0] == 0:
        raise BitfoldError(
            "the split leaves nothing to train on",
            got=repr(text),
            expected="a first fraction above 0",
        )
    return Split(kind, fractions=(shares[0], shares[1], shares[2]))


def parse_transform(text: str) -> Transform:
    """Read `log`, `standard` or `buckets:N`.

    Example:
        >>> parse_transform("buckets:32")
        Transform(kind='buckets', buckets=32)
    """
    kind, _, rest = text.partition(":")
    if kind in ("log", "standard") and not rest:
        return Transform(kind)
    if kind != "buckets":
        raise unknown_name("numeric_transform", text, ("log", "standard", "buckets:N"))
    if not rest.isdecimal() or not 2 <= int(rest) <= 65_536:
        raise BitfoldError(
            "the number of buckets cannot be read",
            got=repr(text),
            expected="buckets:N with N from 2 to 65536, such as buckets:32",
        )
    return Transform("buckets", int(rest))


def parse_cross(text: str) -> tuple[str, ...]:
    """Read `a*b` (or `a*b*c`).

    Example:
        >>> parse_cross("movie*age")
        ('movie', 'age')
    """
    parts = tuple(part.strip() for part in text.split("*"))
    if len(parts) < 2 or not all(parts) or len(set(parts)) != len(parts):
        raise BitfoldError(
            "the cross cannot be read",
            got=repr(text),
            expected="two or more different columns joined by *, such as movie*age",
        )
    return parts
