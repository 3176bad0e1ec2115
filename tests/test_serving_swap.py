"""Another model takes the place of the one that answers: no request is lost, none is mixed."""

import http.client
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitfold.errors import BitfoldError
from bitfold.service.models import Models, Swap
from bitfold.service.sources import Source
from bitfold.service.watching import watch
from served import Fake, Served, eventually, serving, until_closed


def test_swaps_under_load_lose_and_mix_nothing() -> None:
    models = {name * 64: Fake(name) for name in "abcdef"}
    wrong: list[Any] = []
    answered: dict[str, int] = dict.fromkeys(models, 0)
    over = threading.Event()

    with serving(models["a" * 64], rows=2000) as served:

        def ask(number: int) -> None:
            turn = 0
            while not over.is_set():
                turn += 1
                # Now and then so many rows that they are scored in pieces, while models change.
                rows = [{"user": turn, "item": k} for k in range(1500 if turn % 9 == number else 3)]
                got = served.score(rows)
                model = models[got.json["run"]] if got.status == 200 else None
                if model is None or got.json["scores"] != [model.of(row) for row in rows]:
                    wrong.append(got)
                else:
                    answered[model.digest] += 1

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for turn in range(40):
            name = "abcdef"[turn % 6] * 64
            served.app.models.swap(lambda name=name: models[name])  # type: ignore[misc]
            # From here on nothing is stale.
            assert served.score([{"user": 1}]).json["run"] == name
            time.sleep(0.02)
        over.set()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert sum(count > 0 for count in answered.values()) > 1
        text = served.ask("GET", "/metrics").body.decode()
        assert 'bitfold_swaps_total{result="refused"} 0.0' in text
        assert text.count("bitfold_model_info{") == 1


def broken(kind: str) -> Any:
    class Broken(Fake):
        def scores(self, rows: Any) -> Any:
            if kind == "raises":
                raise BitfoldError("no scores")
            scores = super().scores(rows)
            return scores[:-1] if kind == "short" else scores * np.float32("nan")

    def load() -> Any:
        if kind == "load":
            raise BitfoldError("the new one is damaged")
        return Broken("b")

    return load


@pytest.mark.parametrize("kind", ["load", "raises", "short", "nan"])
def test_a_broken_model_leaves_the_old_one(kind: str) -> None:
    told: list[Any] = []
    models = Models(told.append)
    old = Fake()
    models.swap(lambda: old)
    with pytest.raises(BitfoldError):
        models.swap(broken(kind))
    assert models.current is old
    assert [type(each) for each in told] == [Swap, BitfoldError]


def test_the_old_model_answers_until_the_new_one_is_warm() -> None:
    seen: list[str] = []

    class Slow(Fake):
        def scores(self, rows: Any) -> Any:
            if len(self.asked) == 0:
                seen.append(served.score([{"user": 1}]).json["run"])
            return super().scores(rows)

    with serving(Fake("a")) as served:
        served.app.models.swap(lambda: Slow("b"))
        assert seen == ["a" * 64]
        assert served.score([{"user": 1}]).json["run"] == "b" * 64


def write(folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text(name)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are folders whose manifest is the name of a fake model."""

    def load(source: Source, current: Any = None) -> Any:
        def loaded() -> Any:
            name = (source.path / "manifest.json").read_text()
            if name == "bad":
                raise BitfoldError(f"{source.path}/weights.safetensors is damaged", got=source.path)
            return Fake(name)

        return loaded

    monkeypatch.setattr(Source, "loading", load)


def reload(served: Served, body: Any = None) -> Any:
    text = None if body is None else json.dumps(body)
    return served.ask("POST", "/reload", text)


@pytest.mark.usefixtures("fakes")
def test_reload_reads_the_path_again(tmp_path: Path) -> None:
    run = tmp_path / "the run"
    write(run, "a")
    with serving(Fake("a"), source=Source(run)) as served:
        write(run, "b")
        got = reload(served)
        assert got.status == 200
        assert (got.json["before"], got.json["run"]) == ("a" * 64, "b" * 64)
        assert got.json["changed"] is True
        assert reload(served).json["changed"] is False

        write(run, "bad")
        got = reload(served, {})
        assert got.status == 422
        assert got.json["error"]["problem"] == "weights.safetensors is damaged"
        assert str(tmp_path) not in got.body.decode()
        assert served.score([{"user": 1}]).json["run"] == "b" * 64
        assert served.ask("GET", "/ready").json["run"] == "b" * 64


@pytest.mark.usefixtures("fakes")
def test_a_client_names_runs_of_the_folder_alone(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    for name in "ab":
        write(runs / name, name)
    write(tmp_path / "secret", "c")
    (runs / "link").symlink_to(tmp_path / "secret")
    with serving(Fake("a"), source=Source(runs / "a", runs)) as served:
        assert reload(served, {"run": "b"}).json["run"] == "b" * 64
        for name in ("../secret", "link", "..", ".", "", "a/../../secret", str(tmp_path / "secret"),
                     "no", "a\0", ".hidden", "x" * 300):  # fmt: skip
            got = reload(served, {"run": name})
            assert got.status == 422, name
            assert str(tmp_path) not in got.json["error"]["problem"]
        assert served.score([{"user": 1}]).json["run"] == "b" * 64


def test_one_reload_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, begun = threading.Event(), threading.Event()

    def load(source: Source, current: Any = None) -> Any:
        def loaded() -> Any:
            begun.set()
            held.wait(10)
            return Fake("b")

        return loaded

    monkeypatch.setattr(Source, "loading", load)
    with serving(Fake("a"), source=Source(tmp_path)) as served:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(reload(served)))
        thread.start()
        assert begun.wait(10)
        assert reload(served).status == 409
        assert served.score([{"user": 1}]).json["run"] == "a" * 64
        held.set()
        thread.join()
        assert found[0].status == 200


async def looked(source: Source, changes: list[Any]) -> list[str]:
    """What a watcher loads while changes are made, each between two looks or later."""
    import asyncio

    loaded: list[str] = []

    async def take() -> None:
        loaded.append((source.path / "manifest.json").read_text())

    task = asyncio.ensure_future(watch(source, take, 0.02))
    for change in changes:
        await asyncio.sleep(0.15)
        change()
    await asyncio.sleep(0.3)
    assert not task.done()
    task.cancel()
    return loaded


def test_a_watcher_loads_what_changed(tmp_path: Path) -> None:
    import asyncio

    for name in "abc":
        write(tmp_path / name, name)
    link = tmp_path / "now"
    link.symlink_to("a")

    def point(name: str) -> None:
        new = tmp_path / "new"
        new.symlink_to(name)
        new.replace(link)

    changes = [lambda: point("b"), lambda: write(tmp_path / "b", "changed"), lambda: point("c")]
    assert asyncio.run(looked(Source(link), changes)) == ["b", "changed", "c"]


def test_a_server_that_stops_finishes_what_it_took() -> None:
    body = json.dumps({"rows": [{"user": 1}]}).encode()
    sent = b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    sent += b"content-length: %d\r\n\r\n%b" % (len(body), body)
    ends = [20, len(sent) - 9, *[len(sent)] * 5]  # within the head, within the body, whole
    sending = threading.Event()
    with serving(Fake(seconds=0.3)) as served:
        socks = [served.connect() for _ in range(8)]
        served.loop.call_soon_threadsafe(sending.wait)  # then it reads them all in one turn
        for sock, end in zip(socks[1:], ends, strict=True):
            sock.sendall(sent[:end])
        sending.set()
        assert eventually(lambda: served.server.requests.open == 6)

        def late() -> None:
            for sock, end in zip(socks[1:], ends, strict=True):
                sock.sendall(sent[end:])

        threading.Timer(1.5, late).start()  # the server is asked to stop before
    for sock in socks[1:]:
        assert until_closed(sock).startswith(b"HTTP/1.1 200 ")
    assert until_closed(socks[0]) == b""
    for sock in socks:
        sock.close()


def test_a_server_that_stops_tells_who_asks_again() -> None:
    with serving(Fake()) as served:
        client = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
        client.request("GET", "/ready")
        assert client.getresponse().read()
        served.app.stopping = True
        client.request("GET", "/ready")
        got = client.getresponse()
        assert (got.status, got.headers["connection"]) == (503, "close")
        client.close()
