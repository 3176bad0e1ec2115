"""`bitfold methods` and `bitfold plan`: what there is, and what a budget buys."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from bitfold.cli.options import WordCommand, build, file_words, words
from bitfold.cli.plugins import plugins
from bitfold.cli.tables import figure, show, size, table
from bitfold.cli.words import Word, parse, words_of
from bitfold.errors import BitfoldError
from bitfold.training.config import TrainConfig

if TYPE_CHECKING:
    from bitfold.fields import Field
    from bitfold.plan_format import Plan

PLANNED = ("embedding", "budget", "width", "set", "network", "seed")


@click.command(cls=WordCommand, short_help="List the methods.")
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
    options = words_of(kind)
    if not options:
        show(about, "no options")
        return
    made = table("Options (--set OPTION=VALUE)", ("option", "default", "what it does"), left=3)
    for word in options.values():
        choices = f" ({', '.join(word.choices)})" if word.choices else ""
        made.add_row(word.name, str(word.default).lower(), word.help + choices)
    show(about, made)


@click.command(cls=WordCommand, short_help="Say how a budget is spent.")
@click.argument("log", required=False)
@click.option(
    "--fields",
    metavar="NAME=V,...",
    help="Fields and their numbers of ids, user=6040,movie=3706; NAME=hashed:N for hashed ids "
    "of which N are distinct.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@words(TrainConfig, without=[name for name in words_of(TrainConfig) if name not in PLANNED])
@plugins
def plan(
    log: str | None, fields: str | None, as_json: bool, config_file: str | None, **given: Any
) -> None:
    """Say how a method would spend a budget over fields, to the byte, before any training.

    The fields come from LOG, a prepared log, or from --fields.

    \b
    bitfold plan --fields user=6040,movie=3706 --budget 10x
    """
    if (log is None) == (fields is None):
        raise BitfoldError(
            "the fields are not said" if log is None else "the fields are said twice",
            expected="a prepared log, or --fields, such as --fields user=6040,movie=3706",
        )
    file = file_words(config_file, list(words_of(TrainConfig)))
    config = build(TrainConfig, given, file)
    found = _log_fields(log) if log is not None else _said_fields(fields or "")

    from bitfold.planning import plan as make

    made = make(
        found,
        config.vector_width,
        method=config.embedding,
        budget=config.budget,
        seed=config.seed,
        **config.set,
    )
    if as_json:
        click.echo(json.dumps(made.to_json(), indent=1))
        return
    _print(made)


def _print(made: "Plan") -> None:
    """The plan as a table, a field a line, then its bytes."""
    shown = table(
        f"{made.method}, width {made.embedding_dim}, {made.fusion}",
        ("field", "ids", "rows", "lookups", "radices", "bytes"),
    )
    for row in made.rows():
        ids = "any" if row["ids"] is None else f"{row['ids']:,}" + " hashed" * row["hashed"]
        numbers = [figure(name, row[name]) for name in ("rows", "lookups")]
        radices = " x ".join(f"{radix:,}" for radix in row["radices"])
        shown.add_row(row["field"], ids, *numbers, radices, figure("bytes", row["bytes"]))
    parts = ", ".join(f"{kind} {count:,}" for kind, count in made.by_kind.items())
    total = f"{made.bytes:,} bytes ({size(made.bytes)}): {parts}"
    if made.ratio is not None:
        total += f"\nthe full table is {made.ratio:,.1f} times as large"
    show(shown, total)


def _log_fields(path: str) -> "Sequence[Field]":
    from bitfold.data.prepared import PreparedLog

    return PreparedLog(path).schema.embedding_fields()


def _said_fields(text: str) -> "Sequence[Field]":
    """Read `user=6040,query=hashed:1000000`.

    Example:
        >>> [field.size for field in _said_fields("user=6040,query=hashed:1e6")]
        [6040, 1000000]
    """
    from bitfold.fields import Field

    number = Word("fields", int, None, "", None, None)
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
    return found
