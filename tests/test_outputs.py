"""Outputs come to their place whole, and nothing that is not bitfold's is touched."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bitfold.errors import BitfoldError
from bitfold.files import atomic, write_tensors
from bitfold.outputs import Kind, hidden, hold, new_file, new_folder, refuse_overlap, settle
from bitfold.outputs import place as places

TOY = Kind("toy", ("toy.json", "parts/*.txt"), lambda folder: (folder / "toy.json").is_file())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill(folder: Path, text: str) -> None:
    (folder / "parts").mkdir(exist_ok=True)
    (folder / "toy.json").write_text(text)
    (folder / "parts" / "a.txt").write_text(text)


def text_of(folder: Path) -> set[str]:
    return {(folder / name).read_text() for name in ("toy.json", "parts/a.txt")}


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    with new_folder(tmp_path / "toy", TOY) as made:
        fill(made, "old")
    return tmp_path / "toy"


@pytest.fixture(params=["exchange", "two renames"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A system that can exchange names, and one that cannot."""
    if request.param == "two renames":
        monkeypatch.setattr(places, "exchange", lambda one, other: False)
    return str(request.param)


def test_the_old_one_stands_until_the_new_one_is_whole(toy: Path, system: str) -> None:
    with new_folder(toy, TOY, force=True) as made:
        fill(made, "new")
        assert text_of(toy) == {"old"}
    assert text_of(toy) == {"new"}
    assert names(toy.parent) == ["toy"]


def test_whatever_fails_the_old_one_is_as_it_was(toy: Path) -> None:
    for error in (BitfoldError("bad row"), OSError(28, "No space left"), KeyboardInterrupt()):
        with (  # noqa: PT012
            pytest.raises((BitfoldError, KeyboardInterrupt)),
            new_folder(toy, TOY, force=True) as made,
        ):
            fill(made, "half")
            raise error
        assert text_of(toy) == {"old"}
        assert names(toy.parent) == ["toy"]


class Killed(BaseException):
    """A process's end: nothing after it runs."""


def dead(out: Path, force: bool, after: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Make a toy in a child that dies before its rename number `after`; False if it lived."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    left = after

    def count(real: object) -> object:
        def call(*args: object, **words: object) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                os._exit(9)
            return real(*args, **words)  # type: ignore[operator]

        return call

    for name in ("rename", "replace", "unlink", "rmdir", "mkdir"):
        monkeypatch.setattr(os, name, count(getattr(os, name)))
        monkeypatch.setattr(Path, name, count(getattr(Path, name)))
    monkeypatch.setattr(places, "exchange", count(places.exchange))
    try:
        with new_folder(out, TOY, force=force) as made:
            fill(made, "new")
    except BaseException:
        os._exit(3)
    os._exit(0)


def test_killed_anywhere_there_is_the_old_one_or_the_new_one(
    toy: Path, system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []
    for after in range(100):
        lived = not dead(toy, True, after, monkeypatch)
        gap = system == "two renames" and not toy.exists()
        assert gap or text_of(toy) in ({"old"}, {"new"}), after
        settle(toy)  # what the next command does
        seen.append(text_of(toy))
        assert names(toy.parent) == ["toy"], after
        with new_folder(toy, TOY, force=True) as made:
            fill(made, "old")
        if lived:
            break
    assert {"old"} in seen
    assert {"new"} in seen


def test_a_living_process_keeps_others_away(toy: Path) -> None:
    with hold(toy) as place:
        place.making.mkdir()
        with pytest.raises(BitfoldError, match="another process is writing") as raised:
            new_folder(toy, TOY, force=True).__enter__()
        assert str(os.getpid()) in str(raised.value)
        settle(toy)
        assert place.making.is_dir()
    assert not hidden(toy).exists()


def test_what_comes_meanwhile_is_left_alone(tmp_path: Path, system: str) -> None:
    out, file = tmp_path / "toy", tmp_path / "file"
    with pytest.raises(BitfoldError, match="meanwhile"), new_folder(out, TOY) as made:  # noqa: PT012
        fill(made, "new")
        out.mkdir()
        (out / "mine").write_text("mine")
    assert (out / "mine").read_text() == "mine"
    with pytest.raises(BitfoldError, match="meanwhile"), new_file(file) as path:  # noqa: PT012
        path.write_text("new")
        file.write_text("mine")
    assert file.read_text() == "mine"
    assert names(tmp_path) == ["file", "toy"]


@pytest.mark.parametrize("name", [".git/HEAD", ".env", "notes.md", "parts/b.csv", "empty/"])
def test_a_folder_with_foreign_files_is_not_replaced(toy: Path, name: str) -> None:
    foreign = toy / name
    foreign.parent.mkdir(exist_ok=True)
    foreign.mkdir() if name.endswith("/") else foreign.write_text("mine")
    with pytest.raises(BitfoldError, match="did not make") as raised:
        new_folder(toy, TOY, force=True).__enter__()
    assert name.rstrip("/") in str(raised.value)
    assert foreign.exists()
    assert text_of(toy) == {"old"}
    TOY.remove(toy)  # what bitfold made goes, the rest stays
    assert foreign.exists()
    assert not (toy / "toy.json").exists()


def test_links_are_written_through(tmp_path: Path, system: str) -> None:
    (tmp_path / "disk").mkdir()
    for name in ("toy", "file"):
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    for text in ("one", "two"):
        with new_folder(tmp_path / "toy", TOY, force=True) as made:
            fill(made, text)
        with new_file(tmp_path / "file", force=True) as path:
            path.write_text(text)
        assert text_of(tmp_path / "disk" / "toy") == {text}
        assert (tmp_path / "disk" / "file").read_text() == text
    assert all((tmp_path / name).is_symlink() for name in ("toy", "file"))
    assert names(tmp_path / "disk") == ["file", "toy"]


def overlapping(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    folder, file = tmp_path / "in", tmp_path / "in" / "rows.csv"
    folder.mkdir()
    file.write_text("a")
    os.link(file, tmp_path / "hard.csv")
    (tmp_path / "soft.csv").symlink_to(file)
    (tmp_path / "softly").symlink_to(folder)
    yield file, file
    yield tmp_path / "hard.csv", file
    yield tmp_path / "soft.csv", file
    yield folder / ".." / "in" / "rows.csv", file
    yield tmp_path / "softly" / "rows.csv", file
    yield folder / "out", folder
    yield tmp_path / "softly" / "deep" / "out", folder
    yield folder, file
    yield tmp_path / "softly", file
    yield file, folder / "*.csv"


def test_an_output_is_apart_from_every_input(tmp_path: Path) -> None:
    for out, given in overlapping(tmp_path):
        with pytest.raises(BitfoldError, match="input"):
            refuse_overlap(out, [None, given])
    refuse_overlap(tmp_path / "out", [tmp_path / "in", "missing.csv", "s3://bucket/x.csv"])
    refuse_overlap(tmp_path / "in" / "scores.csv", [tmp_path / "in" / "rows.csv"])


def test_standard_input_is_an_input(tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("a")
    code = (
        "import sys; from bitfold.outputs import refuse_overlap as r; r(sys.argv[1], sys.argv[2:])"
    )
    for name in ("-", "/dev/stdin"):
        with rows.open() as file:
            done = subprocess.run(
                [sys.executable, "-c", code, rows, name],
                stdin=file,
                capture_output=True,
                check=False,
            )
        assert b"its own input" in done.stderr


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_the_umask_decides_modes(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(2)})
        with atomic(tmp_path / "b") as path:
            path.write_text("b")
        with new_file(tmp_path / "c") as path:
            path.unlink()
            path.touch(mode=0o600)
        with new_folder(tmp_path / "d", TOY) as made:
            fill(made, "d")
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {0o666 & ~umask}


def test_folders_above_an_output_go_with_it(tmp_path: Path) -> None:
    with pytest.raises(BitfoldError), new_file(tmp_path / "a" / "b" / "c"):
        raise BitfoldError("no")
    assert not list(tmp_path.iterdir())
    with new_file(tmp_path / "a" / "b" / "c") as path:
        path.write_text("c")
    assert (tmp_path / "a" / "b" / "c").read_text() == "c"


def test_places_that_no_folder_can_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.chdir(out)
    for name in (out, ".", "..", tmp_path):
        with pytest.raises(BitfoldError, match=r"working directory|is no toy"):
            new_folder(name, TOY).__enter__()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "is_mount", lambda path: path == out)
    with pytest.raises(BitfoldError, match="mount point") as raised:
        new_folder(out, TOY).__enter__()
    assert str(out / "out") in str(raised.value)
    assert names(tmp_path) == ["out"]
    assert names(out) == []


def test_an_input_that_fails_is_no_output_that_fails(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), new_file(tmp_path / "out") as path:  # noqa: PT012
        path.write_text("half")
        (tmp_path / "rows.csv").read_text()
    with pytest.raises(BitfoldError, match="cannot write"), new_file(tmp_path / "out") as path:
        (path / "below").mkdir()
    assert not names(tmp_path)
