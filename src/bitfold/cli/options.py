"""A configuration's words as options of the command.

Each word of a configuration (bitfold.config.word) becomes one option: `batch_size` is
`--batch-size`. The same words may stand in a JSON file given as `--config`; a word of the command
line wins over the file, and the file over the default.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from bitfold.errors import BitfoldError, unknown_name

C = TypeVar("C")
Command = TypeVar("Command", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True)
class Word:
    """One word: its name, its type, and what `--help` says of it."""

    name: str
    type: Any
    default: Any
    help: str
    metavar: str | None
    choices: tuple[str, ...] | None

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
    for item in value:
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


def words(*kinds: type[Any], without: Sequence[str] = ()) -> Callable[[Command], Command]:
    """Give a command the words of `kinds` as options, and `--config FILE`.

    The options arrive as text (None where not given); `build` makes configurations of them.
    """
    found = [
        (word, TITLES.get(kind.__name__, "Options"))
        for kind in kinds
        for word in words_of(kind).values()
        if word.name not in without
    ]

    def decorate(command: Command) -> Command:
        command = click.option(
            "--config",
            "config_file",
            metavar="FILE",
            help="JSON file of words, such as a run's config.json. Words said here win over it.",
        )(command)
        for word, title in reversed(found):
            command = _option(word, title)(command)
        return command

    return decorate


TITLES = {
    "DataConfig": "How raw files are read",
    "TrainConfig": "Training",
    "CompareConfig": "Comparison",
    "SynthConfig": "The log",
}


class WordOption(click.Option):
    """An option that knows under which title `--help` shows it."""

    def __init__(self, *args: Any, title: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = title


class WordCommand(click.Command):
    """A command whose `--help` groups its options by what they configure."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their titles."""
        titles: dict[str, list[tuple[str, str]]] = {"Options": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                title = param.title if isinstance(param, WordOption) else "Options"
                titles.setdefault(title, []).append(record)
        for title, records in titles.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def _option(word: Word, title: str) -> Callable[[Command], Command]:
    help = word.help + _default(word)
    if word.type is bool:
        name = word.name.replace("_", "-")
        return click.option(
            f"--{name}/--no-{name}", word.name, default=None, help=help, cls=WordOption, title=title
        )
    metavar = word.metavar or ("|".join(word.choices) if word.choices else None)
    if metavar is None:
        if word.pairs:
            metavar = "KEY=VALUE"
        elif word.listed:
            metavar = "A,B,..."
        else:
            metavar = {int: "N", float: "X"}.get(word.type, "TEXT")
    return click.option(
        word.option,
        word.name,
        multiple=word.pairs,
        default=None,
        help=help,
        metavar=metavar,
        cls=WordOption,
        title=title,
    )


def _default(word: Word) -> str:
    default = word.default
    if default in (None, "", (), {}, dataclasses.MISSING) or isinstance(default, bool):
        return ""
    text = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return f"  [default: {text}]"


def read_config(path: str, known: Sequence[str]) -> dict[str, Any]:
    """The words of a JSON file; sections (`"data": {...}`) are laid flat.

    Raises:
        BitfoldError: the file is not a JSON object, or holds a word that is not in `known`.
    """
    try:
        loaded = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BitfoldError(
            "the file of --config does not exist", got=path, expected="a JSON file"
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BitfoldError(
            "the file of --config is not JSON",
            got=f"{path}: {error}",
            expected='a JSON object, such as {"label": "clicked", "epochs": 8}',
        ) from None
    if not isinstance(loaded, dict):
        raise BitfoldError(
            "the file of --config is not a JSON object",
            got=f"{path}: {type(loaded).__name__}",
            expected='an object, such as {"label": "clicked", "epochs": 8}',
        )
    flat: dict[str, Any] = {}
    for key, value in loaded.items():
        name = key.replace("-", "_")
        if name in known:
            flat[name] = value
        elif name in SECTIONS and isinstance(value, dict):
            flat.update({inner.replace("-", "_"): item for inner, item in value.items()})
        elif name not in NOTES:
            flat[name] = value
    for name in flat:
        if name not in known:
            raise unknown_name(f"word in {path}", name, known)
    return flat


SECTIONS = ("data", "train", "compare", "synth")  # parts of a saved configuration
NOTES = ("format", "version", "bitfold", "paths", "kind")  # what a saved one says besides


def file_words(config_file: str | None, known: Sequence[str]) -> dict[str, Any]:
    """The words of the file, or none."""
    return read_config(config_file, known) if config_file else {}


def build(kind: type[C], given: Mapping[str, Any], file: Mapping[str, Any]) -> C:
    """A configuration: the command line's words over the file's over the defaults."""
    values: dict[str, Any] = {}
    missing = []
    for name, word in words_of(kind).items():
        said = given.get(name)
        said = None if said == () else said
        if word.pairs:
            merged = parse(word, file.get(name) or {}) | parse(word, said or ())
            values[name] = merged if merged else word.default
        elif said is not None:
            values[name] = parse(word, said)
        elif name in file:
            values[name] = parse(word, file[name])
        elif word.default is dataclasses.MISSING:
            missing.append(word.option)
    if missing:
        raise BitfoldError(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing",
            fix="say it on the command line or in the file of --config",
        )
    return kind(**values)


def was_said(kind: type[Any], given: Mapping[str, Any], file: Mapping[str, Any]) -> list[str]:
    """The words of `kind` that were said, on the command line or in the file."""
    return [name for name in words_of(kind) if given.get(name) not in (None, ()) or name in file]
