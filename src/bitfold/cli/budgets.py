"""`bitfold methods` and `bitfold plan`: what there is, and what a budget buys."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from rich.table import Table

from bitfold.cli.options import ConfigCommand, build, file_options, options
from bitfold.cli.plugins import plugins
from bitfold.cli.quotes import plan_parts, quote_tables
from bitfold.cli.tables import is_narrow, show, table
from bitfold.comparison.config import CompareConfig
from bitfold.data.config import DataConfig
from bitfold.errors import BitfoldError
from bitfold.runs.options import TrainConfig
from bitfold.settings import Option, options_of, parse

if TYPE_CHECKING:
    from bitfold.planning.field import Field

TRAINED, BOARD = tuple(options_of(TrainConfig)), tuple(options_of(CompareConfig))
PLANNED = (
    "methods", "budgets", "method", "budget", "width", "embedding_sets", "set", "network", "seed",
)  # fmt: skip


@click.command(cls=ConfigCommand, short_help="List the methods.")
@click.argument("name", required=False)
@plugins
def methods(name: str | None) -> None:
    """List the embedding methods and when to use each; with a NAME, the options of that method."""
    from bitfold.method.registry import method_kind
    from bitfold.method.registry import methods as known

    if name is None:
        made = table("Embedding methods", ("method", "what it is", "when to use it"), left=3)
        for each, info in known().items():
            made.add_row(each, info.summary, info.when)
        show(made, "`bitfold methods NAME` lists the options of one.")
        return
    kind = method_kind(name)
    about = f"{name}: {kind.summary}\nwhen: {kind.when}"
    options = options_of(kind)
    if not options:
        show(about, "no options")
        return
    made = table("Options (--set OPTION=VALUE)", ("option", "default", "what it does"), left=3)
    for option in options.values():
        choices = f" ({', '.join(option.choices)})" if option.choices else ""
        made.add_row(option.name, str(option.default).lower(), option.help + choices)
    show(about, made)


@click.command(cls=ConfigCommand, short_help="Say how a budget is spent.")
@click.argument("log", required=False, metavar="LOG")
@click.option(
    "--fields",
    metavar="NAME=V,...",
    help="Fields and their numbers of ids, user=6040,movie=3706; NAME=hashed:N for hashed ids "
    "of which N are distinct.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the plan, or all quotes, as JSON.")
@options(
    CompareConfig,
    TrainConfig,
    without=[name for name in (*BOARD, *TRAINED) if name not in PLANNED],
)
@plugins
def plan(
    log: str | None, fields: str | None, as_json: bool, config_file: str | None, **given: Any
) -> None:
    """Say how a method would spend a budget over fields, to the byte, before any training.

    The fields come from LOG, a prepared log, or from --fields. With --methods or --budgets every
    method is quoted at every budget: bytes, rows, lookups and what training takes; `full` appears
    once, as 1x, with the map that it needs where ids are hashed.

    \b
    bitfold plan --fields user=6040,movie=3706 --budget 10x
    bitfold plan log --methods full,hash,binary-code --budgets 10x,100x,1000x
    """
    if (log is None) == (fields is None):
        raise BitfoldError(
            "the fields are not said" if log is None else "the fields are said twice",
            expected="a prepared log, or --fields, such as --fields user=6040,movie=3706",
        )
    file = file_options(config_file, [*TRAINED, *BOARD, *options_of(DataConfig)])
    board = {name: given.pop(name) for name in ("methods", "budgets")}
    several = any(board.values()) or any(name in file for name in board)
    if several:
        _not_twice(board, given)
    config = build(TrainConfig, given, file)
    asked = _log_fields(log) if log is not None else _said_fields(fields or "")
    if several:
        one = {"methods": given["method"], "budgets": given["budget"]}
        compared = build(CompareConfig, {name: board[name] or one[name] for name in board}, file)
        _quote(asked, compared, config, as_json)
        return

    from bitfold.method.sets import plan_sets
    from bitfold.planning.statistics import Promised

    made = plan_sets(
        asked.fields,
        config.vector_width,
        config.embedding_sets,
        method=config.method,
        budget=config.budget,
        seed=config.seed,
        stats=Promised(asked.rows),
        **dict[str, Any](config.set),
    )
    if as_json:
        click.echo(json.dumps(made.to_json() | {"by_kind": made.by_kind}, indent=1))
        return
    show(*plan_parts(made, narrow=is_narrow()), *made.why, *asked.notes)


def _not_twice(board: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse a method or a budget that is said beside the list of them."""
    for several, one in (("methods", "method"), ("budgets", "budget")):
        if board[several] and given[one]:
            raise BitfoldError(
                f"--{several} and --{one} say the same thing twice",
                got=f"--{several} {board[several]} --{one} {given[one]}",
                expected="one of them",
            )


def _quote(asked: "_Asked", compared: CompareConfig, config: TrainConfig, as_json: bool) -> None:
    """Every method at every budget: each one's fields, then all of them beside each other."""
    from bitfold.comparison.quotes import quotes

    width = config.vector_width
    made = quotes(
        asked.fields, width, compared, config.set,
        sets=config.embedding_sets, seed=config.seed, missing=asked.missing, rows=asked.rows,
    )  # fmt: skip
    if as_json:
        figures = {
            "fields": [asdict(field) for field in asked.fields],
            "embedding_dim": width,
            "quotes": [quote.to_json() for quote in made],
        }
        click.echo(json.dumps(figures, indent=1))
        return
    narrow = is_narrow()
    parts: list[Table | str] = []
    for quote in made:
        if quote.plan is not None:
            title = f"{quote.method} at {quote.budget}"
            parts += plan_parts(quote.plan, title, narrow=narrow)
    show(*parts, *quote_tables(made, narrow=narrow), *asked.notes)


class _Asked(NamedTuple):
    """What a plan is made for.

    Args:
        fields: what is embedded.
        missing: those that have an id of missing values among their distinct ones.
        notes: what to say with it.
        rows: of the training part, where there is a log.
    """

    fields: "Sequence[Field]"
    missing: Collection[str] = ()
    notes: Sequence[str] = ()
    rows: int | None = None


def _log_fields(path: str) -> _Asked:
    from bitfold.data.prepared import PreparedLog

    log = PreparedLog(path)
    schema, counted = log.schema, log.stats["fields"]
    # A bag without values is empty: it has no id of its own.
    missing = [f.name for f in schema.fields if f.kind != "bag" and counted[f.name]["missing"]]
    notes = []
    guessed = [info.name for info in schema.fields if not info.exact]
    if guessed:
        notes.append(f"estimated numbers of ids: {', '.join(guessed)}")
    return _Asked(schema.embedding_fields(), missing, notes, log.rows["train"])


def _said_fields(text: str) -> _Asked:
    """Read `user=6040,query=hashed:1000000`.

    Example:
        >>> [field.size for field in _said_fields("user=6040,query=hashed:1e6").fields]
        [6040, 1000000]
    """
    from bitfold.planning.field import Field

    number = Option("fields", int, None, "", None, None)
    found = []
    for part in text.split(","):
        name, sign, ids = part.strip().partition("=")
        if not sign or not name:
            raise BitfoldError(
                "--fields cannot be read",
                got=repr(part),
                expected="NAME=V, such as user=6040, or NAME=hashed:N",
            )
        if ids.startswith("hashed"):
            count = ids.removeprefix("hashed").removeprefix(":")
            found.append(Field(name, distinct=parse(number, count) if count else None))
        else:
            found.append(Field(name, parse(number, ids)))
    return _Asked(found)
