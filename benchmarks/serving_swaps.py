"""Hot swaps and deltas under load, with clients that are killed: every answer is held to its run.

One loop of epoll plays all clients and the operator, so that what was asked before or after a swap
is known exactly. An answer names its run. It must be one that may answer: none that was replaced
before the request was sent, none that nobody asked for. All its scores must be that run's.
"""

import argparse
import itertools
import json
import random
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from serving_parts import bitfold_server, free_port, rows_of, runs_of, server
from tables import markdown

import bitfold

POOL, CLIENTS, KILLED = 4000, 32, 0.01
DELTA_EACH = 6  # of so many swaps one is made by a delta, the others by the name of a run
TOKEN = "the-token-of-the-benchmark"
SIZES = (1, 1, 1, 3, 8, 32, 600)
NEAR = 2e-6


def _request(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    head += f"authorization: Bearer {TOKEN}\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def deltas_of(runs: Path, names: list[str]) -> dict[tuple[str, str], bytes]:
    """What changed from each run to each other one."""
    found = {}
    for pair in itertools.permutations(names, 2):
        made = bitfold.delta(*(runs / name for name in pair), runs.parent / "a.delta", force=True)
        found[pair] = made.path.read_bytes()
    return found


@dataclass
class Client:
    """One connection, and what it waits for."""

    sock: socket.socket
    got: bytes = b""
    asked: tuple[int, int] = (0, 0)  # first row and rows; for the operator unused
    after: int = 0  # swaps that were done when the request was sent


@dataclass
class Tally:
    """What became of the requests."""

    answers: int = 0
    rows: int = 0
    kills: int = 0
    swaps: int = 0
    deltas: int = 0
    errors: int = 0
    stale: int = 0
    mixed: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    digests: dict[str, int] = field(default_factory=dict)
    swap_seconds: list[float] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)


class Play:
    """Clients, the operator and the truth.

    Args:
        port: of the server, which begins with the first run.
        runs: a folder of runs.
        requests: answers to wait for.
        swaps: spread evenly over them.
        seed: of everything random.
    """

    def __init__(self, port: int, runs: Path, requests: int, swaps: int, seed: int = 0) -> None:
        self.port, self.requests, self.swaps = port, requests, swaps
        self.draw = random.Random(seed)
        self.names = sorted(each.name for each in runs.iterdir())
        rows = rows_of(POOL, 2)
        loaded = {name: bitfold.load(runs / name) for name in self.names}
        self.deltas = deltas_of(runs, self.names)
        self.digest = {name: run.scorer().digest for name, run in loaded.items()}
        self.truth = {
            self.digest[name]: run.predict(rows).astype(np.float64) for name, run in loaded.items()
        }
        scores = list(self.truth.values())
        apart = min(
            float(np.median(np.abs(one - two)))
            for k, one in enumerate(scores)
            for two in scores[:k]
        )
        assert apart > 100 * NEAR, f"the runs score alike ({apart}): a mix could not be told"
        self.parts: list[tuple[tuple[int, int], bytes]] = []
        for size in SIZES:
            for _ in range(40):
                first = self.draw.randrange(POOL - size + 1)
                body = json.dumps({"rows": rows[first : first + size]}).encode()
                self.parts.append(((first, size), _request("/score", body)))
        self.poll = select.epoll()
        self.clients: dict[int, Client] = {}
        self.tally = Tally()
        # The run that answers after each swap; the last one may be on its way.
        self.order = [self.names[0]]
        self.done = 0
        self.begun = 0.0

    def connect(self) -> Client:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = Client(sock)
        self.clients[sock.fileno()] = client
        self.poll.register(sock.fileno(), select.EPOLLIN)
        return client

    def drop(self, client: Client) -> None:
        self.poll.unregister(client.sock.fileno())
        del self.clients[client.sock.fileno()]
        # A reset, as of a process that was killed.
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.sock.close()

    def ask(self, client: Client) -> None:
        """Send a request; some clients are killed in the middle of one or before its answer."""
        while self.draw.random() < KILLED:
            _, request = self.draw.choice(self.parts)
            client.sock.sendall(request[: self.draw.randrange(len(request) + 1)])
            self.drop(client)
            self.tally.kills += 1
            client = self.connect()
        client.asked, request = self.draw.choice(self.parts)
        client.after, client.got = self.done, b""
        client.sock.sendall(request)

    def swap(self, operator: Client) -> None:
        name = self.draw.choice([each for each in self.names if each != self.order[-1]])
        before = self.order[-1]
        self.order.append(name)
        self.begun = time.perf_counter()
        operator.got = b""
        if len(self.order) % DELTA_EACH == 0:
            self.tally.deltas += 1
            operator.sock.sendall(_request("/delta", self.deltas[before, name]))
        else:
            operator.sock.sendall(_request("/reload", json.dumps({"run": name}).encode()))

    def judge(self, client: Client, status: int, body: bytes) -> None:
        tally = self.tally
        tally.statuses[str(status)] = tally.statuses.get(str(status), 0) + 1
        if status != 200:
            tally.errors += 1
            self.note(body[:300].decode("utf-8", "replace"))
            return
        found = json.loads(body)
        digest, scores = found["run"], np.array(found["scores"])
        first, size = client.asked
        tally.answers += 1
        tally.rows += size
        tally.digests[digest] = tally.digests.get(digest, 0) + 1
        allowed = {self.digest[name] for name in self.order[client.after :]}
        if digest not in allowed:
            tally.stale += 1
            self.note(f"{digest[:12]} of {len(self.order)} swaps, asked after {client.after}")
        wanted = self.truth.get(digest)
        if (
            wanted is None
            or scores.shape != (size,)
            or (np.abs(scores - wanted[first : first + size]).max() > NEAR)
        ):
            tally.mixed += 1
            self.note(f"scores of {digest[:12]} differ")

    def note(self, text: str) -> None:
        if len(self.tally.examples) < 10:
            self.tally.examples.append(text)

    def play(self, told: Callable[[Tally], None]) -> Tally:
        operator = self.connect()
        for _ in range(CLIENTS):
            self.ask(self.connect())
        tally, swapping, next_told = self.tally, False, 0
        while tally.answers + tally.errors < self.requests:
            due = self.swaps * (tally.answers + tally.errors) / self.requests
            if not swapping and len(self.order) - 1 < due:
                self.swap(operator)
                swapping = True
            ready = self.poll.poll(30)
            if not ready:
                raise RuntimeError("the server is silent")
            for file, _ in ready:
                client = self.clients.get(file)
                if client is None:
                    continue
                try:
                    data = client.sock.recv(1 << 18)
                except ConnectionError:
                    data = b""
                if not data:
                    tally.errors += 1
                    self.note("a connection was closed before its answer")
                    self.drop(client)
                    self.ask(self.connect())
                    continue
                client.got += data
                head, between, body = client.got.partition(b"\r\n\r\n")
                if not between:
                    continue
                place = head.lower().find(b"content-length:")
                if len(body) < int(head[place + 15 :].split(b"\r\n")[0]):
                    continue
                status = int(head[9:12])
                if client is operator:
                    swapping = False
                    tally.swaps += 1
                    tally.swap_seconds.append(time.perf_counter() - self.begun)
                    if status != 200 or json.loads(body)["run"] != self.digest[self.order[-1]]:
                        tally.errors += 1
                        self.note(body[:300].decode("utf-8", "replace"))
                    self.done = len(self.order) - 1
                    operator.got = b""
                    continue
                self.judge(client, status, body)
                self.ask(client)
            if tally.answers >= next_told:
                told(tally)
                next_told += max(1, self.requests // 20)
        for client in list(self.clients.values()):
            self.drop(client)
        return tally


def measure(words: argparse.Namespace, record: dict[str, Any], save: Callable[[], None]) -> None:
    """Play, and record what came of it."""
    port = free_port()
    runs = runs_of(words.work)
    play_words = (port, runs, int(words.requests), words.swaps)
    (words.work / "token").write_text(TOKEN)
    more = ("--runs", runs, "--token-file", words.work / "token", "--deltas", words.work / "deltas")
    command = bitfold_server(runs / "a", port, *more)
    begun = time.monotonic()
    with server(command, port, words.work / "swaps.log") as running:
        play = Play(*play_words)
        before = running.resident
        tally = play.play(lambda each: print(each.answers, each.swaps, each.errors, flush=True))
        after = running.resident
    seconds = sorted(tally.swap_seconds) or [0.0]
    found = {
        "requests": tally.answers, "rows": tally.rows, "swaps": tally.swaps,
        "deltas": tally.deltas, "kills": tally.kills,
        "errors": tally.errors, "stale": tally.stale, "mixed": tally.mixed,
        "statuses": tally.statuses, "runs": len(tally.digests),
        "swap_p50": seconds[len(seconds) // 2], "swap_longest": seconds[-1],
        "resident_before": before, "resident_after": after,
        "seconds": time.monotonic() - begun, "examples": tally.examples,
    }  # fmt: skip
    record["swaps"] = found
    save()


def table(found: dict[str, Any]) -> str:
    """The outcome in one line."""
    heads = [
        "requests", "rows", "swaps", "of them by deltas", "killed clients", "errors", "stale",
        "mixed", "seconds a swap, median", "longest", "MiB before", "after",
    ]  # fmt: skip
    counts = ("requests", "rows", "swaps", "deltas", "kills", "errors", "stale", "mixed")
    line = [f"{found.get(name, 0):,}" for name in counts]
    line += [f"{found['swap_p50']:.2f}", f"{found['swap_longest']:.2f}"]
    line += [f"{found[name] / 2**20:,.0f}" for name in ("resident_before", "resident_after")]
    return markdown(heads, [line])
