"""Connections: right requests in any pieces, and every way that a client may misbehave."""

import contextlib
import json
import re
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfold.service.tables import ARROW
from served import JSON, Fake, Served, bodies, eventually, serving, until_closed

ROW = {"user": 1, "item": "a"}
BODY = json.dumps({"rows": [ROW]}).encode()


def post(body: bytes = BODY, *headers: str, path: str = "/score") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: x", "content-type: application/json", *headers]
    lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def statuses(answer: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(Fake(), body_bytes=10_000, rows=100, read_seconds=1.0) as each:
        yield each


def test_scores_and_the_run_that_gave_them(served: Served) -> None:
    got = served.score([ROW, {"user": 2}])
    assert got.status == 200
    assert got.json == {"scores": [Fake().of(ROW), Fake().of({"user": 2})], "run": "a" * 64}
    assert got.headers["bitfold-run"] == "a" * 64
    assert not re.search(r"\d", got.headers["server"])
    assert served.score([]).json["scores"] == []


@pytest.mark.parametrize("body", [[ROW], ROW, {"rows": [ROW]}])
def test_rows_come_in_three_forms(served: Served, body: Any) -> None:
    got = served.ask(
        "POST",
        "/score",
        json.dumps(body),
        JSON | {"content-type": "Application/JSON; charset=utf-8"},
    )
    assert got.json["scores"] == [Fake().of(ROW)]


def test_what_a_balancer_asks(served: Served) -> None:
    assert served.ask("GET", "/health").json["status"] == "alive"
    assert served.ask("GET", "/ready").json == {"status": "ready", "run": "a" * 64}
    head = served.ask("HEAD", "/ready")
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["content-length"]) > 0


def test_a_server_without_a_model_lives_and_is_not_ready() -> None:
    with serving() as served:
        assert served.ask("GET", "/health").status == 200
        assert served.ask("GET", "/ready").status == 503
        got = served.score([ROW])
        assert (got.status, got.headers["retry-after"]) == (503, "1")


def test_requests_come_in_any_pieces(served: Served) -> None:
    with served.connect() as sock:
        for place in range(0, len(post()), 7):
            sock.sendall(post()[place : place + 7])
            time.sleep(0.002)
        assert b"200 OK" in sock.recv(4096)
    chunked = post().replace(b"content-length: %d" % len(BODY), b"transfer-encoding: chunked")
    head, _, body = chunked.partition(b"\r\n\r\n")
    pieces = b"".join(b"1;more=x\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    assert statuses(served.raw(head + b"\r\n\r\n" + pieces)) == [200]


def test_requests_sent_ahead_are_answered_in_order(served: Served) -> None:
    asked = [json.dumps({"rows": [{"user": user}]}).encode() for user in range(40)]
    sent = b"".join(post(body) + b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n" for body in asked)
    got = served.raw(sent, 80)
    assert statuses(got) == [200] * 80
    scores = [json.loads(body)["scores"] for body in bodies(got)[::2]]
    assert scores == [[Fake().of({"user": user})] for user in range(40)]


@pytest.mark.parametrize("cut", [0, len(post()) - len(BODY), 30])
def test_requests_behind_one_that_comes_in_two_pieces_are_answered(
    served: Served, cut: int
) -> None:
    sent = post() + b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n" * 100
    with served.connect() as sock:
        sock.sendall(sent[:cut])
        time.sleep(0.05)
        sock.sendall(sent[cut:])
        got = b""
        while len(bodies(got)) < 101:
            got += sock.recv(65536)
    assert statuses(got) == [200] * 101


def test_requests_sent_ahead_are_not_all_held() -> None:
    with serving(Fake(seconds=1.0)) as slow, slow.connect() as sock:
        sock.sendall(post() * 40)
        most = 0
        for _ in range(50):
            time.sleep(0.01)
            most = max(most, *(len(c._messages) for c in slow.server._connections.connections))
        assert most <= 3


def test_another_protocol_ends_the_connection(served: Served) -> None:
    hello = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
    with served.connect() as sock:
        sock.sendall(hello + post()[: -len(BODY)])
        time.sleep(0.1)
        with contextlib.suppress(ConnectionError):
            sock.sendall(post(b"{}", path="/reload"))
        assert statuses(until_closed(sock)) == [200]


def test_requests_sent_ahead_may_be_longer_than_a_head(served: Served) -> None:
    sent = post(json.dumps({"rows": [{"user": "x" * 1000}]}).encode()) * 60
    with served.connect() as sock:
        sock.sendall(sent[:500])
        for place in range(500, len(sent), 20_000):  # while others are at work
            sock.sendall(sent[place : place + 20_000])
        got = b""
        while len(bodies(got)) < 60:
            got += sock.recv(65536)
    assert statuses(got) == [200] * 60


def test_a_connection_ends_when_its_client_says_so(served: Served) -> None:
    for sent in (post(BODY, "connection: close"), post().replace(b"1.1", b"1.0")):
        assert re.match(rb"HTTP/1.[01] 200 ", served.raw(sent, 2))


def test_a_body_is_asked_for(served: Served) -> None:
    head, _, body = post(BODY, "expect: 100-continue").partition(b"\r\n\r\n")
    with served.connect() as sock:
        sock.sendall(head + b"\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 100 ")
        sock.sendall(body)
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_nothing_else_is_expected(served: Served) -> None:
    head = post(BODY, "expect: wonders").partition(b"\r\n\r\n")[0]
    assert statuses(served.raw(head + b"\r\n\r\n")) == [417]


LONG = "x" * 200_000


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),  # to no host
        (b"GET /health HTTP/2.0\r\nhost: x\r\nconnection: close\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (f"GET / HTTP/1.1\r\nx: {LONG}\r\n\r\n".encode(), 431),
        (f"GET / HTTP/1.1\r\nx: {LONG}".encode(), 431),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 8000, 431),
        (b"GET / HTTP/1.1\r\n" + b"x: %b\r\n" % (b"y" * 1000) * 40, 431),
        (post(BODY, "content-length: 3"), 400),  # two lengths
        (post().replace(b"host: x", b"host : x"), 400),
        (post().replace(b"host: x", b"host: x\r\n y"), 400),
        (post().replace(b"content-length: ", b"content-length: +"), 400),
        (post().replace(b"content-length: ", b"transfer-encoding: gzip\r\nx: "), 400),
    ],
)
def test_what_is_no_request_is_refused_and_cut_off(
    served: Served, sent: bytes, status: int
) -> None:
    got = served.raw(sent, 2)
    assert statuses(got) == [status]
    assert b"connection: close" in got
    assert served.settled()


def test_a_head_without_end_is_cut_off(served: Served) -> None:
    with served.connect() as sock, contextlib.suppress(ConnectionError):
        for _ in range(10_000):
            sock.sendall(b"GET /" + b"x" * 40_000)
        raise AssertionError("the server read without end")
    assert served.settled()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n", 404),
        (b"GET /../../etc/passwd HTTP/1.1\r\nhost: x\r\n\r\n", 404),
        (b"GET /score HTTP/1.1\r\nhost: x\r\n\r\n", 405),
        (b"PUT /score HTTP/1.1\r\nhost: x\r\n\r\n", 405),
        (b"POST /health HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n", 405),
        (b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n", 404),
        (post(BODY, "content-encoding: gzip"), 415),
        (post().replace(b"application/json", b"text/plain"), 415),
        (post().replace(b"content-type: application/json\r\n", b""), 415),
        (post(BODY, "content-type: text/plain"), 400),  # two of them
        (post(BODY, "origin: https://elsewhere.example"), 403),
        (post(BODY, "origin: http://["), 403),
        (post(b"x" * 10_001), 413),
        (post(b"", "transfer-encoding: chunked").replace(b"content-length: 0\r\n", b"")
         + b"2710\r\n" + b"x" * 10_000 + b"\r\n" + b"1\r\nx\r\n", 413),
        (post(b'{"rows": [{"user": NaN}]}'), 400),
        (post(b'{"rows": [{"user": {}}]}'), 422),
        (post(b"[" * 9_000), 422),
        (post(b'[{"user": "wrong"}]'), 422),
        (post(json.dumps([{}] * 101).encode()), 413),
        (post(b"{}", path="/reload").replace(b"{}", b"{x"), 400),
        (post(b'{"more": 1}', path="/reload"), 422),
        (post(b'{"run": "x"}', path="/reload"), 422),
    ],
)  # fmt: skip
def test_each_mistake_has_one_clear_answer(served: Served, sent: bytes, status: int) -> None:
    got = served.raw(sent)
    assert statuses(got) == [status]
    error = json.loads(got.partition(b"\r\n\r\n")[2])["error"]
    assert error["status"] == status
    assert error["problem"]
    assert b"Traceback" not in got
    assert b"nowhere" not in got
    assert served.settled()


WHOLE = (
    post() + b"GET /ready HTTP/1.1\r\nhost: x\r\naccept: */*\r\n\r\n"
    + post(b"[{}]", "connection: close")
)  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, len(WHOLE)), st.binary(max_size=6)), max_size=4))
def test_damaged_requests_are_answered_or_refused(served: Served, damage: Any) -> None:
    sent = bytearray(WHOLE)
    for place, junk in damage:
        sent[place : place + len(junk)] = junk
    with served.connect() as sock:
        sock.sendall(sent)
        # What is not whole is waited for.
        found = statuses(until_closed(sock, 0.1 if damage else None))
    assert all(200 <= status < 500 or status == 505 for status in found)
    # A length that is damaged makes another request of a body.
    assert len(found) <= 3 + len(damage) + sum(junk.count(b"\n") for _, junk in damage)
    if not damage:
        assert found == [200] * 3


def test_scores_as_arrow_are_asked_for(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    got = served.score([ROW], accept=f"application/json;q=0.5, {ARROW}")
    assert pa.ipc.open_stream(got.body).read_all()["score"].to_pylist() == [Fake().of(ROW)]
    assert (got.headers["content-type"], got.headers["bitfold-run"]) == (ARROW, "a" * 64)
    monkeypatch.setattr("bitfold.service.app.find_spec", lambda name: None)
    assert served.score([ROW], accept=ARROW).status == 406
    assert served.score([ROW], accept="*/*").status == 200


def test_a_fault_of_ours_tells_a_client_nothing(served: Served, capsys: Any) -> None:
    got = served.score([{"user": "fault"}])
    assert got.status == 500
    assert b"secret" not in got.body
    assert served.score([ROW]).status == 200


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"", []),
        (b"GET /hea", []),
        (b"POST /score HTTP/1.1\r\nhost: x\r\nx: ", []),
        (post()[:-5], [408]),
    ],
)
def test_a_slow_client_is_cut_off(served: Served, sent: bytes, told: list[int]) -> None:
    begun = time.monotonic()
    with served.connect() as sock:
        sock.sendall(sent)
        assert statuses(until_closed(sock)) == told
    assert time.monotonic() - begun < 8
    assert served.settled()


@pytest.mark.parametrize(("whole", "told"), [(10, []), (len(post()) - len(BODY), [408])])
def test_a_client_that_drips_is_cut_off(served: Served, whole: int, told: list[int]) -> None:
    with served.connect() as sock, contextlib.suppress(ConnectionError):
        sock.sendall(post()[:whole])
        got = b""
        sock.settimeout(0.1)
        end = time.monotonic() + 8
        for byte in post()[whole:-1]:
            assert time.monotonic() < end
            sock.sendall(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                got = sock.recv(4096)
                break
        assert statuses(got) == told
    assert served.settled()


def test_a_client_that_takes_no_answers_is_cut_off(served: Served) -> None:
    with served.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(0.5)
        sent = 0
        try:
            for _ in range(20_000):
                sock.sendall(b"GET /page.js HTTP/1.1\r\nhost: x\r\n\r\n" * 100)
                sent += 1
        except OSError:
            pass
        assert sent < 20_000, "the server read without end"
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # then the kernel cuts it off
            assert eventually(lambda: sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    assert served.settled()


def test_a_refused_body_need_not_be_sent(served: Served) -> None:
    head = post().partition(b"\r\n\r\n")[0].replace(b"%d" % len(BODY), b"99999999999")
    with served.connect() as sock:
        sock.sendall(head + b"\r\n\r\n")
        assert statuses(until_closed(sock)) == [413]


@pytest.mark.parametrize(
    "sent",
    [
        post(BODY)[:-3],
        post().replace(b"content-length: 36", b"transfer-encoding: chunked")[:-36]
        + b"24\r\n" + BODY + b"\r\nzz",
    ],
)  # fmt: skip
def test_a_body_that_breaks_off_is_not_scored(served: Served, sent: bytes) -> None:
    with served.connect() as sock:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        assert statuses(until_closed(sock)) in ([400], [])
    assert served.settled()


def test_a_refused_body_may_be_sent_and_the_answer_is_read(served: Served) -> None:
    assert statuses(served.raw(post(b"x" * 900_000))) == [413]


def test_clients_that_go_leave_nothing_behind(served: Served) -> None:
    for sent in (post()[:-3], post(), b"GET /", post() * 20):
        for _ in range(20):
            sock = served.connect()
            sock.sendall(sent)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()  # with a reset
    assert served.settled()
    assert served.score([ROW]).status == 200


def test_connections_are_bounded_and_more_wait() -> None:
    with serving(Fake(), connections=20, read_seconds=1.0) as served:
        socks = [served.connect() for _ in range(60)]
        for sock in socks:
            sock.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        time.sleep(0.3)
        told, _, _ = select.select(socks, [], [], 0)
        assert len(told) == 20
        for sock in socks:  # an idle one is closed after a second, and another takes its place
            assert statuses(until_closed(sock)) == [200]
            sock.close()
        assert served.score([ROW]).status == 200
        assert served.settled()


def test_what_a_client_that_went_away_asked_is_given_up() -> None:
    scorer = Fake(seconds=0.3)
    body = json.dumps([ROW] * 9000).encode()
    with serving(scorer) as served:
        for _ in range(5):
            with served.connect() as sock:
                sock.sendall(post(body))
                assert eventually(lambda: served.app.batcher.waiting > 0)
        assert served.settled()
        assert sum(scorer.asked) < 9000
        assert served.score([ROW]).status == 200


def test_rows_that_wait_are_bounded() -> None:
    with serving(Fake(seconds=0.2), waiting_rows=20, rows=5) as served:
        found: list[int] = []

        def ask() -> None:
            got = served.score([ROW] * 5)
            found.append(got.status)
            if got.status == 429:
                assert got.headers["retry-after"] == "1"

        threads = [threading.Thread(target=ask) for _ in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(found) == {200, 429}
        assert served.score([ROW]).status == 200
        assert served.settled()


TOKEN = "a-token-of-ours"


def test_a_token_is_asked_for() -> None:
    with serving(Fake(), token=TOKEN) as served:
        for path in ("/health", "/ready", "/", "/page.js", "/page.css"):
            assert served.ask("GET", path).status == 200
        for wrong in ({}, {"authorization": "Bearer x"}, {"authorization": f"Basic {TOKEN}"},
                      {"authorization": TOKEN}, {"authorization": "Bearer \xe9"}):  # fmt: skip
            for method, path in (
                ("GET", "/metrics"),
                ("GET", "/openapi.json"),
                ("POST", "/reload"),
            ):
                got = served.ask(method, path, None, wrong)
                assert (got.status, got.headers["www-authenticate"]) == (401, "Bearer")
            assert served.score([ROW], **wrong).status == 401
        right = {"authorization": f"Bearer {TOKEN}"}
        assert served.score([ROW], **right).status == 200
        assert served.ask("GET", "/metrics", None, right).status == 200


def test_metrics_count_what_happened() -> None:
    with serving(Fake()) as served:
        for _ in range(3):
            served.score([ROW, ROW])
        served.ask("GET", "/no")
        text = served.ask("GET", "/metrics").body.decode()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines['bitfold_requests_total{path="/score",status="200"}'] == "3.0"
    assert lines['bitfold_requests_total{path="other",status="404"}'] == "1.0"
    assert lines["bitfold_rows_total"] == "6.0"
    assert lines["bitfold_request_seconds_count"] == "3.0"
    assert lines['bitfold_batch_rows_bucket{le="2.0"}'] == "3.0"
    assert lines["bitfold_waiting_rows"] == "0.0"
    assert lines[f'bitfold_model_info{{run="{"a" * 64}"}}'] == "1.0"


def test_the_description_has_the_columns_and_every_path(served: Served) -> None:
    found = served.ask("GET", "/openapi.json").json
    assert found["openapi"].startswith("3.1")
    assert list(found["components"]["schemas"]["Row"]["properties"]) == ["user", "item"]
    assert set(found["paths"]) == {"/score", "/reload", "/health", "/ready", "/metrics"}
    refs = [part.split('"')[0] for part in json.dumps(found).split("#/components/schemas/")[1:]]
    assert set(refs) <= set(found["components"]["schemas"])


def test_requests_are_logged_when_asked_without_what_they_hold(capfd: Any) -> None:
    with serving(Fake(), access_log=True, token=TOKEN) as served:
        served.score([{"user": "private"}], authorization=f"Bearer {TOKEN}")
        served.ask("GET", "/no%0a?private=1")
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    told = [(line["method"], line["path"], line["status"]) for line in lines]
    assert told == [("POST", "/score", 200), ("GET", "/no\n", 404)]
    assert "private" not in json.dumps(lines)
    assert TOKEN not in json.dumps(lines)
