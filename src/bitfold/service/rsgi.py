"""One request, as the library hands it over: its head, its body within limits, its answer.

Granian speaks HTTP: it parses and refuses, cuts off slow heads, bounds connections and keeps them
alive. Left for here is what only the application knows: which heads it wants, how long a body may
be and take, and that an answer which nobody waits for need not be computed.

The interface is RSGI 1.5: https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md
"""

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from bitfold.service.app import App, fault
from bitfold.service.limits import LINGER_SECONDS
from bitfold.service.logs import log
from bitfold.service.messages import Refused, Request, Response, refused

if TYPE_CHECKING:
    from bitfold.service.batching import Job

_SINGLE = {"host", "content-type", "content-encoding", "authorization", "origin"}
"""Headers of which two would be two meanings."""

_PATIENCE = 0.02  # seconds after which it is worth looking whether a client still waits


class Requests:
    """All requests of one server: what Granian calls.

    Args:
        app: what answers.
        access_log: write a line for each request.
    """

    def __init__(self, app: App, *, access_log: bool = False) -> None:
        self.app, self.access_log = app, access_log
        self.open = 0
        self.held = 0  # bytes of bodies
        app.open_requests = lambda: self.open

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """Answer one request."""
        exchange = Exchange(self, scope, protocol)
        self.open += 1
        try:
            await exchange.run()
        finally:
            self.open -= 1
            self.held -= exchange.held


class Exchange:
    """One request and its answer.

    Args:
        requests: of the server.
        scope: the head, of Granian.
        protocol: of Granian, for the body and the answer.
    """

    def __init__(self, requests: Requests, scope: Any, protocol: Any) -> None:
        self._requests, self._app = requests, requests.app
        self._scope, self._protocol = scope, protocol
        self._loop = asyncio.get_running_loop()
        self._answered = self._loop.create_future()
        self._begun = time.perf_counter()
        self._request = Request(scope.method, scope.path)
        self._unread = self._reading = False
        self._watcher: asyncio.Task[None] | None = None
        self.held = 0

    async def run(self) -> None:
        """From the head to the answer."""
        request = self._request
        try:
            given = self._scope.headers.items()
            headers = request.headers = dict(given)
            self._unread = "content-length" in headers or "transfer-encoding" in headers
            if len(headers) < len(given):
                _check_once([name for name, _ in given])
            self._app.admit(request)
            request.body = await self._body()
            job = self._app.handle(request, self.reply)
            if not self._answered.done():
                await self._wait(job)
        except Refused as error:
            self.reply(error.response())
            await self._leave()
        except Exception as error:  # ours: the client gets no traceback, the log does
            self.reply(fault(error))

    def reply(self, response: Response) -> None:
        """Write the answer; nothing if there is one, or if nobody waits for it."""
        if self._answered.done():
            return
        self._answered.set_result(None)
        headers = [
            ("content-type", response.content_type),
            ("x-content-type-options", "nosniff"),
            *response.headers,
        ]
        if self._app.stopping:
            headers.append(("connection", "close"))
        self._protocol.response_bytes(response.status, headers, response.body)
        request = self._request
        self._app.counted(request.path, response.status)
        if self._requests.access_log:
            log(
                "request", method=request.method, path=request.path[:200],
                status=response.status, bytes=len(request.body),
                seconds=round(time.perf_counter() - self._begun, 6),
            )  # fmt: skip

    async def _body(self) -> bytes:
        """The body, while it stays within the limits."""
        limits, requests = self._app.limits, self._requests
        if not self._unread:
            return b""
        headers, most = self._request.headers, self._app.most_bytes(self._request.path)
        length = int(headers["content-length"]) if "content-length" in headers else None
        if length is not None and length > most:
            raise _large(f"{length:,}", most)
        parts: list[bytes] = []
        empty = 0
        self._reading = True
        try:
            async with asyncio.timeout(limits.read_seconds):
                async for part in self._protocol:
                    parts.append(part)
                    self.held += len(part)
                    requests.held += len(part)
                    empty += not part
                    if self.held == length:
                        break
                    if self.held > most:
                        raise _large("more", most)
                    if requests.held > limits.held_bytes:
                        raise _crowded()
        except TimeoutError:
            raise _slow(limits.read_seconds) from None
        # Granian ends a body with one empty part; a second one stands for an error.
        if length not in (None, self.held) or empty > 1:
            raise refused(400, "the body ended before it was whole", got=f"{self.held:,} bytes")
        self._unread = False
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _leave(self) -> None:
        """Let a refused client send its body for a while: a cut connection may lose the answer."""
        if not self._unread:
            return
        with contextlib.suppress(Exception):
            async with asyncio.timeout(LINGER_SECONDS):
                if not self._reading:
                    aiter(self._protocol)
                while True:
                    await anext(self._protocol)

    async def _wait(self, job: "Job | None") -> None:
        """Wait for the answer, and give the job up once the client is gone."""
        timer = None if job is None else self._loop.call_later(_PATIENCE, self._watch, job)
        try:
            await self._answered
        finally:
            if timer is not None:
                timer.cancel()
            if self._watcher is not None:
                self._watcher.cancel()

    def _watch(self, job: "Job") -> None:
        async def gone() -> None:
            await self._protocol.client_disconnect()
            if self._app.stopping:  # Granian says so too when it stops: the client still waits
                return
            self._app.batcher.give_up(job)
            if not self._answered.done():
                self._answered.set_result(None)

        self._watcher = self._loop.create_task(gone())


def _check_once(names: list[str]) -> None:
    """Refuse two meanings of one header."""
    for name in _SINGLE:
        if names.count(name) > 1:
            raise refused(400, f"the header {name} is there twice", expected="once")


def _large(got: str, most: int) -> Refused:
    return refused(
        413, "the body is too large", got=f"{got} bytes", expected=f"{most:,} bytes at most",
        fix="send fewer rows at a time",
    )  # fmt: skip


def _crowded() -> Refused:
    return refused(503, "too many bodies are being read", ("retry-after", "1"), fix="try later")


def _slow(seconds: float) -> Refused:
    return refused(
        408, "the body took too long to come", expected=f"the whole of it within {seconds:g} s",
        fix="send smaller requests",
    )  # fmt: skip
