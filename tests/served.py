"""A server in a thread of this process, a scorer that needs no model, and raw clients."""

import asyncio
import contextlib
import http.client
import json
import re
import socket
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitfold.errors import BitfoldError
from bitfold.service.app import App
from bitfold.service.limits import Limits
from bitfold.service.server import Server, bound, loop_factory
from bitfold.service.sources import Source

JSON = {"content-type": "application/json"}


class Fake:
    """Scores that tell which model gave them and which row they are of."""

    columns = ("user", "item")

    def __init__(self, name: str = "a", seconds: float = 0.0) -> None:
        self.digest = name * 64
        self.seconds = seconds
        self.asked: list[int] = []

    def score(self, row: Mapping[str, Any]) -> float:
        return float(self.scores([row])[0])

    def scores(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        time.sleep(self.seconds)
        self.asked.append(len(rows))
        return np.array([self.of(row) for row in rows], np.float32)

    def scores_of(self, data: Any) -> Any:
        return self.scores(data.to_pylist())

    def of(self, row: Mapping[str, Any]) -> float:
        """What a row's score is."""
        for index, value in enumerate(row.values()):
            if value == "wrong":
                raise BitfoldError("a wrong value", got=f"value {index}", expected="another")
            if value == "fault":
                raise ZeroDivisionError("/secret/path")
        text = json.dumps([self.digest, row.get("user"), row.get("item")])
        return float(np.float32(zlib.crc32(text.encode()) / 2**32))


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Served:
    """A running server."""

    app: App
    server: Server
    port: int
    loop: asyncio.AbstractEventLoop

    def ask(
        self, method: str, path: str, body: bytes | str | None = None, headers: Any = None
    ) -> Answer:
        """One request on a connection of its own."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            client.request(method, path, body, {} if headers is None else headers)
            got = client.getresponse()
            return Answer(got.status, {k.lower(): v for k, v in got.getheaders()}, got.read())
        finally:
            client.close()

    def score(self, rows: Any, **headers: str) -> Answer:
        return self.ask("POST", "/score", json.dumps({"rows": rows}), JSON | headers)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def raw(self, sent: bytes, answers: int = 1) -> bytes:
        """What the server says to some bytes: so many answers, or less if it closes."""
        with self.connect() as sock:
            got = b""
            with contextlib.suppress(ConnectionError):
                sock.sendall(sent)
                while len(bodies(got)) < answers and (part := sock.recv(65536)):
                    got += part
            return got

    def settled(self) -> bool:
        """Whether, after a moment, nothing is held and nothing waits."""
        return eventually(
            lambda: (
                self.server.requests.held == 0 == self.app.batcher.waiting
                and self.server.requests.open == 0
            )
        )


def bodies(got: bytes) -> list[bytes]:
    """The bodies of the whole answers in some bytes."""
    found = []
    while (end := got.find(b"\r\n\r\n")) >= 0:
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", got[:end])
        size = end + 4 + (int(length[1]) if length else 0)
        if len(got) < size:
            break
        found.append(got[end + 4 : size])
        got = got[size:]
    return found


def until_closed(sock: socket.socket, quiet: float | None = None) -> bytes:
    """All that comes until the server closes, or, if asked for, says nothing for some seconds."""
    got, over = b"", (ConnectionError,) if quiet is None else (ConnectionError, TimeoutError)
    if quiet is not None:
        sock.settimeout(quiet)
    with contextlib.suppress(*over):
        while part := sock.recv(65536):
            got += part
    return got


def eventually(holds: Any, seconds: float = 10.0) -> bool:
    """Whether something holds within some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.01)
    return bool(holds())


@contextlib.contextmanager
def serving(
    scorer: Any = None,
    *,
    token: str | None = None,
    source: Source | None = None,
    access_log: bool = False,
    **limits: Any,
) -> Iterator[Served]:
    """A server of a scorer; it stops with the block."""
    app = App(source or Source(Path("/nowhere/run")), Limits(**limits), token)
    if scorer is not None:
        app.models.swap(lambda: scorer)
    sock = bound("127.0.0.1", 0)
    loop = (loop_factory() or asyncio.new_event_loop)()  # as `bitfold serve` has it
    port = sock.getsockname()[1]
    server = Server(app, sock, access_log=access_log)
    begun, ended = threading.Event(), asyncio.Event()

    async def main() -> None:
        server.start()
        begun.set()
        await ended.wait()
        await server.stop()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    try:
        assert begun.wait(10)
        yield Served(app, server, port, loop)
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(30)
        loop.close()
    assert not thread.is_alive()
