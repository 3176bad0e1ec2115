"""One connection: bytes in, requests out, answers back, and every way that a client may misbehave.

HTTP/1.1 is parsed by llhttp (httptools). A connection has one deadline at a time - for the first
byte, for the whole request, for the client to take its answer - which the server looks at a few
times a second, so that thousands of connections need no timers. Requests that a client sends
ahead are answered in their order.
"""

import asyncio
import contextlib
import http
import math
import time
from collections import deque
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import httptools

from bitfold.serving.limits import HEAD_BYTES, LINGER_SECONDS
from bitfold.serving.messages import Refused, Request, Response, refused

if TYPE_CHECKING:
    from bitfold.serving.batching import Job
    from bitfold.serving.server import Server

_NEVER = math.inf
_SINGLE = {"host", "content-type", "content-encoding", "authorization", "origin"}
"""Headers of which two would be two meanings."""


class Connection(asyncio.Protocol):
    """A client's connection.

    Args:
        server: whose it is.
    """

    __slots__ = (
        "_asked", "_begun", "_blocked", "_body", "_busy", "_closed",
        "_ended",
        "_got", "_head", "_held", "_job",
        "_keep", "_lingering", "_most", "_parser", "_progress", "_queue", "_running", "_server",
        "_since", "_size", "_transport", "_unread", "_url", "deadline",
    )  # fmt: skip

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._parser: Any = None
        self._queue: deque[tuple[Request, bool]] = deque()
        self._busy: Request | None = None
        self._job: Job | None = None
        self._begun = self._closed = self._ended = self._lingering = self._blocked = (
            self._running
        ) = False
        self._keep = True
        self._since = 0.0
        self._held = 0  # bytes of bodies
        self._unread = 0  # bytes without progress: a head, or a trailer, that does not end
        self._progress = 0
        self._reset()

    def _reset(self) -> None:
        self._url = b""
        self._head: dict[str, str] = {}
        self._size = self._got = 0
        self._most = self._server.limits.body_bytes
        self._body: list[bytes] = []
        self._asked: Request | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)
        server = self._server
        self.deadline = server.now() + server.limits.read_seconds
        server.connections.add(self)
        if len(server.connections) > server.most_connections:
            self._refuse(
                refused(
                    503,
                    "too many connections are open",
                    ("retry-after", "1"),
                    expected=f"{server.most_connections:,} at most",
                    fix="try again in a second",
                )
            )
            if len(server.connections) > server.most_connections + server.spare_connections:
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._closed = True
        self._server.connections.discard(self)
        self._server.held -= self._held
        self._held = 0
        self._queue.clear()
        if self._job is not None:
            self._server.app.batcher.give_up(self._job)
            self._job = None

    def data_received(self, data: bytes) -> None:
        """Bytes of a request."""
        if self._over() or self._ended:
            return
        before = self._progress
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._ended = True  # nothing is upgraded to; the request was whole, and is answered
        except httptools.HttpParserError as error:
            if not self._over():
                self._refuse(
                    refused(400, "this is no HTTP/1.1 request", got=str(error) or "other bytes")
                )
            return
        if self._over():
            return
        if self._progress == before:
            self._unread += len(data)
            if self._unread > HEAD_BYTES:
                self._refuse(_long_head())
        else:
            self._unread = 0

    def eof_received(self) -> bool:
        """The client sends no more; it may still wait for answers."""
        self._ended = True
        return self._busy is not None or bool(self._queue)

    def pause_writing(self) -> None:
        """The client does not take its answers: read no more of it."""
        self._blocked = True
        self.deadline = self._server.now() + self._server.limits.read_seconds
        with contextlib.suppress(RuntimeError):
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client took what was written."""
        self._blocked = False
        self._wait()
        with contextlib.suppress(RuntimeError):
            self._transport.resume_reading()
        self._run()

    def _over(self) -> bool:
        """Whether a refusal was written, or the client is gone."""
        return self._lingering or self._closed

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._lingering:
            return
        self._reset()
        self._begun = True
        self.deadline = self._server.now() + self._server.limits.read_seconds

    def on_url(self, url: bytes) -> None:
        """The target of the request, or a part of it."""
        self._url += url
        self._grow(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, which is left out."""
        self._grow(len(name) + len(value) + 4)
        if self._lingering or self._asked is not None:
            return
        key = name.decode("latin-1").lower()
        if key in _SINGLE and key in self._head:
            self._refuse(refused(400, f"the header {key} is there twice", expected="once"))
            return
        self._head[key] = value.decode("latin-1")

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > HEAD_BYTES and not self._lingering:
            self._refuse(_long_head())

    def on_headers_complete(self) -> None:
        """The head is whole: refuse what need not be read."""
        if self._lingering:
            return
        self._progress += 1
        parser, server = self._parser, self._server
        path = self._url.partition(b"?")[0].decode("latin-1")
        request = Request(parser.get_method().decode("latin-1"), path, self._head)
        self._asked = request
        try:
            if parser.get_http_version() not in ("1.1", "1.0"):
                raise refused(505, "this server speaks HTTP/1.1", got=parser.get_http_version())
            server.app.admit(request)
            length = self._head.get("content-length", "0")
            self._most = server.app.most_bytes(path)
            if length.isdecimal() and int(length) > self._most:
                raise _large(length, self._most)
            expected = self._head.get("expect")
            if expected is not None and expected.lower() != "100-continue":
                raise refused(417, "this expectation is not met", got=expected)
        except Refused as error:
            self._refuse(error)
            return
        if expected is not None and self._busy is None and not self._queue:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if self._lingering:
            return
        self._progress += 1
        self._body.append(body)
        size = len(body)
        self._size = 0  # of trailers from now on
        self._got += size
        self._held += size
        server = self._server
        server.held += size
        if self._got > self._most:
            self._refuse(_large("more", self._most))
        elif server.held > server.limits.held_bytes:
            self._refuse(
                refused(
                    503, "too many bodies are being read", ("retry-after", "1"), fix="try later"
                )
            )

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._lingering or self._asked is None:
            return
        self._progress += 1
        request, self._asked = self._asked, None
        request.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        self._begun = False
        self.deadline = _NEVER
        self._queue.append((request, self._parser.should_keep_alive()))
        if self._busy is None:
            self._run()

    # Answers.

    def _run(self) -> None:
        """Answer what is whole, one after another."""
        if self._running:
            return
        self._running = True
        while self._queue and self._busy is None and not self._closed and not self._blocked:
            request, keep = self._queue.popleft()
            self._busy, self._keep = request, keep
            self._since = time.perf_counter()
            job = self._server.app.handle(request, self._answer)
            if self._busy is request:
                self._job = job
        self._running = False

    def _answer(self, response: Response) -> None:
        """Write the answer of the request at hand."""
        request = self._busy
        if self._closed or request is None:
            return
        server = self._server
        self._busy = self._job = None
        size = len(request.body)
        self._held -= size
        server.held -= size
        last = not self._queue and (self._ended or server.stopping)
        keep = self._keep and not last
        self._write(response, keep=keep, bare=request.method == "HEAD")
        server.answered(request, response, time.perf_counter() - self._since)
        if not keep:
            self._queue.clear()
            self._transport.close()
            self._closed = True
        else:
            self._wait()
            if self._queue:
                self._run()

    def _write(self, response: Response, *, keep: bool, bare: bool = False) -> None:
        head = _start(response.status, response.content_type, response.headers, keep)
        body = b"" if bare else response.body
        self._transport.write(
            b"%bdate: %b\r\ncontent-length: %d\r\n\r\n%b"
            % (head, self._server.date, len(response.body), body)
        )

    def _wait(self) -> None:
        """Set the deadline of a connection from which nothing is asked, or half a request."""
        limits = self._server.limits
        if self._busy is None and not self._blocked and not self._lingering:
            seconds = limits.read_seconds if self._begun else limits.idle_seconds
            self.deadline = self._server.now() + seconds

    def _refuse(self, error: Refused) -> None:
        """Answer before the request was read, and let the client read that before it is cut off.

        Requests in front of it are not answered any more: what a client sends after a request is
        not to be trusted once the next one is broken.
        """
        if self._lingering or self._closed:
            return
        self._lingering = True
        self._queue.clear()
        server = self._server
        if self._job is not None:
            server.app.batcher.give_up(self._job)
        self._busy = self._job = None
        server.held -= self._held
        self._held = 0
        self._body = []
        response = error.response()
        request = self._asked or Request("?", "?")
        self._write(response, keep=False, bare=request.method == "HEAD")
        server.answered(request, response, 0.0)
        self.deadline = server.now() + LINGER_SECONDS
        if self._transport.can_write_eof():
            with contextlib.suppress(OSError, RuntimeError):
                self._transport.write_eof()

    # What the server calls.

    @property
    def idle(self) -> bool:
        """Whether nothing was begun that the client waits for."""
        return self._busy is None and not self._begun and not self._queue and not self._lingering

    def expire(self) -> None:
        """The deadline has passed."""
        if self._lingering or self._blocked:
            self._transport.abort()
        elif self._begun:
            seconds = self._server.limits.read_seconds
            self._refuse(
                refused(
                    408,
                    "the request took too long to come",
                    expected=f"the whole of it within {seconds:g} s",
                    fix="send smaller requests",
                )
            )
        elif self._busy is None:
            self._transport.close()

    def close(self) -> None:
        """Close a connection that waits for nothing."""
        self._transport.close()

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()


@cache
def _reason(status: int) -> str:
    return http.HTTPStatus(status).phrase


@cache
def _constant(status: int, content_type: str, keep: bool) -> bytes:
    lines = [f"HTTP/1.1 {status} {_reason(status)}", f"content-type: {content_type}"]
    lines.append("x-content-type-options: nosniff")
    if not keep:
        lines.append("connection: close")
    return ("\r\n".join(lines) + "\r\n").encode("latin-1")


def _start(
    status: int, content_type: str, headers: tuple[tuple[str, str], ...], keep: bool
) -> bytes:
    """The head of an answer, up to what changes with each."""
    start = _constant(status, content_type, keep)
    for name, value in headers:
        start += f"{name}: {value}\r\n".encode("latin-1")
    return start


def _long_head() -> Refused:
    return refused(
        431, "the request line and headers are too long", expected=f"{HEAD_BYTES:,} bytes at most"
    )


def _large(got: str, most: int) -> Refused:
    return refused(
        413, "the body is too large", got=f"{got} bytes", expected=f"{most:,} bytes at most",
        fix="send fewer rows at a time",
    )  # fmt: skip
