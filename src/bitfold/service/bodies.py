"""Bodies of JSON to rows.

JSON is read strictly: a value is text, a number, true, false, null, or a list of those. msgspec
refuses NaN, infinity, deeper nesting, half characters and text after the end. It takes the last
of two equal keys, as most readers do; here such a body is refused, since two readers would
disagree on what was scored.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from bitfold.service.messages import Refused, refused

Value: TypeAlias = bool | int | float | str | None
Row: TypeAlias = Mapping[str, Any]


class _Rows(msgspec.Struct, forbid_unknown_fields=True):
    rows: list[dict[str, Value | list[Value]]]


_wrapped = msgspec.json.Decoder(_Rows).decode
_listed = msgspec.json.Decoder(list[dict[str, Value | list[Value]]]).decode
_alone = msgspec.json.Decoder(dict[str, Value | list[Value]]).decode
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_WRAPPED = re.compile(rb'\s*\{\s*"rows"\s*:\s*\[\s*[\[{\]]')
SHAPE = 'JSON such as {"rows": [{"user": 7, "item": "a"}]}'


def json_rows(body: bytes, most: int) -> Sequence[Row]:
    """The rows of a JSON body: `{"rows": [...]}`, a list of rows, or one row.

    Args:
        body: what was sent.
        most: rows that are accepted.

    Raises:
        Refused: it is no JSON (400), other JSON (422), or too many rows (413).

    Example:
        >>> json_rows(b'{"user": 7}', 10)
        [{'user': 7}]
    """
    # Each row has a brace: what is far too long is not even read.
    if body.count(b"{") > most + 1 and _TEXT.sub(b"", body).count(b"{") > most + 1:
        raise too_many(f"more than {most:,} rows", most)
    rows, keys = _decoded(body)
    if len(rows) > most:
        raise too_many(f"{len(rows):,} rows", most)
    keys += sum(map(len, rows))
    # A colon a key, and no key twice: as many keys as colons outside of text.
    if body.count(b":") != keys and _TEXT.sub(b"", body).count(b":") != keys:
        raise refused(
            400,
            "a key is twice in one object",
            got="JSON with a repeated key",
            expected="each key once",
            fix="send one value a key; several values of a field are a list",
        )
    return rows


def _decoded(body: bytes) -> tuple[Sequence[Row], int]:
    """The rows, and the keys around them."""
    try:
        if _WRAPPED.match(body):
            return _wrapped(body).rows, 1
        if body.lstrip()[:1] == b"[":
            return _listed(body), 0
        return [_alone(body)], 0
    except msgspec.ValidationError as error:
        raise refused(
            422, "the rows are not of the right form", got=str(error), expected=SHAPE,
            fix="a value is text, a number, true, false, null, or a list of those",
        ) from None  # fmt: skip
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        got = "nothing" if not body else _why(error)
        raise refused(400, "the body is no JSON", got=got, expected=SHAPE) from None


def _why(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"bytes that are no UTF-8: {error.reason}"
    return "nested too deep" if isinstance(error, RecursionError) else str(error)


def too_many(got: str, most: int) -> Refused:
    """The refusal of a request with too many rows."""
    return refused(
        413, "too many rows in one request", got=got, expected=f"{most:,} at most",
        fix="send them in several requests",
    )  # fmt: skip
