"""Labels, numbers and times out of raw columns, with the row in every complaint."""

from typing import TYPE_CHECKING

from bitfold.data.rows import Rows
from bitfold.data.words import Label
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
        from bitfold.hashing import canonical_text

        column = column.set(canonical_text(column).is_in(list(missing)).fill_null(False), None)
    if column.dtype == pl.String:
        read = column.str.strip_chars().cast(pl.Float64, strict=False)
    elif column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null):
        read = column.cast(pl.Float64, strict=False)
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


def read_labels(rows: Rows, rule: Label) -> "pl.Series":
    """The labels as 0 and 1.

    Raises:
        BitfoldError: for a missing label, or one that is neither 0 nor 1 and not compared.
    """
    import polars as pl

    column = rows.frame[rule.column]
    rows.refuse(column.is_null(), rule.column, "the label is missing", "a label in every row")
    if rule.compare in ("==", "!=") and rule.value is not None:
        return _equal(column, rule.value, rule.compare).cast(pl.Float32)
    if rule.compare is not None:
        read = numbers(rows, rule.column, "the label")
        rows.refuse(read.is_nan(), rule.column, "the label is missing", "a label in every row")
        bound = float(rule.value or "nan")
        compared = {
            ">=": read >= bound,
            "<=": read <= bound,
            ">": read > bound,
            "<": read < bound,
        }[rule.compare]
        return compared.cast(pl.Float32)
    if column.dtype == pl.String:
        text = column.str.strip_chars().str.to_lowercase()
        words = pl.Series(text.replace({"true": "1", "false": "0"}))
        read = words.cast(pl.Float64, strict=False)
    else:
        read = column.cast(pl.Float64, strict=False)
    rows.refuse(
        read.is_null() | ~read.is_in([0.0, 1.0]),
        rule.column,
        "the label is neither 0 nor 1",
        "0 or 1 in every row, or a comparison",
        fix=f"say what counts as a click, such as --label '{rule.column}>=4'",
    )
    return read.cast(pl.Float32)


def _equal(column: "pl.Series", value: str, compare: str) -> "pl.Series":
    import polars as pl

    from bitfold.hashing import canonical_text

    try:
        bound = float(value)
    except ValueError:
        same = canonical_text(column) == value
    else:
        read = canonical_text(column).cast(pl.Float64, strict=False)
        same = (read == bound).fill_null(False)
    return same if compare == "==" else ~same


def read_times(rows: Rows, name: str) -> "pl.Series":
    """A column that orders rows, as Float64: a number itself, a date or moment in seconds.

    Raises:
        BitfoldError: for a time that is missing or cannot be read.
    """
    import polars as pl

    column = rows.frame[name]
    read: pl.Series
    if column.dtype.is_temporal():
        read = column.cast(pl.Datetime("us")).cast(pl.Int64).cast(pl.Float64) / 1e6
    elif column.dtype == pl.String:
        text = column.str.strip_chars()
        read = text.cast(pl.Float64, strict=False)
        if read.null_count() == len(read):
            moments = text.str.replace("T", " ", literal=True).str.replace("Z$", "")
            parsed = moments.to_frame("t").select(
                pl.coalesce(
                    pl.col("t").str.to_datetime("%Y-%m-%d %H:%M:%S%.f", strict=False),
                    pl.col("t").str.to_datetime("%Y-%m-%d %H:%M", strict=False),
                    pl.col("t").str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us")),
                )
            )
            read = parsed.to_series().cast(pl.Datetime("us")).cast(pl.Int64).cast(pl.Float64) / 1e6
    else:
        read = column.cast(pl.Float64, strict=False)
    rows.refuse(
        read.is_null() | read.is_nan(),
        name,
        "the time cannot be read",
        "a number, or a moment such as 2024-01-31 10:00:00, in every row",
    )
    return read
