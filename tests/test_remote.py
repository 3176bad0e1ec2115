"""Paths with a scheme: fetched before, sent after; a scheme that is not there is told."""

import functools
import gc
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

import bitfold as package
from bitfold import BitfoldError, remote
from command import READING, TRAINING, bitfold, refused, write_ratings


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


@pytest.fixture
def ratings(tmp_path: Path, memory: fsspec.AbstractFileSystem) -> Path:
    path = write_ratings(tmp_path / "ratings.csv")
    memory.put_file(str(path), "/logs/day=1/ratings.csv")
    return path


def copies() -> list[Path]:
    import os
    import tempfile

    return list(Path(tempfile.gettempdir(), f"bitfold-{os.getuid()}-fetched").glob("*"))


def test_the_whole_road_away_from_this_machine(
    ratings: Path, memory: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    log, run, scores = "memory://work/log", "memory://work/RUN", "memory://work/scores.csv"
    got = bitfold("prepare", "memory://logs/day=1/*.csv", *READING, "--out", log)
    assert got.code == 0, got.err
    assert memory.isfile("/work/log/log.json")
    got = bitfold("train", log, *TRAINING, "--method", "full", "--out", run)
    assert got.code == 0, got.err
    assert f"{run}: full," in got.out
    assert memory.isfile("/work/RUN/weights.safetensors")
    got = bitfold("predict", run, "memory://logs/day=1/ratings.csv", "--out", scores)
    assert got.code == 0, got.err
    here = tmp_path / "RUN"
    got = bitfold("train", ratings, *READING, *TRAINING, "--method", "full", "--out", here)
    assert got.code == 0, got.err
    assert bitfold("predict", here, ratings, "--out", tmp_path / "scores.csv").code == 0
    assert memory.cat_file("/work/scores.csv") == (tmp_path / "scores.csv").read_bytes()
    assert bitfold("inspect", log, "--quick").code == 0
    got = bitfold("evaluate", run, log, "--json")
    assert got.code == 0, got.err
    gc.collect()
    assert copies() == []


def test_a_comparison_and_its_page(ratings: Path, memory: fsspec.AbstractFileSystem) -> None:
    cells = ("--methods", "full,hash", "--budgets", "1KiB", "--seeds", 1, "--no-floors")
    out = "memory://boards/one"
    got = bitfold("compare", "memory://logs/day=1", *READING, *TRAINING, *cells, "--out", out)
    assert got.code == 0, got.err
    assert f"page: {out}/board.html" in got.out
    memory.rm_file("/boards/one/board.html")
    got = bitfold("report", out)
    assert (got.code, got.out) == (0, f"page: {out}/board.html\n")
    assert memory.isfile("/boards/one/board.html")


def test_what_exists_is_replaced_by_force_alone(
    ratings: Path, memory: fsspec.AbstractFileSystem
) -> None:
    out = "memory://work/log"
    prepare = ("prepare", "memory://logs/day=1/ratings.csv", *READING, "--out", out)
    assert bitfold(*prepare).code == 0
    before = {name: memory.cat_file(name) for name in memory.find("/work/log")}
    refused(bitfold(*prepare), f"{out} exists", "--force")
    # A mistake with --force costs nothing.
    refused(bitfold(*prepare, "--force", "--numeric", "prize"), "no column 'prize'")
    assert {name: memory.cat_file(name) for name in memory.find("/work/log")} == before
    assert bitfold(*prepare, "--force", "--split-seed", 7).code == 0
    assert memory.cat_file("/work/log/log.json") != before["/work/log/log.json"]
    assert bitfold("inspect", out, "--quick").code == 0


def test_the_functions_take_them_too(ratings: Path, memory: fsspec.AbstractFileSystem) -> None:
    words = {"label": "rating>=4", "fields": "user,item", "epochs": 1, "width": 4, "hidden": [8]}
    made = package.train("memory://logs/day=1/ratings.csv", "memory://runs/one", **words)
    run = package.load("memory://runs/one")
    near = made.predict(ratings)
    np.testing.assert_array_equal(run.predict("memory://logs/day=1/ratings.csv"), near)
    np.testing.assert_array_equal(run.predict(ratings.as_uri()), near)
    with pytest.raises(BitfoldError, match="exists"):
        package.train(ratings, "memory://runs/one", **words)
    with pytest.raises(BitfoldError, match="resume needs a folder on this machine"):
        package.train(ratings, "memory://runs/two", resume=True, **words)
    del run, made
    gc.collect()
    assert copies() == []


def test_http(ratings: Path) -> None:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=ratings.parent)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.func.log_message = lambda *_: None  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        base = f"http://127.0.0.1:{server.server_port}"
        words = {"label": "rating>=4", "fields": "user,item"}
        log = package.prepare(f"{base}/ratings.csv", **words)
        assert sum(log.rows.values()) == sum(package.prepare(ratings, **words).rows.values())
        with pytest.raises(BitfoldError, match=r"nothing\.csv (does not exist|cannot be reached)"):
            package.prepare(f"{base}/nothing.csv", **words)
    finally:
        server.shutdown()
        server.server_close()


def test_file_urls_are_plain_paths(ratings: Path, tmp_path: Path) -> None:
    spaced = ratings.rename(tmp_path / "my ratings.csv")
    out = (tmp_path / "log").as_uri()
    got = bitfold("prepare", spaced.as_uri(), *READING, "--out", out)
    assert got.code == 0, got.err
    assert (tmp_path / "log" / "log.json").is_file()
    refused(bitfold("prepare", "file://elsewhere/x.csv", *READING, "--out", out), "names a machine")


@pytest.mark.parametrize("path", ["s3://bucket/x.csv", "gs://bucket/x.csv", "abfs://c/x.csv"])
def test_a_scheme_without_its_package(path: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("fsspec")
    got = bitfold("prepare", path, "--label", "x", "--fields", "y", "--out", "log")
    refused(got, "needs a package that is not installed", "pip")
    got = bitfold("predict", "RUN", "rows.csv", "--out", path)
    refused(got, "needs a package that is not installed")
    assert list(tmp_path.iterdir()) == []  # no folder `s3:`


def test_mistakes(ratings: Path, memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    words = ("--label", "rating>=4", "--fields", "user", "--out", tmp_path / "log")
    refused(bitfold("prepare", "memory://logs/day=2/x.csv", *words), "does not exist")
    refused(bitfold("prepare", "memory://logs/*.tsv", *words), "no file matches")
    refused(bitfold("prepare", "martian://logs/x.csv", *words), "a scheme that is not known")
    refused(bitfold("predict", "memory://none", "x.csv", "--out", tmp_path / "s.csv"), "not exist")


def test_a_copy_that_another_process_reads_stays(ratings: Path) -> None:
    path = "memory://logs/day=1/ratings.csv"
    with remote.fetched([path]) as (one,):
        assert Path(one).read_bytes() == ratings.read_bytes()
        assert remote.named(f"look at {one}") == f"look at {path}"
        with remote.fetched(["plain.csv", path]) as (plain, two):
            assert (plain, two) == ("plain.csv", one)
        assert Path(one).is_file()
        assert remote.named(str(one)) == path
    assert not Path(one).exists()


def test_what_a_killed_process_left_is_swept(ratings: Path) -> None:
    with remote.fetched(["memory://logs/day=1/ratings.csv"]) as (one,):
        left = Path(one).parent.with_name("0" * 24)
        left.mkdir()
        left.with_suffix(".lock").touch()
        with remote.fetched(["memory://logs/day=1"]) as (two,):
            assert Path(two).is_dir()
    assert copies() == []


def test_a_place_that_lists_files_outside_of_it(
    ratings: Path, memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(memory), "find", lambda *_: ["/logs/day=1/../../escaped.csv"])
    with pytest.raises(BitfoldError, match="lists a file outside of it"):
        package.prepare("memory://logs/day=1", label="rating>=4", fields="user")
    assert copies() == []
