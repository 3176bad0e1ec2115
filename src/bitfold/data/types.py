"""How the training part wrote a column's values, and other spellings of the same values.

A column of floats that was trained from Parquet has the canonical texts `40` and `20.5`; the CSV
that pandas writes of it holds `40.0`. Each column's *type* is kept in the schema, and a value that
is spelt otherwise when rows are scored gets the training's spelling:

- `int`, `float`, `float32`, `bool`, `date`, `datetime`, `datetime-utc`: the column had that type;
- `text`: it held text; `cells`: it came from a text file, where an empty cell is a missing value;
- `text:STYLE`, `cells:STYLE`: all of the texts looked at were spelt in one style: `int` (no leading
  zeros), `float` (as Python and pandas write them), `True`, `TRUE`, `true`, `date`, `datetime`
  (pandas' blank between day and time), `datetimeT`, `datetime+00:00` (pandas' UTC);
- `mixed`: files of one log had different types. This, and no entry at all, changes nothing.

Text without a style is left alone: "007" and "7" stay two values.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

from bitfold.data.canonical import NUMBER
from bitfold.data.spellers import INTEGER, MOMENT, SPELLERS, Speller, same

if TYPE_CHECKING:
    import polars as pl

MIXED = "mixed"
_TYPED = {"int": "typed-int", "float": "typed-float", "datetime": "datetimeT"}


def type_of(series: "pl.Series", *, from_text: bool) -> str | None:
    """The type of a chunk of a column; None if it holds no value.

    Args:
        series: values as they were read.
        from_text: whether they are the cells of a text file.
    """
    import polars as pl

    kind = series.dtype
    if isinstance(kind, pl.List):
        return type_of(series.explode(empty_as_null=True, keep_nulls=True), from_text=from_text)
    if kind in (pl.Categorical, pl.Enum):
        series, kind = series.cast(pl.String), pl.String()
    if series.null_count() == len(series):
        return None
    if kind == pl.String:
        style = style_of(series.drop_nulls().to_list())
        return ("cells" if from_text else "text") + (f":{style}" if style else "")
    if kind.is_integer():
        return "int"
    if kind.is_float():
        return "float32" if kind == pl.Float32 else "float"
    if isinstance(kind, pl.Datetime):
        return "datetime" if kind.time_zone is None else "datetime-utc"
    return {pl.Boolean: "bool", pl.Date: "date"}.get(type(kind), "other")


_PLAIN = {
    "int": r"^(?:0|-?[1-9][0-9]*)$",
    "typed-int": r"^(?:0|-?[1-9][0-9]*)$",
    "float": r"^-?(?:0|[1-9][0-9]{0,9})\.(?:0|[0-9]{0,4}[1-9])$",
    "typed-float": r"^-?(?:0|[1-9][0-9]{0,9})(?:\.[0-9]{0,4}[1-9])?$",
    "True": "^(?:True|False)$",
    "TRUE": "^(?:TRUE|FALSE)$",
    "true": "^(?:true|false)$",
    "bool": "^(?:true|false)$",
    "date": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
    "datetime": "^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}$",
    "datetimeT": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}$",
    "cells": "[^\0]",
}
"""What certainly needs no other spelling, for a quick look at a whole column."""


def style_of(texts: Iterable[str]) -> str | None:
    """The one style that all texts are spelt in; None if there is none.

    Example:
        >>> style_of(["40", "7"]), style_of(["40", "007"]), style_of(["40.0", "20.5"])
        ('int', None, 'float')
    """
    left = list(_STYLES)
    for text in texts:
        left = [style for style in left if _STYLES[style](text)]
        if not left:
            return None
    return left[0]


def _is_float(text: str) -> bool:
    return NUMBER.fullmatch(text) is not None and repr(float(text)) == text


def _is_moment(text: str, between: str, zone: str = "") -> bool:
    found = MOMENT.fullmatch(text)
    if found is None or (found[8] or "") != zone:
        return False
    return text[10:11] == between and (between == "" or found[6] is not None)


_STYLES: dict[str, Callable[[str], bool]] = {
    "int": lambda text: INTEGER.fullmatch(text) is not None,
    "float": _is_float,
    "True": lambda text: text in ("True", "False"),
    "TRUE": lambda text: text in ("TRUE", "FALSE"),
    "true": lambda text: text in ("true", "false"),
    "date": lambda text: _is_moment(text, ""),
    "datetime": lambda text: _is_moment(text, " "),
    "datetimeT": lambda text: _is_moment(text, "T"),
    "datetime+00:00": lambda text: _is_moment(text, " ", "+00:00"),
}


def is_type(kind: str) -> bool:
    """Whether a text names a type.

    Example:
        >>> is_type("cells:int"), is_type("cells:cells")
        (True, False)
    """
    head, sign, style = kind.partition(":")
    if sign:
        return head in ("text", "cells") and style in _STYLES
    return kind in ("text", "cells", "other", MIXED, "bool", "int", "float", "float32") or (
        kind in ("date", "datetime", "datetime-utc")
    )


def together(one: str | None, other: str | None) -> str | None:
    """The type of two chunks of one column.

    Example:
        >>> together("int", "float"), together("cells:int", "cells"), together("int", "text")
        ('float', 'cells', 'mixed')
    """
    if one is None or other is None or one == other:
        return one or other
    if {one, other} <= {"int", "float", "float32"}:
        return "float"
    heads = {one.partition(":")[0], other.partition(":")[0]}
    return heads.pop() if len(heads) == 1 and heads <= {"text", "cells"} else MIXED


def is_plain(series: "pl.Series", kind: str, *, from_text: bool) -> bool:
    """Whether a column's canonical text needs no other spelling, by its own type alone."""
    import polars as pl

    if kind in ("", MIXED, "other", "text") or (kind == "cells" and from_text):
        return True
    own = series.dtype
    if kind in ("int", "text:int", "cells:int"):
        return own.is_integer()
    if kind == "float":
        return own.is_integer() or own == pl.Float64
    return (kind == "float32" and own == pl.Float32) or (
        kind in ("bool", "date") and own == {"bool": pl.Boolean, "date": pl.Date}[kind]
    )


def respell(text: "pl.Series", kind: str) -> "pl.Series":
    """A column of canonical texts in the training's spelling."""
    import polars as pl

    pattern = _PLAIN.get(kind.partition(":")[2] or _TYPED.get(kind, kind))
    odd = text
    if pattern is not None:
        odd = text.filter(~text.str.contains(pattern).fill_null(True))
        if odd.is_empty():
            return text
    spell = speller(kind)
    distinct = odd.unique()
    before = distinct.to_list()
    after = [None if value is None else spell(value) for value in before]
    if after == before:
        return text
    return text.replace(distinct, pl.Series(after, dtype=pl.String))


@lru_cache(maxsize=256)
def speller(kind: str) -> Speller:
    """What turns one canonical text into the training's spelling of the same value.

    Example:
        >>> speller("float")("40.0"), speller("cells:float")("40"), speller("text")("007")
        ('40', '40.0', '007')
        >>> speller("date")("2024-01-22 00:00:00"), speller("cells:True")("true")
        ('2024-01-22', 'True')
    """
    head, _, style = kind.partition(":")
    if head in ("text", "cells"):
        spell = SPELLERS.get(style)
        if head == "cells":
            return lambda text: None if text == "" else text if spell is None else spell(text)
        return spell or same
    return SPELLERS.get(_TYPED.get(kind, kind), same)
