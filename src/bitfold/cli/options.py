"""The options of a configuration on the command line.

What a configuration declares (`bitfold.config.option`) the command takes: `batch_size` is
`--batch-size`. A JSON file given as `--config` may say the same; the command line wins over the
file, and the file over the default.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from bitfold import remote
from bitfold.cli.completion import offered
from bitfold.config import RENAMED
from bitfold.errors import BitfoldError, unknown_name
from bitfold.records import MissingFile, read_object
from bitfold.settings import Option, options_of, parse

C = TypeVar("C")
Command = TypeVar("Command", bound=Callable[..., Any])


def options(*kinds: type[Any], without: Sequence[str] = ()) -> Callable[[Command], Command]:
    """Give a command the options of `kinds`, and `--config FILE`.

    The options arrive as text (None where not given); `build` makes configurations of them.
    """
    found = [
        (option, TITLES.get(kind.__name__, "Options"))
        for kind in kinds
        for option in options_of(kind).values()
        if option.name not in without
    ]

    def decorate(command: Command) -> Command:
        command = click.option(
            "--config",
            "config_file",
            metavar="FILE",
            help="JSON file of options, such as a run's config.json; the command line wins.",
        )(command)
        for option, title in reversed(found):
            command = _added(option, title)(command)
        return command

    return decorate


def reading_options(command: Command) -> Command:
    """Give a command that scores rows the options of reading (`bitfold.data.asked`)."""
    from bitfold.data.asked import OPTIONS
    from bitfold.data.config import DataConfig

    known = options_of(DataConfig)
    for name in reversed(OPTIONS):
        as_trained = dataclasses.replace(known[name], default=None)
        command = _added(as_trained, "How the rows are read, if not as the run's log was")(command)
    return command


FIRST = ("label", "fields", "methods", "budgets", "method", "budget", "out")
"""The options that a first call needs; the help of a command with many options begins with them."""

PATHS = ("FILE", "RUN", "DIR", "OUT", "LOG", "DATA", "INPUT", "PATH")
"""What the help calls arguments and options that are files or folders."""

MANY = 20
COMMON = "Common options"

TITLES = {
    "DataConfig": "How raw files are read",
    "TrainConfig": "Training",
    "CompareConfig": "Comparison",
    "RetrieveConfig": "Two towers",
    "TeacherConfig": "Distillation",
    "ColdConfig": "Cold ids",
    "StreamConfig": "The stream",
    "SynthConfig": "The log",
}


class ConfigOption(click.Option):
    """An option that knows under which title `--help` shows it, and what its values may be."""

    def __init__(self, *args: Any, option: Option, title: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.option, self.title = option, title

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The values that the shell offers."""
        return offered(self.option, incomplete)


class ConfigCommand(click.Command):
    """A command whose `--help` groups its options by what they configure."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for param in self.params:
            if (param.metavar or "").rstrip(".") in PATHS and param.type is click.STRING:
                param.type = click.Path()  # the shell completes the names of files

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line; an option's former name still works, and names the new one."""
        known = {option for param in self.params for option in param.opts}
        for place, arg in enumerate(args):
            option, sign, value = arg.partition("=")
            new = "--" + RENAMED.get(option.removeprefix("--").replace("-", "_"), "")
            if option not in known and new in known:
                click.echo(f"bitfold: {option} is now called {new}", err=True)
                args[place] = new + sign + value
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; paths with a scheme are fetched before, and sent after."""
        with contextlib.ExitStack() as stack:
            for param in self.params:
                value = ctx.params.get(param.name or "")
                if isinstance(param.type, click.Path) and value:
                    place = stack.enter_context(_near(param, value, ctx.params))
                    ctx.params[param.name or ""] = place
            return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their titles, those that most people need first."""
        params = self.get_params(ctx)
        named = {param.name for param in params}
        first = [name for name in FIRST if name in named] if len(params) > MANY else []
        titles: dict[str, list[tuple[str, str]]] = {COMMON: [], "Options": []}
        for param in sorted(params, key=lambda each: (*first, each.name).index(each.name)):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                title = param.title if isinstance(param, ConfigOption) else "Options"
                title = COMMON if param.name in first else title
                titles.setdefault(title, []).append(record)
        for title, records in titles.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


@contextlib.contextmanager
def _near(param: click.Parameter, value: Any, params: Mapping[str, Any]) -> Iterator[Any]:
    """The value of an argument or option that is a path, or paths, on this machine."""
    if isinstance(value, tuple):
        with remote.fetched(value) as places:
            yield tuple(map(os.fspath, places))
    elif not remote.is_remote(value):
        yield remote.local_path(value)
    elif param.name == "out" and isinstance(param, click.Argument):
        with remote.changed(value) as place:
            yield str(place)
    elif param.name == "out":
        said = {name: bool(params.get(name)) for name in ("force", "resume")}
        with remote.sent(value, **said) as place:
            yield str(place)
    else:
        with remote.fetched([value]) as places:
            yield str(places[0])


def _added(option: Option, title: str) -> Callable[[Command], Command]:
    help = option.help + _default(option)
    if option.type is bool:
        name = option.name.replace("_", "-")
        return click.option(
            f"--{name}/--no-{name}",
            option.name,
            default=None,
            help=help,
            cls=ConfigOption,
            option=option,
            title=title,
        )
    metavar = option.metavar or ("|".join(option.choices) if option.choices else None)
    if metavar is None:
        if option.pairs:
            metavar = "KEY=VALUE"
        elif option.listed:
            metavar = "A,B,..."
        else:
            metavar = {int: "N", float: "X"}.get(option.type, "TEXT")
    return click.option(
        option.flag,
        option.name,
        multiple=option.pairs,
        default=None,
        help=help,
        metavar=metavar,
        cls=ConfigOption,
        option=option,
        title=title,
    )


def _default(option: Option) -> str:
    default = option.default
    if default in (None, "", (), {}, dataclasses.MISSING) or isinstance(default, bool):
        return ""
    text = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return f"  [default: {text}]"


def read_config(path: str, known: Sequence[str]) -> dict[str, Any]:
    """The options of a JSON file; sections (`"data": {...}`) are laid flat.

    Raises:
        BitfoldError: the file is not a JSON object, or holds an option that is not in `known`.
    """
    try:
        loaded = read_object(Path(path))
    except MissingFile:
        raise BitfoldError(
            "the file of --config does not exist", got=path, expected="a JSON file"
        ) from None
    except BitfoldError as error:
        raise BitfoldError(
            "the file of --config cannot be read",
            got=f"{path}: {error.got}",
            expected='a JSON object, such as {"label": "clicked", "epochs": 8}',
        ) from None
    flat: dict[str, Any] = {}
    for key, value in loaded.items():
        name = _name(key, known)
        if name in known:
            flat[name] = value
        elif name in SECTIONS and isinstance(value, dict):
            flat.update({_name(inner, known): item for inner, item in value.items()})
        elif name not in NOTES:
            flat[name] = value
    for name in flat:
        if name not in known:
            raise unknown_name(f"option in {path}", name, known)
    return flat


def _name(key: str, known: Sequence[str]) -> str:
    """The option that a key of a file means; files of earlier versions say an older name."""
    name = key.replace("-", "_")
    return name if name in known else RENAMED.get(name, name)


SECTIONS = (
    "data",
    "train",
    "taught",
    "cold_ids",
    "compare",
    "stream",
    "retrieve",
    "synth",
)  # parts of a saved configuration
NOTES = (
    "format",
    "version",
    "digest",
    "bitfold",
    "paths",
    "plugins",
    "kind",
    "from_run",
    "teacher_digest",
)  # what a saved one says besides


def file_options(config_file: str | None, known: Sequence[str]) -> dict[str, Any]:
    """The options of the file, or none."""
    return read_config(config_file, known) if config_file else {}


def build(kind: type[C], given: Mapping[str, Any], file: Mapping[str, Any]) -> C:
    """A configuration: the command line's options over the file's over the defaults."""
    values: dict[str, Any] = {}
    missing = []
    for name, option in options_of(kind).items():
        said = given.get(name)
        said = None if said == () else said
        if option.pairs:
            merged = parse(option, file.get(name) or {}) | parse(option, said or ())
            values[name] = merged if merged else option.default
        elif said is not None:
            values[name] = parse(option, said)
        elif name in file:
            values[name] = parse(option, file[name])
        elif option.default is dataclasses.MISSING:
            missing.append(option.flag)
    if missing:
        raise BitfoldError(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing",
            fix="say it on the command line or in the file of --config",
        )
    try:
        return kind(**values)
    except (TypeError, AttributeError, OverflowError) as error:  # of a file: null, or a list
        raise BitfoldError(
            "an option in the file of --config has a value of the wrong type",
            got=str(error)[:200],
            expected=f"options of a {kind.__name__}",
        ) from None
