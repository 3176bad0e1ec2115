"""`--plugin FILE`: methods that a Python file defines."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def plugins(command: Command) -> Command:
    """Give a command `--plugin`; its methods are registered before the command runs."""

    def load(ctx: click.Context, param: click.Parameter, files: tuple[str, ...]) -> None:
        if not files:
            return
        from bitfold.method.registry import load_plugin

        for file in files:
            load_plugin(file)

    return click.option(
        "--plugin",
        metavar="FILE",
        multiple=True,
        expose_value=False,
        is_eager=True,
        callback=load,
        help="A Python file that defines embedding methods of your own.",
    )(command)
