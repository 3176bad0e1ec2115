"""Copies of the running command, one for each further process: started, watched, ended."""

import atexit
import os
import socket
import subprocess
import sys
import threading
import time

from bitfold.errors import BitfoldError

STARTED = "BITFOLD_STARTED_PROCESSES"  # in the environment of what `start` made
_OTHERS: list["subprocess.Popen[bytes]"] = []  # that this process started
GRACE_SECONDS = 30.0  # for the first process to find by itself that another one died


def start(count: int) -> None:
    """Start `count` - 1 more copies of this script, and make this process the first of all.

    Raises:
        BitfoldError: there is no script to start, as in a notebook.
    """
    command = _this_command()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        STARTED: "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "GROUP_RANK": "0",
    }
    for rank in range(1, count):
        own = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        _OTHERS.append(subprocess.Popen(command, env=os.environ | own))
    os.environ.update(shared | {"RANK": "0", "LOCAL_RANK": "0"})
    atexit.register(end_others, GRACE_SECONDS)
    threading.Thread(target=_watch_others, args=(_OTHERS,), daemon=True).start()


def was_started() -> bool:
    """Whether another process started this one."""
    return STARTED in os.environ and not _OTHERS


def _this_command() -> list[str]:
    """The command line that started this process."""
    import __main__

    spec = getattr(__main__, "__spec__", None)
    if spec is not None:
        name = spec.name.removesuffix(".__main__")
        return [sys.executable, "-m", name, *sys.argv[1:]]
    if not getattr(__main__, "__file__", None):
        raise BitfoldError(
            "several processes need a script that each of them runs",
            got="an interactive session",
            expected="the command, or a Python file",
            fix="train with devices=1, or run torchrun --nproc-per-node N -m bitfold train ...",
        )
    return [sys.executable, os.path.abspath(sys.argv[0]), *sys.argv[1:]]  # noqa: PTH100


def _watch_others(others: list["subprocess.Popen[bytes]"]) -> None:
    """End this process if another one died and it does not find out by itself."""
    while not any(other.poll() for other in others):
        if all(other.returncode == 0 for other in others):
            return
        time.sleep(0.5)
    time.sleep(GRACE_SECONDS)
    print("bitfold: a process of this training ended", file=sys.stderr, flush=True)
    end_others(0.0)
    os._exit(2)


def watch_first() -> None:
    """End this process, which `start` made, once the one that started it is gone."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.5)
    time.sleep(GRACE_SECONDS)
    os._exit(2)


def end_others(seconds: float) -> None:
    """Give the processes that this one started some time to end; then end them."""
    deadline = time.monotonic() + seconds
    for other in _OTHERS:
        try:
            other.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            other.kill()
            other.wait()
