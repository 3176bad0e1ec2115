"""The server: a socket, signals, and an end that loses nothing."""

import asyncio
import contextlib
import gc
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from bitfold.errors import BitfoldError
from bitfold.service.app import App
from bitfold.service.connections import Connections
from bitfold.service.logs import log, notes_to_log
from bitfold.service.requests import Requests
from bitfold.service.tables import warm_tables
from bitfold.service.watching import watch

_BACKLOG = 4096  # connections that the kernel holds for us
_GRACE = 0.5  # seconds in which a client that asks again is still answered at the end
_OTHER_FILES = 256  # descriptors that are no connections
_SWITCH = 0.0005  # seconds that a thread keeps the interpreter while another waits
_YOUNG = 5000  # objects of the requests at work, among which no garbage is looked for


class Server:
    """One application on one socket.

    Args:
        app: what answers.
        sock: a listening socket, which is the server's from now on.
        access_log: write a line for each request.
    """

    def __init__(self, app: App, sock: socket.socket, *, access_log: bool = False) -> None:
        self.app, self._sock = app, sock
        self.requests = Requests(app, access_log=access_log)
        room = _descriptors(app.limits.connections + _OTHER_FILES) - _OTHER_FILES
        self.most = max(1, min(app.limits.connections, room))
        _set_up(sock, app.limits.read_seconds)

    def start(self) -> None:
        """Begin to take requests, in the running loop."""
        self.app.start(asyncio.get_running_loop())
        self.app.batcher.worker(warm_tables)
        self._connections = Connections(self.requests, self.app.limits, self.most)
        self._connections.listen(self._sock)

    async def stop(self) -> None:
        """Finish what was accepted, then end.

        A client that asks again and again may be about to: for a moment it still gets its answer,
        with the word that the connection ends, where a closed connection would lose a request.
        """
        seconds = self.app.limits.stop_seconds
        grace = min(_GRACE, seconds / 2)
        self.app.stopping = True
        await asyncio.sleep(grace)
        await self._connections.stop(seconds - grace)
        self.app.close()


def bound(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        BitfoldError: the port is in use, or the address is none of this machine's.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, proto)
    except OSError as error:
        raise BitfoldError(
            "there is no such address", got=host, expected="such as 127.0.0.1 or 0.0.0.0"
        ) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise BitfoldError(
            f"the server cannot listen at {host}:{port}",
            got=error.strerror or str(error),
            expected="a free port",
            fix="name another one with --port; --port 0 finds one",
        ) from error
    sock.setblocking(False)
    return sock


def run(
    app: App,
    sock: socket.socket,
    *,
    watching: bool = False,
    access_log: bool = False,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, whose second one cuts it short.

    Args:
        app: what answers; its model is loaded.
        sock: a listening socket.
        watching: load what changes at the model's path.
        access_log: write a line for each request.
        ready: called once connections are taken.
    """
    sys.setswitchinterval(_SWITCH)
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
    notes_to_log()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(Server(app, sock, access_log=access_log), watching, ready))


async def _serve(server: Server, watching: bool, ready: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    asked: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.put_nowait, number)
    server.start()
    app = server.app

    async def reload() -> object:
        return await loop.run_in_executor(None, app.swapping.reload_changed)

    watcher = asyncio.ensure_future(watch(app.source, reload)) if watching else None
    model = app.models.current
    log("serving", run=model.digest if model else None, connections=server.most)
    ready()
    await asked.get()
    log("stopping", requests=server.requests.open)
    if watcher is not None:
        watcher.cancel()
    await _first(server.stop(), asked.get())
    loop.set_exception_handler(lambda *_: None)  # what is cut off now may complain in vain
    log("stopped")


async def _first(*awaited: Awaitable[object]) -> None:
    """Wait for one of them, and let go of the others."""
    tasks = [asyncio.ensure_future(each) for each in awaited]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        if task.done():
            task.result()
        else:
            task.cancel()


def _set_up(sock: socket.socket, seconds: float) -> None:
    """Options that connections get from the socket on which they come."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux: cut off who takes no answers
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, round(seconds * 1000)))


def _descriptors(wanted: int) -> int:
    """How many files this process may have open, after asking for as many as wanted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def loop_factory() -> "Callable[[], Any] | None":
    """What makes the loop of a server: uvloop's where it is installed, else None."""
    try:
        import uvloop
    except ImportError:
        return None
    found: Callable[[], Any] = uvloop.new_event_loop
    return found
