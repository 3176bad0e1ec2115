"""Many clients in one cheap process: requests over kept connections, and how long they took.

One loop of epoll and raw sockets, since an HTTP library's client costs more than the server that
it measures. With a rate, requests are due at fixed times, and time runs from when one was due: a
server that stalls is not let off the requests that had to wait.
"""

import select
import socket
import time
from pathlib import Path
from typing import Any

from process import answer

_CLOCK = time.perf_counter


class Client:
    """One kept connection with at most one request on the way."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.got = b""
        self.since = 0.0
        self.busy = False

    def send(self, request: bytes, since: float) -> None:
        self.since, self.busy = since, True
        left = request
        while left:
            try:
                left = left[self.sock.send(left) :]
            except BlockingIOError:
                select.select([], [self.sock], [], 1)

    def read(self) -> int | None:
        """The status of the answer, once it is whole."""
        data = self.sock.recv(1 << 18)
        if not data:
            raise ConnectionError("closed")
        self.got = data = self.got + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = data[:end].lower()
        place = head.find(b"content-length:")
        if place < 0:
            raise ValueError(f"an answer without a length: {head[:200]!r}")
        length = int(head[place + 15 :].split(b"\r\n", 1)[0])
        if len(data) < end + 4 + length:
            return None
        self.got = b""
        self.busy = False
        return int(data[9:12])


def load(settings: dict[str, Any]) -> dict[str, Any]:
    """Requests for some seconds by some clients; at a rate, or as fast as answers come."""
    requests = [
        f"POST {settings['path']} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n".encode()
        + body
        for body in (line.encode() for line in Path(settings["bodies"]).read_text().splitlines())
    ]
    clients = [Client(settings["port"]) for _ in range(settings["clients"])]
    by_file = {each.sock.fileno(): each for each in clients}
    poll = select.epoll()
    for file in by_file:
        poll.register(file, select.EPOLLIN)
    rate = settings.get("rate")
    gap = len(clients) / rate if rate else 0.0
    begin = _CLOCK()
    counted = begin + settings["warm"]
    end = counted + settings["seconds"]
    due = [begin + gap * place / len(clients) for place in range(len(clients))]
    times: list[float] = []
    statuses: dict[int, int] = {}
    sent = 0

    def ask(client: Client, since: float) -> None:
        nonlocal sent
        client.send(requests[sent % len(requests)], since)
        sent += 1

    if not rate:
        for client in clients:
            ask(client, _CLOCK())
    now = begin
    while now < end:
        if rate:
            wait = max(0.0, min(due) - now)
            ready = poll.poll(min(wait, end - now))
        else:
            ready = poll.poll(end - now)
        now = _CLOCK()
        for file, _ in ready:
            client = by_file[file]
            status = client.read()
            if status is None:
                continue
            now = _CLOCK()
            if now >= counted:
                times.append(now - client.since)
                statuses[status] = statuses.get(status, 0) + 1
            if not rate:
                ask(client, now)
        if rate:
            for place, client in enumerate(clients):
                if not client.busy and due[place] <= now:
                    ask(client, due[place])
                    due[place] += gap
    for client in clients:
        client.sock.close()
    times.sort()
    counts = {str(status): count for status, count in sorted(statuses.items())}
    if not times:
        return {"missing": "no answer came", "statuses": counts}
    took = _CLOCK() - counted
    found = {f"p{share}": 1e3 * times[int(len(times) * share / 100)] for share in (50, 99)}
    return {
        "requests": len(times),
        "rate": len(times) / took,
        "longest": 1e3 * times[-1],
        "statuses": counts,
        **found,
    }


if __name__ == "__main__":
    answer(load)
