"""`bitfold serve` as a user runs it: a process, a run, requests and signals."""

import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bitfold as package
from bitfold.service.tables import ARROW, PARQUET
from command import READING, TRAINING, bitfold, refused, write_ratings

ROWS = [
    {
        "user": f"u{place % 45}",
        "item": f"item {place % 30}",
        "age": 20 + place % 5 * 10,
        "hour": place % 24,
    }
    for place in range(150)
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, a and b, of one log."""
    folder = tmp_path_factory.mktemp("runs")
    log = write_ratings(folder / "log.csv")
    for seed, name in enumerate("ab"):
        words = ("--numeric", "hour", "--method", "hash", "--budget", "2x", "--seed", seed)
        got = bitfold("train", log, *READING, *TRAINING, *words, "--out", folder / name)
        assert got.code == 0, got.err
    return folder


class Process:
    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        client.request(method, path, body, named)
        got = client.getresponse()
        read = got.read()
        client.close()
        is_json = got.headers["content-type"] == "application/json"
        return got.status, json.loads(read) if is_json else read

    def score(self, rows: Any, **headers: str) -> tuple[int, Any]:
        body = json.dumps({"rows": rows})
        return self.ask("POST", "/score", body, content_type="application/json", **headers)


@contextmanager
def serve(*args: object, **environment: str) -> Iterator[Process]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bitfold", "serve", *map(str, args), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+) \(run [0-9a-f]{12}\)", line)
        assert found, line + process.communicate()[1]
        yield Process(process, int(found[1]))
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def stopped(served: Process, number: int = signal.SIGTERM) -> list[dict[str, Any]]:
    """The log of a server that was asked to stop."""
    served.process.send_signal(number)
    _, err = served.process.communicate(timeout=60)
    assert served.process.returncode == 0, err
    return [json.loads(line) for line in err.splitlines()]


def test_a_run_is_served(runs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "a", run)
    expected = {name: package.load(runs / name).predict(ROWS) for name in "ab"}
    with serve(run, "--access-log") as served:
        status, got = served.score(ROWS)
        assert status == 200
        np.testing.assert_allclose(got["scores"], expected["a"], rtol=0, atol=1e-6)
        first = got["run"]
        for row, score in zip(ROWS[:5], expected["a"], strict=False):
            assert served.score([row])[1]["scores"] == pytest.approx([score], abs=1e-6)

        table = pa.Table.from_pylist(ROWS)
        stream, file = io.BytesIO(), io.BytesIO()
        with pa.ipc.new_stream(stream, table.schema) as writer:
            writer.write_table(table)
        pq.write_table(table, file)
        for kind, body in ((ARROW, stream.getvalue()), (PARQUET, file.getvalue())):
            _, got = served.ask("POST", "/score", body, content_type=kind)
            np.testing.assert_allclose(got["scores"], expected["a"], rtol=0, atol=1e-6)
            _, arrow = served.ask("POST", "/score", body, content_type=kind, accept=ARROW)
            answer = pa.ipc.open_stream(arrow).read_all()
            assert answer["score"].to_pylist() == got["scores"]
            assert answer.schema.metadata[b"bitfold.run"].decode() == first

        status, got = served.score([{"usr": 1}])
        assert (status, got["error"]["problem"]) == (422, "row 1 has no column 'user'")
        assert served.score(ROWS[:1])[0] == 200

        # Another run takes its place, and a damaged one does not.
        shutil.rmtree(run)
        shutil.copytree(runs / "b", run)
        status, got = served.ask("POST", "/reload")
        assert (status, got["before"], got["changed"]) == (200, first, True)
        _, got = served.score(ROWS)
        np.testing.assert_allclose(got["scores"], expected["b"], rtol=0, atol=1e-6)
        second = got["run"]
        shutil.rmtree(run)
        shutil.copytree(runs / "a", run)
        (run / "weights.safetensors").write_bytes(b"broken")
        status, got = served.ask("POST", "/reload")
        assert status == 422
        assert str(tmp_path) not in json.dumps(got)
        assert served.score(ROWS[:1])[1]["run"] == second
        log = stopped(served)
    events = [line["event"] for line in log if line["event"] != "note"]
    assert [each for each in events if each != "request"] == [
        "serving", "swapped", "swap refused", "stopping", "stopped",
    ]  # fmt: skip
    assert events.count("request") > 10


def test_an_exported_file_is_served_without_torch(runs: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    got = bitfold("export", runs / "a", "--to", "onnx", "--out", model, "--text")
    assert got.code == 0, got.err
    run = package.load(runs / "a")
    expected = run.predict(ROWS)
    with serve(model) as served:
        for _ in range(2):
            _, got = served.score(ROWS)
            assert got["run"] == run.digest
            np.testing.assert_allclose(got["scores"], expected, rtol=0, atol=1e-6)
            table = pa.Table.from_pylist(ROWS)
            sink = io.BytesIO()
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            _, got = served.ask("POST", "/score", sink.getvalue(), content_type=ARROW)
            np.testing.assert_allclose(got["scores"], expected, rtol=0, atol=1e-6)
            status, got = served.ask("POST", "/reload")
            assert (status, got["run"]) == (200, run.digest)
        maps = Path(f"/proc/{served.process.pid}/maps")
        assert not maps.is_file() or "libtorch" not in maps.read_text()
        stopped(served)


def test_a_stop_loses_no_request(runs: Path) -> None:
    with serve(runs / "a") as served:
        found: list[Any] = []
        begun = threading.Barrier(9)

        def ask() -> None:
            begun.wait()
            client = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
            body = json.dumps({"rows": ROWS * 20})
            while True:
                try:
                    client.request("POST", "/score", body, {"content-type": "application/json"})
                except (ConnectionError, http.client.CannotSendRequest):
                    break  # closed between two requests: nothing was accepted
                try:
                    got = client.getresponse()
                    found.append((got.status, len(json.loads(got.read())["scores"])))
                except (http.client.RemoteDisconnected, ConnectionError):
                    break
                if got.headers["connection"] == "close":
                    found.append("last")
                    break

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        begun.wait()
        time.sleep(0.5)
        stopped(served)
        for thread in threads:
            thread.join(60)
    answers = [each for each in found if each != "last"]
    assert set(answers) == {(200, 3000)}
    assert found.count("last") >= 1


def test_a_link_is_watched_and_a_token_asked_for(runs: Path, tmp_path: Path) -> None:
    link = tmp_path / "now"
    link.symlink_to(runs / "a")
    token = tmp_path / "token"
    token.write_text("a-token-of-ours\n")
    options = ("--watch", "--token-file", token, "--read-seconds", 600, "--stop-seconds", 1)
    with serve(link, *options, BITFOLD_TOKEN="another-token") as served:
        assert served.score(ROWS[:1])[0] == 401
        right = {"authorization": "Bearer a-token-of-ours"}
        first = served.score(ROWS[:1], **right)[1]["run"]
        (tmp_path / "new").symlink_to(runs / "b")
        (tmp_path / "new").replace(link)
        for _ in range(200):
            now = served.score(ROWS[:1], **right)[1]["run"]
            if now != first:
                break
            time.sleep(0.1)
        assert now != first
        # A client that sends half a request does not hold up the end.
        with socket.create_connection(("127.0.0.1", served.port)) as half:
            half.sendall(
                b"POST /score HTTP/1.1\r\nhost: x\r\nauthorization: Bearer a-token-of-ours\r\n"
                b"content-type: application/json\r\ncontent-length: 9\r\n\r\n{"
            )
            time.sleep(0.2)
            log = stopped(served, signal.SIGINT)
        assert log[-1]["event"] == "stopped"
        assert "a-token-of-ours" not in json.dumps(log)


def test_mistakes_are_told_before_anything_is_served(runs: Path, tmp_path: Path) -> None:
    refused(bitfold("serve", tmp_path / "no"), "no")
    (tmp_path / "file.onnx").write_bytes(b"x")
    refused(bitfold("serve", tmp_path / "file.onnx"))
    refused(bitfold("serve", runs / "a", "--runs", tmp_path / "no"), "--runs")
    refused(bitfold("serve", runs / "a", "--rows", 0), "rows")
    refused(bitfold("serve", runs / "a", "--token-file", tmp_path / "no"), "token")
    (tmp_path / "token").write_text("short")
    refused(bitfold("serve", runs / "a", "--token-file", tmp_path / "token"), "5 characters")
    refused(bitfold("serve", runs / "a", "--host", "no.such.host.invalid"), "address")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(bitfold("serve", runs / "a", "--port", port), "--port 0")
