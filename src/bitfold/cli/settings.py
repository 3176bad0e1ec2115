"""The words of a configuration, and their values read from text or JSON."""

import dataclasses
import json
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from bitfold.errors import BitfoldError, unknown_name


@dataclasses.dataclass(frozen=True)
class Word:
    """One word: its name, its type, and what `--help` says of it."""

    name: str
    type: Any
    default: Any
    help: str
    metavar: str | None
    choices: tuple[str, ...] | None
    texts: tuple[str, ...] = ()

    @property
    def option(self) -> str:
        """The word on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def pairs(self) -> bool:
        """Whether the word collects KEY=VALUE pairs, one per use of the option."""
        return typing.get_origin(self.type) is dict

    @property
    def listed(self) -> bool:
        """Whether the word takes a comma-separated list."""
        return typing.get_origin(self.type) is tuple


def words_of(kind: type[Any]) -> dict[str, Word]:
    """The words of a configuration dataclass, by name."""
    hints = typing.get_type_hints(kind)
    words = {}
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if typing.get_origin(hint) in (types.UnionType, typing.Union):
            hint = next(part for part in typing.get_args(hint) if part is not type(None))
        default = field.default
        if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        data = field.metadata
        words[field.name] = Word(
            field.name,
            hint,
            default,
            data.get("help", ""),
            data.get("metavar"),
            data.get("choices"),
            data.get("texts", ()),
        )
    return words


def parse(word: Word, value: Any) -> Any:
    """The value of `word` from the command line's text or from JSON; wrong ones raise."""
    if value is None:
        return None
    if word.pairs:
        return _pairs(word, value)
    if word.listed:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            raise _wrong(word, value, "a list, such as user,item")
        kind = typing.get_args(word.type)[0]
        texts = [part.strip() if isinstance(part, str) else part for part in parts]
        return tuple(_scalar(word, kind, part) for part in texts if part != "")
    return _scalar(word, word.type, value)


def _pairs(word: Word, value: Any) -> dict[str, str]:
    if isinstance(value, Mapping):
        return {str(key): _text(item) for key, item in value.items()}
    pairs = {}
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise _wrong(word, value, 'an object, such as {"blocks": 3}')
    for item in map(str, value):
        key, sign, text = item.partition("=")
        if not sign or not key.strip():
            raise _wrong(word, item, f"KEY=VALUE, such as {word.metavar or 'blocks=3'}")
        pairs[key.strip()] = text
    return pairs


def _text(value: Any) -> str:
    """A JSON value as the text that the command line would carry."""
    return value if isinstance(value, str) else json.dumps(value)


def _scalar(word: Word, kind: Any, value: Any) -> Any:
    if kind is bool:
        if isinstance(value, bool):
            return value
        raise _wrong(word, value, "true or false")
    if kind is int:
        return _number(word, value, int)
    if kind is float:
        return _number(word, value, float)
    text = value if isinstance(value, str) else _text(value)
    if word.choices and text not in word.choices:
        raise unknown_name(word.name.replace("_", " "), text, word.choices)
    return text


def _number(word: Word, value: Any, kind: type[int] | type[float]) -> int | float:
    expected = "a whole number, such as 2048" if kind is int else "a number, such as 1e-3"
    if isinstance(value, bool):
        raise _wrong(word, value, expected)
    if value in word.texts:
        return value  # type: ignore[no-any-return]
    if kind is int and isinstance(value, int):
        return value  # a float would round a seed of 64 bits
    try:
        if kind is float:
            return float(value)
        try:
            return int(value) if isinstance(value, str) else _whole(float(value))
        except ValueError:
            return _whole(float(value))  # 1e6 is a whole number too
    except (TypeError, ValueError, OverflowError):
        raise _wrong(word, value, expected) from None


def _whole(value: float) -> int:
    if not value.is_integer():
        raise ValueError(value)
    return int(value)


def _wrong(word: Word, got: object, expected: str) -> BitfoldError:
    return BitfoldError(f"{word.option} cannot be read", got=repr(got), expected=expected)
