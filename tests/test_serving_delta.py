"""`POST /delta`: the run that answers becomes the next one, or stays what it is."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import bitfold
from bitfold.errors import BitfoldError
from bitfold.runs.delta import run_digest
from bitfold.service.deltas import Deltas
from bitfold.service.sources import Source
from bitfold.training import train
from click_log import DATA, TINY, columns, write
from command import bitfold as command
from command import refused
from served import Served, serving

TOKEN = "a token of tests"
ROW = {"user": "u1", "item": "i2", "city": "c3", "price": "4.5"}


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The runs of three days, and one that has nothing to do with them."""
    folder = tmp_path_factory.mktemp("days")
    made: list[Path] = []
    for day in range(4):
        log = write(folder / f"{day}.csv", columns(300, day))
        base = made[-1] if day in (1, 2) else None
        words = replace(TINY, epochs=1, seed=day)
        train([log], DATA, words, folder / f"day {day}", from_run=base)
        made.append(folder / f"day {day}")
    return made


@pytest.fixture(scope="module")
def deltas(days: list[Path]) -> list[bytes]:
    """From the first day to the second, and so on."""
    found = []
    for old, new in pairwise(days):
        made = bitfold.delta(old, new, old.with_name("a.delta"), force=True)
        found.append(made.path.read_bytes())
    return found


@contextmanager
def served_run(run: Path, folder: Path, **limits: Any) -> Iterator[Served]:
    source = Source(run)
    with serving(source.loading()(), token=TOKEN, source=source, **limits) as served:
        served.app.swapping.deltas = Deltas(folder, run)
        yield served


def send(served: Served, delta: bytes, token: str = TOKEN) -> Any:
    return served.ask("POST", "/delta", delta, {"authorization": f"Bearer {token}"})


def scored(served: Served) -> tuple[str, float]:
    got = served.score([ROW], authorization=f"Bearer {TOKEN}").json
    return got["run"], got["scores"][0]


def answers(run: Path) -> tuple[str, float]:
    return run_digest(run), float(bitfold.load(run).predict(ROW)[0])


def test_days_follow_one_another(days: list[Path], deltas: list[bytes], tmp_path: Path) -> None:
    folder = tmp_path / "deltas"
    with served_run(days[0], folder) as served:
        for day in (1, 2):
            got = send(served, deltas[day - 1])
            assert got.status == 200, got.body
            assert got.json["before"] == run_digest(days[day - 1])
            assert got.json["run"] == run_digest(days[day])
            assert got.json["changed"] is True
            assert scored(served) == answers(days[day])
            assert [path.name for path in folder.iterdir()] == [run_digest(days[day])]
        again = send(served, deltas[1])
        assert again.status == 200
        assert again.json["changed"] is False
        assert scored(served) == answers(days[2])
        # Back to the run that the server was started with, and on from there.
        back = served.ask("POST", "/reload", None, {"authorization": f"Bearer {TOKEN}"})
        assert back.json["run"] == run_digest(days[0])
        assert list(folder.iterdir()) == []
        assert send(served, deltas[0]).json["run"] == run_digest(days[1])
        described = served.ask("GET", "/openapi.json", None, {"authorization": f"Bearer {TOKEN}"})
        assert described.json["paths"]["/delta"]["post"]["security"] == [{"token": []}]
    assert all((run / "manifest.json").is_file() for run in days)


def test_what_is_wrong_leaves_the_run_that_answers(
    days: list[Path], deltas: list[bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "deltas"
    flipped = bytearray(deltas[0])
    flipped[-20] ^= 1
    wrong = [
        (deltas[1], 409, "not of this run"),
        (deltas[2], 409, "not of this run"),
        (deltas[0][:-9], 422, "damaged"),
        (bytes(flipped), 422, "damaged"),
        (b"", 422, "no delta"),
        (b"PK\3\4 something else", 422, "no delta"),
        (json.dumps({"run": "x"}).encode(), 422, "no delta"),
    ]
    with served_run(days[0], folder) as served:
        for body, status, text in wrong:
            got = send(served, body)
            assert got.status == status, got.body
            assert text in got.json["error"]["problem"]
            assert str(tmp_path) not in got.body.decode()
            assert str(days[0].parent) not in got.body.decode()
            assert list(folder.iterdir()) == []
        assert scored(served) == answers(days[0])
        text = served.ask("GET", "/metrics", None, {"authorization": f"Bearer {TOKEN}"}).body
        assert b'bitfold_swaps_total{result="refused"} 7.0' in text
        assert send(served, deltas[0]).status == 200


def test_a_model_that_cannot_answer_is_not_kept(
    days: list[Path], deltas: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def warm(scorer: Any) -> None:
        raise BitfoldError("the model gives no probabilities")

    with served_run(days[0], tmp_path / "deltas") as served:
        monkeypatch.setattr("bitfold.service.models.warm", warm)
        assert send(served, deltas[0]).status == 422
        assert list((tmp_path / "deltas").iterdir()) == []
        assert scored(served) == answers(days[0])
        monkeypatch.undo()
        assert send(served, deltas[0]).status == 200


def test_deltas_need_a_token_and_a_folder(
    days: list[Path], deltas: list[bytes], tmp_path: Path
) -> None:
    with served_run(days[0], tmp_path / "deltas") as served:
        assert send(served, deltas[0], "another token").status == 401
        assert served.ask("POST", "/delta", deltas[0]).status == 401
        assert served.ask("GET", "/delta", None).status == 405
        served.app.swapping.deltas = None
        assert send(served, deltas[0]).status == 403
    with serving(Source(days[0]).loading()(), source=Source(days[0])) as served:
        served.app.swapping.deltas = Deltas(tmp_path / "deltas", days[0])
        assert send(served, deltas[0]).status == 403
        assert served.score([ROW]).json["run"] == run_digest(days[0])


def test_a_delta_has_a_limit_of_its_own(
    days: list[Path], deltas: list[bytes], tmp_path: Path
) -> None:
    size = len(deltas[0])
    with served_run(days[0], tmp_path / "a", body_bytes=200, delta_bytes=size) as served:
        assert send(served, deltas[0] + b"x").status == 413
        head = f"POST /delta HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n".encode()
        chunk = b"%x\r\n%b\r\n" % (size + 1, deltas[0] + b"x")
        got = served.raw(head + b"transfer-encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 413 ")
        rows = {"rows": [ROW | {"user": "u" * 300}]}
        said = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        assert served.ask("POST", "/score", json.dumps(rows), said).status == 413
        assert send(served, deltas[0]).status == 200


def test_scores_go_on_while_deltas_come(
    days: list[Path], deltas: list[bytes], tmp_path: Path
) -> None:
    wanted = dict(answers(run) for run in days[:3])
    back = [
        bitfold.delta(days[new], days[old], tmp_path / "back", force=True).path.read_bytes()
        for old, new in ((1, 2), (0, 1))
    ]
    over, wrong, seen = threading.Event(), [], set()
    with served_run(days[0], tmp_path / "deltas") as served:

        def ask() -> None:
            while not over.is_set():
                run, score = scored(served)
                seen.add(run)
                if wanted.get(run) != score:
                    wrong.append((run, score))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for turn in range(3):
                for delta in (*deltas[:2], *back):
                    got = send(served, delta)
                    assert got.status == 200, got.body
                    assert scored(served)[0] == got.json["run"], turn
        finally:
            over.set()
            for thread in threads:
                thread.join()
    assert wrong == []
    assert seen == set(wanted)


def test_one_change_at_a_time(days: list[Path], deltas: list[bytes], tmp_path: Path) -> None:
    with served_run(days[0], tmp_path / "deltas") as served:
        served.app.swapping.busy = True
        assert send(served, deltas[0]).status == 409
        served.app.swapping.busy = False
        assert send(served, deltas[0]).status == 200


def test_the_command_wants_a_token(days: list[Path], tmp_path: Path) -> None:
    args = ("serve", days[0], "--deltas", tmp_path / "deltas", "--port", 0)
    refused(command(*args), "cannot take deltas", "--token-file")
    (tmp_path / "token").write_text(TOKEN.replace(" ", "-"))
    (tmp_path / "file").write_text("in the way")
    args = (*args[:3], tmp_path / "file", "--token-file", tmp_path / "token", "--port", 0)
    refused(command(*args), "cannot be made")
