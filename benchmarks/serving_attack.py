"""Attacks: what a server says to bad clients, and what it takes in memory meanwhile.

Each attack opens connections, sends what a good client never would, and counts the answers. After
each, and while thousands of connections are held, a good client must get right scores.
"""

import argparse
import http.client
import io
import json
import random
import resource
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pyarrow as pa
from serving_parts import Process, bitfold_server, free_port, rows_of, runs_of, server
from tables import markdown

import bitfold

READ_SECONDS = 5
BATCH = 250  # connections that are opened at once


def post(body: bytes, kind: str = "application/json", *, path: str = "/score") -> bytes:
    """A whole request."""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def malformed() -> Iterator[bytes]:
    """A right body, damaged anywhere."""
    draw = random.Random(0)
    right = json.dumps({"rows": rows_of(2, 3)}).encode()
    while True:
        body = bytearray(right)
        for _ in range(draw.randint(1, 4)):
            body[draw.randrange(len(body))] = draw.choice(b'{}[]",:\\x00\xff')
        yield post(bytes(body[: draw.randrange(1, len(body))]))


def cycle(*requests: bytes) -> Iterator[bytes]:
    """The same requests again and again."""
    while True:
        yield from requests


def bomb() -> bytes:
    """An Arrow stream that unpacks to a thousand times its size."""
    table = pa.table({"user": pa.array(["x" * 1_000_000] * 100)})
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue()


def one(row: str) -> bytes:
    """A request of one row, written as it stands."""
    return post(f'{{"rows": [{row}]}}'.encode())


HUGE = b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
ARROW = "application/vnd.apache.arrow.stream"
ATTACKS: dict[str, tuple[int, Callable[[], Iterator[bytes]]]] = {
    "malformed JSON": (2000, malformed),
    "deep nesting": (
        200,
        lambda: cycle(post(b"[" * 1_000_000), post(b'{"rows":' * 100_000), one("[" * 100_000)),
    ),
    "wrong types": (
        1000,
        lambda: cycle(one('{"price": "text"}'), one('{"user": {"a": 1}}'), one("7"), post(b"null"),
                      one('{"usr": 1}'), post(b'{"rows": 7}')),
    ),
    "NaN, infinity, numbers out of range": (
        1000,
        lambda: cycle(one('{"price": NaN}'), one('{"price": -Infinity}'), one('{"price": 1e999}')),
    ),
    "a key twice": (500, lambda: cycle(one('{"user": "a", "user": "b"}'))),
    "too many rows": (50, lambda: cycle(post(b"[" + b"{}," * 200_000 + b"{}]"))),
    "bodies of 32 MiB": (30, lambda: cycle(post(b" " * (32 << 20)))),
    "a length of 10 GB": (500, lambda: cycle(HUGE + b"content-length: 10000000000\r\n\r\n")),
    "chunks without end": (
        20,
        lambda: cycle(HUGE + b"transfer-encoding: chunked\r\n\r\n"
                      + (b"100000\r\n" + b" " * (1 << 20) + b"\r\n") * 16),
    ),
    "headers without end": (500, lambda: cycle(b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000)),
    "no HTTP": (1000, lambda: cycle(b"\x16\x03\x01\x02\x00\x01\x00", b"hello\r\n\r\n", b"\0" * 99)),
    "two lengths": (
        500,
        lambda: cycle(post(b"{}").replace(b"content-length", b"transfer-encoding: chunked\r\n"
                                          b"content-length")),
    ),
    "damaged Arrow": (500, lambda: cycle(post(b"\xff\xff\xff\xff\x10\x27\0\0" * 90, ARROW))),
    "a compressed bomb": (50, lambda: cycle(post(bomb(), ARROW))),
}  # fmt: skip


class Good:
    """A good client, and what its scores must be."""

    def __init__(self, run: Any, port: int) -> None:
        self.port, rows = port, rows_of(8, 4)
        self.body = json.dumps({"rows": rows})
        self.wanted = run.predict(rows)

    def score(self) -> float:
        """The seconds of one right answer."""
        begun = time.perf_counter()
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        client.request("POST", "/score", self.body, {"content-type": "application/json"})
        got = json.loads(client.getresponse().read())
        client.close()
        assert np.abs(np.array(got["scores"]) - self.wanted).max() < 2e-6, got
        return time.perf_counter() - begun


@contextmanager
def watched(running: Process) -> Iterator[Callable[[], int]]:
    """Watch the server's memory; gives what returns the most bytes so far."""
    most, over = [running.resident], threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            most[0] = max(most[0], running.resident)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield lambda: most[0]
    finally:
        over.set()
        thread.join()


def volley(port: int, sent: Sequence[bytes], seconds: float = 30) -> Counter[str]:
    """Send each of some bytes on a connection of its own, together; count the answers."""
    told: Counter[str] = Counter()
    poll = select.epoll()
    left: dict[int, tuple[socket.socket, memoryview, bytes]] = {}
    for data in sent:
        sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        sock.setblocking(False)
        left[sock.fileno()] = sock, memoryview(data), b""
        poll.register(sock.fileno(), select.EPOLLIN | (select.EPOLLOUT if data else 0))
    end = time.monotonic() + seconds
    while left and time.monotonic() < end:
        for file, event in poll.poll(1):
            sock, data, got = left[file]
            over = False
            if event & select.EPOLLOUT:
                try:
                    data = data[sock.send(data[: 1 << 16]) :]
                except BlockingIOError:
                    pass
                except OSError:
                    data = data[:0]
                if not data:
                    poll.modify(file, select.EPOLLIN)
            if event & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                try:
                    part = sock.recv(65536)
                    got += part
                    over = not part or _is_whole(got)
                except BlockingIOError:
                    pass
                except OSError:
                    over = True
            left[file] = sock, data, got
            if over:
                told[got[9:12].decode() if got else "no answer"] += 1
                poll.unregister(file)
                sock.close()
                del left[file]
    for sock, _, got in left.values():
        told[got[9:12].decode() if got else "still open"] += 1
        sock.close()
    return told


def _is_whole(got: bytes) -> bool:
    """Whether an answer is there with its body."""
    head, between, body = got.partition(b"\r\n\r\n")
    place = head.lower().find(b"content-length:")
    return bool(between) and place > 0 and len(body) >= int(head[place + 15 :].split(b"\r")[0])


def held(
    port: int, count: int, good: Good | None, *, drip: bool
) -> tuple[Counter[str], list[float]]:
    """Many connections at once, idle or a byte now and then; good requests beside, if asked."""
    request = post(b'{"rows": []}')
    socks: list[socket.socket] = []
    told: Counter[str] = Counter()
    times: list[float] = []
    for place in range(count):
        try:
            socks.append(socket.create_connection(("127.0.0.1", port), timeout=30))
        except OSError:
            told["refused by the system"] += 1
        if good is not None and place % 500 == 0:
            times.append(good.score())
    for place, sock in enumerate(socks):
        sock.setblocking(False)
        if drip:
            with suppress(OSError):
                sock.send(request[:1])
        if good is not None and place % 2000 == 0:
            times.append(good.score())
    end = time.monotonic() + READ_SECONDS + 6
    turn = 1
    waiting = dict.fromkeys(range(len(socks)), b"")
    while waiting and time.monotonic() < end:
        for place in list(waiting):
            sock = socks[place]
            try:
                if drip and turn < 4:
                    sock.send(request[turn : turn + 1])
                part = sock.recv(4096)
            except BlockingIOError:
                continue
            except OSError:
                part = b""
            if part:
                waiting[place] += part
                continue
            got = waiting.pop(place)
            told[got[9:12].decode() if got else "closed"] += 1
        turn += 1
        if good is not None:
            times.append(good.score())
        time.sleep(0.3)
    told["still open"] += len(waiting)
    for sock in socks:
        sock.close()
    return +told, times


def measure(words: argparse.Namespace, record: dict[str, Any], save: Callable[[], None]) -> None:
    """All attacks, one after another, on one server."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    runs, port = runs_of(words.work), free_port()
    run = bitfold.load(runs / "a")
    most = min(words.connections, hard - 500)
    command = bitfold_server(runs / "a", port, "--read-seconds", READ_SECONDS)
    command += ["--connections", most]
    found: list[dict[str, Any]] = []
    record["attack"] = found
    with server(command, port, words.work / "attack.log") as running:
        good = Good(run, port)
        good.score()
        before = running.resident
        found.append({"name": "before", "count": 0, "answers": {}, "peak": before})
        for name, (count, made) in ATTACKS.items():
            requests = made()
            told: Counter[str] = Counter()
            with watched(running) as peak:
                for _ in range(0, count, BATCH):
                    size = min(BATCH, count - sum(told.values()))
                    told += volley(port, [next(requests) for _ in range(size)])
                seconds = [good.score()]
                found.append(_line(name, count, told, peak(), seconds))
            print(found[-1], flush=True)
            save()
        few, many = most - 50, most + 500
        for name, count, drip, beside in (
            ("idle connections", few, False, good),
            ("a byte now and then", few, True, good),
            ("idle connections, more than may be open", many, False, None),
        ):
            with watched(running) as peak:
                told, seconds = held(port, count, beside, drip=drip)
                seconds.append(good.score())
                found.append(_line(name, count, told, peak(), seconds))
            print(found[-1], flush=True)
            save()
        time.sleep(1)
        found.append(_line("after", 0, Counter(), running.resident, [good.score()]))
    save()


def _line(
    name: str, count: int, told: Counter[str], peak: int, seconds: Sequence[float]
) -> dict[str, Any]:
    return {
        "name": name, "count": count, "answers": dict(sorted(told.items())), "peak": peak,
        "good": max(seconds), "good_requests": len(seconds),
    }  # fmt: skip


def table(found: Sequence[dict[str, Any]]) -> str:
    """A line an attack."""
    heads = [
        "attack",
        "connections",
        "answers",
        "MiB at most",
        "good requests beside",
        "slowest, s",
    ]
    lines = []
    for each in found:
        answers = ", ".join(f"{status}: {count:,}" for status, count in each["answers"].items())
        good = [f"{each['good_requests']}", f"{each['good']:.3f}"] if "good" in each else ["", ""]
        count = f"{each['count']:,}" if each["count"] else ""
        lines.append([each["name"], count, answers, f"{each['peak'] / 2**20:,.0f}", *good])
    return markdown(heads, lines)
