"""Text from elsewhere, made safe to show: values, names and paths may hold anything.

A terminal obeys escape sequences wherever they come from. A cell or a file name that holds them
could move the cursor, change colours or hide an error, so whatever is shown goes through here.
"""

import json
import re
import unicodedata
from typing import Any

# Controls (C0, DEL, C1), what turns the direction of writing, invisible line ends, half characters.
_UNSAFE = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufeff\ufff9-\ufffb"
)
_SPELT = re.compile(f"[{_UNSAFE}]")
_SPELT_LINE = re.compile(f"[{_UNSAFE}\t\n]")


def printable(text: object, *, lines: bool = False) -> str:
    r"""The text with everything that a terminal would obey spelt out.

    Args:
        text: anything; its `str`.
        lines: keep line ends and tabs, for text of several lines.

    Example:
        >>> print(printable("red \x1b[31m, next\nline"))
        red \x1b[31m, next\nline
    """
    pattern = _SPELT if lines else _SPELT_LINE
    return pattern.sub(lambda match: _spelt(match[0]), str(text))


def json_text(value: Any, indent: int | None = 1) -> str:
    r"""JSON to be shown: what a terminal would obey is escaped, which JSON reads back as it was.

    Example:
        >>> json_text({"é": "\x9b"}, indent=None)
        '{"é": "\\u009b"}'
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _SPELT.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _spelt(letter: str) -> str:
    named = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
    if letter in named:
        return named[letter]
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def unsafe_letter(name: str) -> str | None:
    r"""The first character that a name must not hold, spelt out; None if there is none.

    Example:
        >>> unsafe_letter("user\x07"), unsafe_letter("naïve user")
        ('\\x07', None)
    """
    for letter in name:
        if _SPELT_LINE.match(letter) or unicodedata.category(letter) in ("Cc", "Cs"):
            return _spelt(letter)
    return None
