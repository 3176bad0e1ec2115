"""Ctrl-C, and the signals that end a process: the work stays as it is, and the user is told how to
go on.
"""

import contextlib
import os
import shlex
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

# The file that unfinished work of a command has from its first moment.
BEGUN = {
    "train": "config.json",
    "stream": "stream.json",
    "compare": "compare.json",
    "retrieve": "config.json",
}
SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal asked the process to end; the work ends as on Ctrl-C.

    Args:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


def code(error: BaseException) -> int:
    """The exit code: 130 after Ctrl-C, 143 after SIGTERM."""
    cause = error if isinstance(error, Stopped) else error.__cause__
    return 128 + (cause.number if isinstance(cause, Stopped) else signal.SIGINT)


@contextlib.contextmanager
def signals() -> Iterator[None]:
    """While the block runs, SIGTERM and SIGHUP raise `Stopped`. A signal that is ignored stays so
    (`nohup`), and threads have no say in signals.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    taken = [number for number, handler in before.items() if handler == signal.SIG_DFL]
    for number in taken:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])


def going_on(args: Sequence[str]) -> str:
    """The whole command that goes on with a command line that was stopped.

    Example:
        >>> going_on(["prepare", "my clicks.csv", "--out", "log"])
        "bitfold prepare 'my clicks.csv' --out log"
    """
    command = next((word for word in args if word in BEGUN), None)
    out = _value(args, "--out")
    if command and out and _resumable(Path(out), BEGUN[command], forced="--force" in args):
        args = [word for word in args if word not in ("--force", "--resume")] + ["--resume"]
    return shlex.join(["bitfold", *args])


def _resumable(out: Path, file: str, *, forced: bool) -> bool:
    from bitfold.outputs import hidden
    from bitfold.outputs.hiding import UNFINISHED

    real = Path(os.path.realpath(out))
    places = [hidden(real) / UNFINISHED] if forced else [hidden(real) / UNFINISHED, real]
    return any((place / file).is_file() for place in places)


def _value(args: Sequence[str], option: str) -> str | None:
    """What an option of a command line says, the last time that it is said."""
    found = None
    for place, word in enumerate(args):
        if word == option:
            found = next(iter(args[place + 1 :]), None)
        elif word.startswith(f"{option}="):
            found = word.partition("=")[2]
    return found
