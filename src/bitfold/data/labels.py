"""Labels and numbers out of raw columns, with the row in every complaint."""

import math
from typing import TYPE_CHECKING

import numpy as np

from bitfold.data.rows import Rows
from bitfold.data.syntax import Label
from bitfold.errors import BitfoldError

if TYPE_CHECKING:
    import polars as pl


def numbers(rows: Rows, name: str, what: str, missing: tuple[str, ...] = ()) -> "pl.Series":
    """A column as Float64, NaN where it is missing.

    Raises:
        BitfoldError: for what is no number, or is infinite.
    """
    import polars as pl

    column = rows.frame[name]
    if missing and not rows.text:
        from bitfold.data.hashing import canonical_text

        column = column.set(canonical_text(column).is_in(list(missing)).fill_null(False), None)
    if column.dtype == pl.String:
        read = column.str.strip_chars().cast(pl.Float64, strict=False)
    elif column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null):
        read = column.cast(pl.Float64, strict=False)
        # The masks below cost more than all the rest of a frame's numbers do.
        if column.dtype.is_numeric() and not np.isinf(read.to_numpy()).any():
            return read.fill_null(float("nan")) if read.null_count() else read
    else:
        raise BitfoldError(
            f"{what} {name!r} holds no numbers",
            got=f"values of type {column.dtype}",
            expected="numbers",
            fix=f"leave {name} out, or make it a field",
        )
    rows.refuse(
        (read.is_null() & column.is_not_null()) | read.is_infinite(),
        name,
        f"{what} holds what is no number",
        "finite numbers, or nothing where they are missing",
        fix=f"make {name} a field, or name the text with --missing if it means nothing",
    )
    return read.fill_null(float("nan"))


MISSING_LABELS = (
    *("", "nan", "na", "n/a", "<na>", "#n/a", "null", "none", "nil", "nat", "\\n", "?", "-"),
)
"""Texts that are no answer, in lower case: never a class, unless the comparison names them."""

_LABEL = "a label in every row"


def read_labels(rows: Rows, rule: Label, missing: tuple[str, ...] = ()) -> "pl.Series":
    """The labels as 0 and 1.

    Args:
        rule: the column, and the comparison if there is one.
        missing: texts that mean a missing value.

    Raises:
        BitfoldError: for a missing label, or one that is neither 0 nor 1 and not compared.
    """
    import polars as pl

    from bitfold.data.hashing import canonical_text

    column = rows.frame[rule.column]
    if column.dtype.is_float():
        column = column.fill_nan(None)
    if missing and not rows.text:
        column = column.set(canonical_text(column).is_in(list(missing)).fill_null(False), None)
    rows.refuse(column.is_null(), rule.column, "the label is missing", _LABEL)
    value = rule.value
    if rule.compare is not None and value is not None:
        bound = truth_or_number(value)
        if bound is None:
            return _equal(rows, rule, column).cast(pl.Float32)
        read = _label_numbers(rows, rule, column)
        compared = {
            "==": read == bound,
            "!=": read != bound,
            ">=": read >= bound,
            "<=": read <= bound,
            ">": read > bound,
            "<": read < bound,
        }[rule.compare]
        return compared.cast(pl.Float32)
    text, read = _numbers_of(rows, rule, column)
    _refuse_missing(rows, rule, text)
    rows.refuse(
        read.is_null() | ~read.is_in([0.0, 1.0]),
        rule.column,
        "the label is neither 0 nor 1",
        "0 or 1 in every row, or a comparison",
        fix=f"say what counts as a click, such as --label {_advice(rule.column, read)}",
    )
    return read.cast(pl.Float32)


def truth_or_number(value: str) -> float | None:
    """What a label is compared with as a number; None for text, also for quoted text.

    Example:
        >>> truth_or_number("4"), truth_or_number("True"), truth_or_number("'4'")
        (4.0, 1.0, None)
    """
    truth = {"true": 1.0, "false": 0.0}.get(value.lower())
    if truth is not None:
        return truth
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _numbers_of(
    rows: Rows, rule: Label, column: "pl.Series"
) -> tuple["pl.Series | None", "pl.Series"]:
    """The text of a column of text, and the numbers; null for what is none."""
    import polars as pl

    if column.dtype in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
    if column.dtype == pl.String:
        text = column.str.strip_chars().str.to_lowercase()
        spelt = text.replace({"true": "1", "false": "0"})
        read = spelt.cast(pl.Float64, strict=False)
        return text, read.set(read.is_nan(), None)
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        return None, column.cast(pl.Float64, strict=False)
    raise BitfoldError(
        f"the label {rule.column!r} cannot be read",
        got=f"values of type {column.dtype} in {rows.path}",
        expected="0 and 1, numbers, truth values or text",
        fix="make a column of 0 and 1",
    )


def _label_numbers(rows: Rows, rule: Label, column: "pl.Series") -> "pl.Series":
    text, read = _numbers_of(rows, rule, column)
    _refuse_missing(rows, rule, text)
    rows.refuse(
        read.is_null() | read.is_infinite(),
        rule.column,
        "the label holds what is no number",
        f"numbers, as it is compared with {rule.value}",
        fix=f"compare text with text, --label \"{rule.column}{rule.compare}'{rule.value}'\", if "
        "it is text"
        if rule.compare in ("==", "!=")
        else "mend or delete the row",
    )
    return read


def _refuse_missing(
    rows: Rows, rule: Label, text: "pl.Series | None", but: str | None = None
) -> None:
    if text is None:
        return
    words = [word for word in MISSING_LABELS if word != but]
    rows.refuse(text.is_in(words), rule.column, "the label is missing", _LABEL)


def _equal(rows: Rows, rule: Label, column: "pl.Series") -> "pl.Series":
    import polars as pl

    from bitfold.data.hashing import canonical_text

    value = str(rule.value)
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    text = canonical_text(column)
    if column.dtype in (pl.String, pl.Categorical, pl.Enum):
        text = text.str.strip_chars()
        _refuse_missing(rows, rule, text.str.to_lowercase(), value.strip().lower())
    same = text == value.strip()
    return same if rule.compare == "==" else ~same


def _advice(name: str, read: "pl.Series") -> str:
    """A comparison that fits the numbers met: the larger of two is a click."""
    met = sorted(set(read.drop_nulls().unique().to_list()))
    if len(met) == 2 and met[0] < 0 < met[1]:
        return f"'{name}>0' or '{name}=={met[1]:g}'"
    if len(met) == 2:
        return f"'{name}>={met[1]:g}'"
    if met and met[0] < 0:
        return f"'{name}>0'"
    return f"'{name}>=4'"
