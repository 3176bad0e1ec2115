"""Bytes: budgets in words."""

import re
from collections.abc import Sequence

from bitfold.errors import BitfoldError
from bitfold.planning.field import Field

_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _UNITS |= {f"{_letter}b": 1000**_power, f"{_letter}ib": 1024**_power}

_FORMS = 'bytes such as 65536, "64MiB" or "1.5 GB", or a ratio such as "100x"'


def full_bytes(fields: Sequence[Field], dim: int) -> int:
    """Bytes of the full float32 table: `V * D * 4`, summed over the fields.

    Raises:
        BitfoldError: if a hashed field does not say how many distinct ids it has.

    Example:
        >>> full_bytes([Field("user", 6040), Field("movie", 3706)], 16)
        623744
    """
    total = 0
    for field in fields:
        if field.size is None:
            raise BitfoldError(
                f"the full table of field {field.name!r} has no known size",
                got="hashed ids without the number of distinct ones",
                expected="Field(..., distinct=n), so that a ratio has something to divide",
                fix='say the budget in bytes, such as "64MiB"',
            )
        total += field.size * dim * 4
    return total


def parse_budget(budget: int | str, fields: Sequence[Field], dim: int) -> int:
    """A budget in bytes.

    Args:
        budget: bytes, or text: `"64MiB"`, `"1.5GB"`, or a ratio to the full table, `"100x"`.
        fields: what the table embeds.
        dim: `D`, the width.

    Raises:
        BitfoldError: if it is malformed, or not positive, or a ratio without a known size.

    Example:
        >>> parse_budget("10x", [Field("user", 6040)], 16)
        38656
        >>> parse_budget("1.5KiB", [Field("user", 6040)], 16)
        1536
    """
    text = str(budget).strip().replace("_", "").replace(",", "")
    match = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*([a-zA-Z]*)", text)
    unit = match.group(2).lower() if match else ""
    if isinstance(budget, bool) or match is None or (unit not in _UNITS and unit != "x"):
        raise BitfoldError("malformed budget", got=repr(budget), expected=_FORMS)
    number = float(match.group(1))
    if number == float("inf"):
        raise BitfoldError("a budget beyond all numbers", got=repr(budget), expected=_FORMS)
    if number <= 0:
        raise BitfoldError("a budget must be above zero", got=repr(budget), expected=_FORMS)
    if unit == "x":
        if number < 1:
            raise BitfoldError(
                "a ratio says how many times smaller the table becomes",
                got=repr(budget),
                expected='1x or more, such as "10x"',
            )
        return int(full_bytes(fields, dim) / number)
    exact = number * _UNITS[unit]
    size = int(match.group(1)) * _UNITS[unit] if match.group(1).isdigit() else int(exact)
    if size < 1:
        raise BitfoldError("a budget must be at least a byte", got=repr(budget), expected=_FORMS)
    return size


def format_bytes(size: int) -> str:
    """Bytes for people, in powers of 1024.

    Example:
        >>> format_bytes(85_094), format_bytes(900), format_bytes(3 * 2**30)
        ('83.1 KiB', '900 B', '3.0 GiB')
    """
    if size < 1024:
        return f"{size} B"
    value = float(size)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1024 or unit == "TiB":
            break
    return f"{value:.1f} {unit}"
