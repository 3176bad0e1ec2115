"""Connections of one socket: no more than may be open, no head without end, no idling.

Each is aiohttp's, which closes it (since 3.14.5 a new one too) when a head is not whole in time or
nothing is asked. What is no HTTP is answered in the house's form.
"""

import asyncio
import contextlib
import logging
import socket
from typing import Any

from aiohttp import HttpVersion11, web, web_protocol
from aiohttp.http_exceptions import LineTooLong

from bitfold.service.app import fault
from bitfold.service.limits import HEAD_BYTES, HEADERS, LINGER_SECONDS, Limits
from bitfold.service.messages import Response, refused
from bitfold.service.requests import Requests, written

_LINE = HEAD_BYTES // 4  # bytes of the first line, and of a header
_AT_ONCE = 64  # connections that are taken before others get their answers
_PAUSE = 0.1  # seconds, when the system gives no more of them
_AHEAD = 2  # requests of one connection that are read behind the one at work
_LOOK = 0.02  # seconds between looks at what is at work still, when the server stops


class Connection(web.RequestHandler):
    """One connection. A head that has more than `HEAD_BYTES` ends it.

    Args:
        of: all connections of the server.
        options: of aiohttp.
    """

    __slots__ = ("_of", "head")

    def __init__(self, of: "Connections", **options: Any) -> None:
        super().__init__(of, **options)
        self._of = of
        self.head = 0  # bytes of a head that is not whole

    def data_received(self, data: bytes) -> None:
        """Take some bytes."""
        super().data_received(data)
        self.head = self.head + len(data) if self.idle else 0
        if self.head > HEAD_BYTES:
            self._end_head()

    @property
    def idle(self) -> bool:
        """Whether no request is at work, and none is whole."""
        waiter = self._waiter  # aiohttp's; not there yet when the first bytes come
        if waiter is None:
            return self._request_count == 0
        return not waiter.done()

    async def finish_response(self, *given: Any) -> tuple[web.StreamResponse, bool]:
        """Write an answer, and read on what came behind its request."""
        found = await super().finish_response(*given)
        if not self._messages and not self._upgraded and self._parser is not None:
            self.data_received(b"")  # aiohttp keeps it where the body came after the head
        return found

    def _end_head(self) -> None:
        if self.transport is None:  # ended already
            return
        response = _long_head(None)
        self._of.requests.app.counted("other", response.status)
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: %b\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n%b"
            % (response.content_type.encode(), len(response.body), response.body)
        )
        self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no HTTP; it is the last of this connection."""
        if status >= 500:
            response = fault(exc if isinstance(exc, Exception) else RuntimeError(message))
        else:
            told = (message or "").partition("\n")[0]
            if isinstance(exc, LineTooLong) or told.startswith("Too many"):
                response = _long_head(told)
            else:
                response = refused(status, "that is no request of HTTP/1.1", got=told).response()
        self._of.requests.app.counted("other", response.status)
        request._version = HttpVersion11  # aiohttp answers in HTTP/1.0
        return written(response, closing=True)


def _long_head(got: str | None) -> Response:
    expected = f"{HEAD_BYTES:,} bytes, {HEADERS} headers of {_LINE:,} bytes at most"
    return refused(431, "the headers are too long", got=got, expected=expected).response()


class Connections(web.Server):
    """All connections of one server; made in its loop.

    Args:
        requests: what answers.
        limits: what the server takes on.
        most: connections that may be open; more wait in the kernel until one is closed.
    """

    def __init__(self, requests: Requests, limits: Limits, most: int) -> None:
        self._events = asyncio.get_running_loop()
        web_protocol.MAX_MSG_QUEUE_SIZE = _AHEAD  # 32 bodies of a connection are too many to hold
        super().__init__(requests, handler_cancellation=True)
        self.requests, self._most = requests, most
        self._options: dict[str, Any] = {
            "loop": self._events,
            "keepalive_timeout": limits.read_seconds,
            "lingering_time": LINGER_SECONDS,
            "max_line_size": _LINE,
            "max_field_size": _LINE,
            "max_headers": HEADERS,
            "auto_decompress": False,
            "access_log": None,
            "logger": logging.getLogger("bitfold.service"),
        }
        self._open = 0
        self._sock: socket.socket | None = None
        self._taking: set[asyncio.Task[None]] = set()

    def __call__(self) -> Connection:
        """What reads a new connection."""
        return Connection(self, **self._options)

    def listen(self, sock: socket.socket) -> None:
        """Take connections of a listening socket, which is the server's from now on."""
        self._sock = sock
        self._listen()

    async def stop(self, seconds: float) -> None:
        """Take no more of them, let those at work finish within some seconds, and close all."""
        if self._sock is not None:
            self._accept()  # those that wait in the kernel
            self._events.remove_reader(self._sock)
            self._sock.close()
            self._sock = None
        if self._taking:
            await asyncio.wait(self._taking)
        end = self._events.time() + seconds
        while self._open and self._events.time() < end:
            await asyncio.sleep(_LOOK)
            for each in self.connections:
                if isinstance(each, Connection) and each.idle and not each.head:
                    each.force_close()
        await self.shutdown(_LOOK)

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        """One has gone: another may take its place."""
        super().connection_lost(handler, exc)
        self._gone()

    def _gone(self) -> None:
        self._open -= 1
        if self._open == self._most - 1:
            self._listen()

    def _listen(self) -> None:
        if self._sock is not None:
            self._events.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        """Take connections that wait, while there is room."""
        sock = self._sock
        if sock is None:
            return
        for _ in range(_AT_ONCE):
            if self._open >= self._most:
                self._events.remove_reader(sock)
                return
            try:
                taken, _ = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # such as no file to open: those that wait are not lost
                self._events.remove_reader(sock)
                self._events.call_later(_PAUSE, self._listen)
                return
            taken.setblocking(False)
            self._open += 1
            task = self._events.create_task(self._take(taken))
            self._taking.add(task)
            task.add_done_callback(self._taking.discard)

    async def _take(self, sock: socket.socket) -> None:
        try:
            await self._events.connect_accepted_socket(self, sock)
        except Exception as error:  # such as one that is gone already
            self._gone()
            with contextlib.suppress(OSError):
                sock.close()
            if not isinstance(error, OSError):
                fault(error)
