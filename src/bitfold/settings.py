"""The options of a configuration, and their values read from text or JSON."""

import dataclasses
import json
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from bitfold.errors import BitfoldError, unknown_name


@dataclasses.dataclass(frozen=True)
class Option:
    """One option: its name, its type, and what `--help` says of it."""

    name: str
    type: Any
    default: Any
    help: str
    metavar: str | None
    choices: tuple[str, ...] | None
    texts: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def pairs(self) -> bool:
        """Whether the option collects KEY=VALUE pairs, one per use."""
        return typing.get_origin(self.type) is dict

    @property
    def listed(self) -> bool:
        """Whether the option takes a comma-separated list."""
        return typing.get_origin(self.type) is tuple


def options_of(kind: type[Any]) -> dict[str, Option]:
    """The options of a configuration dataclass, by name."""
    hints = typing.get_type_hints(kind)
    options = {}
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if typing.get_origin(hint) in (types.UnionType, typing.Union):
            hint = next(part for part in typing.get_args(hint) if part is not type(None))
        default = field.default
        if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        data = field.metadata
        options[field.name] = Option(
            field.name,
            hint,
            default,
            data.get("help", ""),
            data.get("metavar"),
            data.get("choices"),
            data.get("texts", ()),
        )
    return options


def parse(option: Option, value: Any) -> Any:
    """The value of `option` from the command line's text or from JSON; wrong ones raise."""
    if value is None:
        return None
    if option.pairs:
        return _pairs(option, value)
    if option.listed:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            raise _wrong(option, value, "a list, such as user,item")
        kind = typing.get_args(option.type)[0]
        texts = [part.strip() if isinstance(part, str) else part for part in parts]
        return tuple(_scalar(option, kind, part) for part in texts if part != "")
    return _scalar(option, option.type, value)


def _pairs(option: Option, value: Any) -> dict[str, str]:
    if isinstance(value, Mapping):
        return {str(key): _text(item) for key, item in value.items()}
    pairs = {}
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise _wrong(option, value, 'an object, such as {"blocks": 3}')
    for item in map(str, value):
        key, sign, text = item.partition("=")
        if not sign or not key.strip():
            raise _wrong(option, item, f"KEY=VALUE, such as {option.metavar or 'blocks=3'}")
        pairs[key.strip()] = text
    return pairs


def _text(value: Any) -> str:
    """A JSON value as the text that the command line would carry."""
    return value if isinstance(value, str) else json.dumps(value)


def _scalar(option: Option, kind: Any, value: Any) -> Any:
    if kind is bool:
        if isinstance(value, bool):
            return value
        raise _wrong(option, value, "true or false")
    if kind is int:
        return _number(option, value, int)
    if kind is float:
        return _number(option, value, float)
    text = value if isinstance(value, str) else _text(value)
    if option.choices and text not in option.choices:
        raise unknown_name(option.name.replace("_", " "), text, option.choices)
    return text


def _number(option: Option, value: Any, kind: type[int] | type[float]) -> int | float:
    expected = "a whole number, such as 2048" if kind is int else "a number, such as 1e-3"
    if isinstance(value, bool):
        raise _wrong(option, value, expected)
    if value in option.texts:
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
        raise _wrong(option, value, expected) from None


def _whole(value: float) -> int:
    if not value.is_integer():
        raise ValueError(value)
    return int(value)


def _wrong(option: Option, got: object, expected: str) -> BitfoldError:
    return BitfoldError(f"{option.flag} cannot be read", got=repr(got), expected=expected)


def said(kind: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `kind` that the command line says, with their values."""
    return {
        name: parse(option, given[name])
        for name, option in options_of(kind).items()
        if given.get(name) not in (None, ())
    }
