"""The group of commands, and how mistakes reach the user.

Exit codes: 0 done; 2 a mistake the user can mend, told in one message on stderr; 130 stopped by
Ctrl-C, 143 by SIGTERM. Anything else is a fault of bitfold's own and shows its traceback.
"""

import importlib
import os
import sys
import traceback
from typing import NoReturn

import click

from bitfold import __version__
from bitfold.cli.stopping import code, going_on, signals
from bitfold.cli.streams import steady
from bitfold.errors import BitfoldError, memory_told, unknown_name
from bitfold.progress import is_first_process
from bitfold.remote import named
from bitfold.terminal import printable

# name: (module under bitfold.cli, what it does). Listed here, so that the help imports nothing.
COMMANDS = {
    "prepare": ("logs", "Read raw logs once: hash the ids, split, write a prepared log."),
    "inspect": (
        "inspection",
        "Say what a log holds: fields, ids, skew, missing and new values.",
    ),
    "synth": ("logs", "Write a synthetic click log of any size, with a known best AUC."),
    "train": ("runs", "Train a click model whose embeddings fit in a byte budget."),
    "stream": ("streamed", "Score a log in time order window by window, and train on each."),
    "evaluate": ("runs", "Measure a run on a log."),
    "predict": ("runs", "Score raw rows with a run, in their order."),
    "export": ("exporting", "Write a run as one file that another runtime scores."),
    "serve": ("serving", "Score rows over HTTP: JSON, Arrow or Parquet in, probabilities out."),
    "delta": ("deltas", "Write what changed between two runs as one small file."),
    "apply": ("deltas", "Make the new run of an old one and a delta."),
    "warm": ("warming", "Compile the kernels of scoring ahead, such as into an image."),
    "retrieve": ("retrieval", "Train two towers, index the items, rank them for each user."),
    "compare": ("boards", "Train methods at equal bytes on your log, and table the results."),
    "report": ("boards", "Make the page of a comparison again, or pictures for slides."),
    "methods": ("budgets", "List the methods, when to use each, and their options."),
    "plan": ("budgets", "Say how a budget is spent over fields, before training."),
}


class Commands(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order of a day's work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"bitfold.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one names the nearest."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise unknown_name("command", args[0], COMMANDS)
        if args and args[0] in COMMANDS and args[0] != "train":
            from bitfold.training.processes import only_one

            only_one(f"`bitfold {args[0]}`")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="bitfold")
@click.option(
    "--debug",
    is_flag=True,
    envvar="BITFOLD_DEBUG",
    help="Show the traceback of an error (also BITFOLD_DEBUG=1).",
)
def cli(debug: bool) -> None:
    """Fold embedding tables into a byte budget: say how many bytes, get a click model that fits.

    `bitfold COMMAND --help` explains each command. Results go to stdout, progress and errors to
    stderr.
    """


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command and leave the process with its exit code."""
    with steady():
        code = _main(sys.argv[1:] if args is None else args)
    sys.exit(code)


def _main(args: list[str]) -> int:
    """The exit code of one command line, `--debug` anywhere in it."""
    debug = bool(os.environ.get("BITFOLD_DEBUG")) or "--debug" in args
    # `--debug` is wanted most often after a command has failed, so it may stand anywhere.
    args = [word for word in args if word != "--debug"]
    if debug:
        args = ["--debug", *args]
    code = _run(args, debug)
    if code and "WORLD_SIZE" in os.environ:
        from bitfold.training.processes import end

        end(code)
    return code


def _run(args: list[str], debug: bool) -> int:
    """The exit code of one command line."""
    try:
        with signals(), memory_told():
            result = cli.main(args, prog_name="bitfold", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except BrokenPipeError:  # `bitfold methods | head`: the reader has what it wanted
        return 1
    except (click.Abort, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        if not is_first_process():
            return code(error)
        return _say(f"stopped; to go on:\n{going_on(args)}", code(error))
    except click.exceptions.NoArgsIsHelpError as error:
        return _say(error.ctx.get_help() if error.ctx else error.format_message(), 2, "")
    except click.UsageError as error:
        return _fail(usage(error), debug)
    except click.ClickException as error:
        return _fail(BitfoldError(error.format_message()), debug)
    except BitfoldError as error:
        return _fail(error, debug)
    except OSError as error:
        return _fail(system(error), debug)


def _fail(error: BitfoldError, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    return _say(str(error), 2, speaks=getattr(error, "told", None))


def _say(text: str, code: int, prefix: str = "bitfold: ", speaks: bool | None = None) -> int:
    """Tell the user, if it is this process's turn: of several the first one, if none is named."""
    if not (is_first_process() if speaks is None else speaks):
        return code
    print(f"{prefix}{printable(named(text), lines=True)}", file=sys.stderr, flush=True)
    return code


def usage(error: click.UsageError) -> BitfoldError:
    """A mistake in the command line's arguments, in bitfold's own form."""
    path = error.ctx.command_path if error.ctx else "bitfold"
    if isinstance(error, click.exceptions.NoSuchOption):
        options = [
            name
            for param in (error.ctx.command.params if error.ctx else [])
            for name in (*param.opts, *param.secondary_opts)
            if name.startswith("--")
        ]
        near = unknown_name("option", error.option_name, options).fix or ""
        return BitfoldError(
            f"unknown option {error.option_name!r}",
            got=error.option_name,
            fix=f"{near}; " * near.startswith("did") + f"`{path} --help` lists them",
        )
    if isinstance(error, click.exceptions.MissingParameter) and error.param is not None:
        name = error.param.human_readable_name
        word = name if isinstance(error.param, click.Argument) else error.param.opts[0]
        return BitfoldError(f"{word} is missing", fix=f"say it; `{path} --help` explains it")
    return BitfoldError(error.format_message().rstrip("."), fix=f"`{path} --help` explains it")


def system(error: OSError) -> BitfoldError:
    """A refusal of the operating system (no such file, no space, no permission)."""
    name = error.filename if error.filename is not None else ""
    where = os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else str(name)
    reason = error.strerror or str(error) or type(error).__name__
    return BitfoldError(
        f"the system refused: {reason}" + (f": {where}" if where else ""),
        fix="check that the path exists, that you may use it, and that the disk has room",
    )
