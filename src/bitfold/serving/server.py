"""The server: a socket, its connections, signals, and an end that loses no request."""

import asyncio
import contextlib
import resource
import signal
import socket
import sys
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from bitfold.errors import BitfoldError
from bitfold.serving.app import App
from bitfold.serving.limits import Limits
from bitfold.serving.logs import log, notes_to_log
from bitfold.serving.protocol import Connection
from bitfold.serving.tables import warm_tables
from bitfold.serving.watching import watch

if TYPE_CHECKING:
    from bitfold.serving.messages import Request, Response

_LOOK = 0.25  # seconds between two looks at deadlines
_GRACE = 0.5  # seconds in which a client that asks again is still answered at the end
_OTHER_FILES = 192  # descriptors that are no connections
_SWITCH = 0.0005  # seconds that a thread keeps the interpreter while another waits


class Server:
    """Connections of one application.

    Args:
        app: what answers.
        access_log: write a line for each request.
    """

    def __init__(self, app: App, *, access_log: bool = False) -> None:
        self.app = app
        self.limits: Limits = app.limits
        self.connections: set[Connection] = set()
        self.held = 0
        self.stopping = False
        self.date = formatdate(usegmt=True).encode()
        self._access = access_log
        room = _descriptors(self.limits.connections + 2 * _OTHER_FILES) - 2 * _OTHER_FILES
        self.most_connections = max(1, min(self.limits.connections, room))
        self.spare_connections = _OTHER_FILES
        app.connections = self.connections.__len__

    def answered(self, request: "Request", response: "Response", seconds: float) -> None:
        """An answer was written."""
        self.app.counted(request.path, response.status)
        if self._access:
            log(
                "request", method=request.method, path=request.path[:200],
                status=response.status, bytes=len(request.body), seconds=round(seconds, 6),
            )  # fmt: skip

    async def listen(self, sock: socket.socket) -> None:
        """Begin to take connections."""
        loop = asyncio.get_running_loop()
        self.now: Callable[[], float] = loop.time
        self.app.start(loop)
        self._listener = await loop.create_server(lambda: Connection(self), sock=sock, backlog=4096)
        self.app.batcher.worker(warm_tables)
        self._sweeper = asyncio.ensure_future(self._sweep())

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            self.date = formatdate(usegmt=True).encode()
            now = self.now()
            for each in [each for each in self.connections if each.deadline < now]:
                each.expire()

    async def stop(self) -> None:
        """Take no more connections, finish what was accepted, then close.

        A client that asks again and again may be about to: for a moment it still gets its answer,
        with the word that the connection ends, where a closed connection would lose a request.
        """
        self.stopping = self.app.stopping = True
        self._listener.close()
        begun = self.now()
        await asyncio.sleep(0.02)  # what the listener took reaches its connection
        while self.connections and self.now() < begun + self.limits.stop_seconds:
            for each in list(self.connections):
                if each.idle and self.now() > begun + min(_GRACE, self.limits.stop_seconds / 2):
                    each.close()
            await asyncio.sleep(0.02)
        for each in list(self.connections):
            each.abort()
        self._sweeper.cancel()
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
        sock.listen(4096)
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
    notes_to_log()
    with asyncio.Runner(loop_factory=_loop()) as runner:
        runner.run(_serve(Server(app, access_log=access_log), sock, watching, ready))


async def _serve(
    server: Server, sock: socket.socket, watching: bool, ready: Callable[[], None]
) -> None:
    loop = asyncio.get_running_loop()
    asked: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.put_nowait, number)
    await server.listen(sock)
    app = server.app

    async def reload() -> object:
        return await loop.run_in_executor(None, app.reload_changed)

    watcher = asyncio.ensure_future(watch(app.source, reload)) if watching else None
    model = app.models.current
    log("serving", run=model.digest if model else None, connections=server.most_connections)
    ready()
    await asked.get()
    log("stopping", connections=len(server.connections))
    if watcher is not None:
        watcher.cancel()
    stopped = asyncio.ensure_future(server.stop())
    again = asyncio.ensure_future(asked.get())
    await asyncio.wait([stopped, again], return_when=asyncio.FIRST_COMPLETED)
    again.cancel()
    stopped.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await stopped
    log("stopped")


def _descriptors(wanted: int) -> int:
    """How many files this process may have open, after asking for as many as wanted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _loop() -> "Callable[[], Any] | None":
    try:
        import uvloop
    except ImportError:
        return None
    found: Callable[[], Any] = uvloop.new_event_loop
    return found
