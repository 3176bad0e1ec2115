"""One request, as the library hands it over: its head, its body within limits, its answer.

aiohttp speaks HTTP: it parses, keeps connections alive and cancels what nobody waits for, as far as
it still reads: not behind half a MiB that a client sent ahead. Left for here is what only the
application knows: which heads it wants, how long a body may be and take, and that an answer which
nobody waits for need not be computed.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import HttpVersion10, HttpVersion11, web

from bitfold.service.app import App, fault
from bitfold.service.logs import log
from bitfold.service.messages import Refused, Request, Response, refused

_VERSIONS = (HttpVersion10, HttpVersion11)
_SINGLE = ("host", "content-type", "content-encoding", "authorization", "origin")
"""Headers of which two would be two meanings."""


class Requests:
    """All requests of one server: what aiohttp calls.

    Args:
        app: what answers.
        access_log: write a line for each request.
    """

    def __init__(self, app: App, *, access_log: bool = False) -> None:
        self.app, self.access_log = app, access_log
        self.open = 0
        self.held = 0  # bytes of bodies
        app.open_requests = lambda: self.open

    async def __call__(self, asked: web.BaseRequest) -> web.Response:
        """Answer one request."""
        begun = time.perf_counter()
        request = Request(asked.method, asked.path, asked.headers)
        version = asked._version  # aiohttp keeps what `asked.version` says, and answers in it
        other = version not in _VERSIONS
        self.open += 1
        try:
            if other:
                told = f"HTTP {version[0]}"
                asked._version = HttpVersion11
                raise refused(400, "that is no request of HTTP/1.1", got=told)
            response = await self._answer(asked, request)
        except Refused as error:
            response = error.response()
        except Exception as error:  # ours: the client gets no traceback, the log does
            response = fault(error)
        finally:
            self.open -= 1
            self.held -= len(request.body)
        self.app.counted(request.path, response.status)
        if self.access_log:
            log(
                "request", method=request.method, path=request.path[:200],
                status=response.status, bytes=len(request.body),
                seconds=round(time.perf_counter() - begun, 6),
            )  # fmt: skip
        # What follows another protocol, or a body that was not read, is no request.
        lost = other or "upgrade" in asked.headers or not asked.content.is_eof()
        return written(response, closing=self.app.stopping or lost)

    async def _answer(self, asked: web.BaseRequest, request: Request) -> Response:
        """The answer, once it is there; the job is given up if the client goes before that."""
        _check_once(asked.headers)
        self.app.admit(request)
        request.body = await self._body(asked)
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

        def reply(response: Response) -> None:
            if not answer.done():
                answer.set_result(response)

        job = self.app.handle(request, reply)
        try:
            return await answer
        except asyncio.CancelledError:
            if job is not None:
                self.app.batcher.give_up(job)
            raise

    async def _body(self, asked: web.BaseRequest) -> bytes:
        """The body, while it stays within the limits; its bytes are held from then on."""
        content, most = asked.content, self.app.most_bytes(asked.path)
        length = asked.content_length
        if length is not None and length > most:
            raise _large(f"{length:,}", most)
        if content.is_eof():  # all of it came with the head
            body = content.read_nowait(-1)
            if len(body) > most:
                raise _large("more", most)
            self._check_held(len(body))
            self.held += len(body)
            return body
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(self.app.limits.read_seconds):
                await self._read(asked, parts, most)
        except BaseException as error:
            self.held -= sum(map(len, parts))
            if isinstance(error, TimeoutError):
                raise _slow(self.app.limits.read_seconds) from None
            if isinstance(error, web.RequestPayloadError | ConnectionError):
                got = f"{sum(map(len, parts)):,} bytes"
                raise refused(400, "the body ended before it was whole", got=got) from None
            raise
        return b"".join(parts)

    async def _read(self, asked: web.BaseRequest, parts: list[bytes], most: int) -> None:
        """Read the parts of a body."""
        if "expect" in asked.headers:
            await _go_on(asked)
        size = 0
        while part := await asked.content.readany():
            parts.append(part)
            size += len(part)
            self.held += len(part)
            if size > most:
                raise _large("more", most)
            self._check_held()

    def _check_held(self, more: int = 0) -> None:
        if self.held + more > self.app.limits.held_bytes:
            raise refused(
                503, "too many bodies are being read", ("retry-after", "1"), fix="try later"
            )


def written(response: Response, *, closing: bool = False) -> web.Response:
    """An answer in the library's form.

    Args:
        response: the answer.
        closing: whether it is the connection's last.
    """
    headers = [
        ("content-type", response.content_type),
        ("server", "bitfold"),
        ("x-content-type-options", "nosniff"),
        *response.headers,
    ]
    if closing:
        headers.append(("connection", "close"))
    made = web.Response(body=response.body, status=response.status, headers=headers)
    if closing:
        made.force_close()
    return made


async def _go_on(asked: web.BaseRequest) -> None:
    """Tell a client that waits for it to send its body."""
    if asked.headers["expect"].lower() != "100-continue":
        raise refused(417, "that is not expected here", got=asked.headers["expect"][:100])
    writer: Any = asked.writer
    await writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    writer.output_size = 0  # the answer has not begun


def _check_once(headers: Mapping[str, str]) -> None:
    """Refuse two meanings of one header."""
    given: Any = headers
    for name in _SINGLE:
        if len(given.getall(name, ())) > 1:
            raise refused(400, f"the header {name} is there twice", expected="once")


def _large(got: str, most: int) -> Refused:
    return refused(
        413, "the body is too large", got=f"{got} bytes", expected=f"{most:,} bytes at most",
        fix="send fewer rows at a time",
    )  # fmt: skip


def _slow(seconds: float) -> Refused:
    return refused(
        408, "the body took too long to come", expected=f"the whole of it within {seconds:g} s",
        fix="send smaller requests",
    )  # fmt: skip
