"""Deltas: what changed between two runs, and the new run made of the old one and it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bitfold
from bitfold.data.config import DataConfig
from bitfold.errors import BitfoldError, OtherBase
from bitfold.files import sha256, write_json
from bitfold.records import sealed
from bitfold.runs import delta as deltas
from bitfold.runs.delta import applied, run_digest
from bitfold.runs.delta_file import MAGIC, read_delta
from bitfold.runs.manifest import KIND, MANIFEST
from bitfold.training import train
from click_log import DATA, TINY, columns, write
from command import bitfold as command
from command import cramped, refused

BAGS = replace(DATA, fields=("user", "tags"), multi={"tags": "|"}, ids="vocabulary")
FEW_BITS = {"method": "binary-code", "set": {"bits": "4"}}
SEVERAL: dict[str, tuple[DataConfig, dict[str, object]]] = {
    "first": (DATA, {}),
    "its next day": (DATA, {}),
    "few bits": (DATA, FEW_BITS),
    "wider": (DATA, {"method": "full", "budget": None, "width": 8}),
    "other fields": (BAGS, {"method": "full", "budget": None}),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    made: dict[str, Path] = {}
    for seed, (name, (data, more)) in enumerate(SEVERAL.items()):
        log = write(folder / f"{seed}.csv", columns(400, seed))
        made[name] = folder / name
        words = replace(TINY, epochs=1, **more)  # type: ignore[arg-type]
        base = made["first"] if name == "its next day" else None
        train([log], data, words, made[name], from_run=base)
    return made


def files_of(run: Path) -> dict[str, bytes]:
    """The files that belong to a run."""
    names = json.loads((run / MANIFEST).read_text())["files"]
    return {name: (run / name).read_bytes() for name in (*names, MANIFEST)}


def same_run(one: Path, two: Path) -> bool:
    """Whether a run is another to the byte, and has nothing beside."""
    return files_of(one) == {path.name: path.read_bytes() for path in two.iterdir()}


@pytest.mark.parametrize("old", SEVERAL)
@pytest.mark.parametrize("new", SEVERAL)
def test_any_run_follows_any_other(
    runs: dict[str, Path], tmp_path: Path, old: str, new: str
) -> None:
    made = bitfold.delta(runs[old], runs[new], tmp_path / "a.delta")
    out = bitfold.apply(runs[old], made.path, tmp_path / "run")
    assert same_run(runs[new], out)
    rows = columns(30, 9)
    assert (bitfold.load(out).predict(rows) == bitfold.load(runs[new]).predict(rows)).all()
    assert made.bytes == made.path.stat().st_size
    assert made.same == (made.files if old == new else made.same)
    assert (made.base, made.result) == (run_digest(runs[old]), run_digest(runs[new]))


def test_a_day_is_smaller_than_a_run(runs: dict[str, Path], tmp_path: Path) -> None:
    day = bitfold.delta(runs["first"], runs["its next day"], tmp_path / "day")
    other = bitfold.delta(runs["wider"], runs["its next day"], tmp_path / "other")
    nothing = bitfold.delta(runs["first"], runs["first"], tmp_path / "nothing")
    assert nothing.bytes < 1000 < day.bytes < other.bytes < day.run_bytes


def bare_run(folder: Path, files: dict[str, bytes]) -> Path:
    """A folder with the manifest of a run: deltas do not read what its files mean."""
    needed = dict.fromkeys(("config.json", "plan.json", "weights.safetensors", "metrics.json"), b"")
    files = needed | {"schema.json": b""} | files
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    seals = {
        name: {"bytes": len(data), "sha256": sha256(folder / name)} for name, data in files.items()
    }
    write_json(
        folder / MANIFEST, sealed({"kind": KIND, "format": 2, "bitfold": "0", "files": seals})
    )
    return folder


def tensors(draw: st.DrawFn, name: str, near: bytes | None) -> bytes:
    """A safetensors file of one tensor; with `near`, some of the numbers of another file."""
    kind, size = draw(st.sampled_from([("F32", 4), ("BF16", 2), ("U8", 1), ("I64", 8)]))
    rows, width = draw(st.integers(0, 30)), draw(st.integers(1, 5))
    total = rows * width * size
    header = {name: {"dtype": kind, "shape": [rows, width], "data_offsets": [0, total]}}
    text = json.dumps(header).encode()
    body = bytearray(draw(st.binary(min_size=total, max_size=total)))
    if near:
        kept = near[-total:]
        body[: len(kept)] = kept
        for at in draw(st.lists(st.integers(0, max(total - 1, 0)), max_size=3)):
            body[at : at + 1] = draw(st.binary(min_size=1, max_size=1))[: len(body) - at]
    return len(text).to_bytes(8, "little") + text + bytes(body)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The files of an old run and of a new one that is near to it, or not."""
    old = {
        "weights.safetensors": tensors(draw, "a", None),
        "plan.json": draw(st.binary(max_size=99)),
    }
    near = old["weights.safetensors"] if draw(st.booleans()) else None
    new = {"weights.safetensors": tensors(draw, draw(st.sampled_from("ab")), near)}
    for name in draw(st.sets(st.sampled_from(["plan.json", "schema.json", "dense.safetensors"]))):
        new[name] = draw(st.sampled_from([*old.values(), b"", b"x" * 500]))
    return old, new


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pair=pairs(), piece=st.sampled_from([48, 200, 4 << 20]))
def test_whatever_the_files_are_they_come_back(
    pair: tuple[dict[str, bytes], dict[str, bytes]], piece: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("pair")
    old, new = (bare_run(folder / name, files) for name, files in zip("on", pair, strict=True))
    with pytest.MonkeyPatch.context() as patch:  # files of several pieces
        patch.setattr("bitfold.runs.delta_pieces.PIECE", piece)
        patch.setattr("bitfold.runs.delta_pieces.MOST_PIECE", 2 * piece)
        made = bitfold.delta(old, new, folder / "d")
    assert same_run(new, bitfold.apply(old, made.path, folder / "made"))


@pytest.fixture
def day(runs: dict[str, Path], tmp_path: Path) -> Path:
    return bitfold.delta(runs["first"], runs["its next day"], tmp_path / "day.delta").path


def test_another_base_is_refused(runs: dict[str, Path], day: Path) -> None:
    for other in ("its next day", "wider"):
        with pytest.raises(OtherBase, match="not of this run"):
            bitfold.apply(runs[other], day, day.with_name("run"))
        with pytest.raises(OtherBase):
            applied(runs[other], day)
    assert [path.name for path in day.parent.iterdir()] == [day.name]


def test_a_base_that_was_changed_is_refused(runs: dict[str, Path], day: Path) -> None:
    old = shutil.copytree(runs["first"], day.with_name("old"))
    weights = old / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(BitfoldError, match="not what was saved"):
        bitfold.apply(old, day, day.with_name("run"))
    assert not day.with_name("run").exists()


def resealed(path: Path, change: object) -> Path:
    """A delta whose head was changed, with its digest put right."""
    data = path.read_bytes()
    length = int.from_bytes(data[8:16], "little")
    head = json.loads(data[16 : 16 + length])
    assert callable(change)
    change(head)
    text = json.dumps(sealed(head)).encode()
    path.write_bytes(MAGIC + len(text).to_bytes(8, "little") + text + data[16 + length :])
    return path


def first(head: dict, way: str) -> dict:  # type: ignore[type-arg]
    """The first piece of a way."""
    return next(each for file in head["files"].values() for each in file if each["way"] == way)


HEADS = {
    "another kind": (lambda head: head.update(kind="bitfold run"), "is no bitfold delta"),
    "a newer format": (lambda head: head.update(format=2), "newer format"),
    "an unknown key": (lambda head: head.update(more=1), "damaged"),
    "a name that leads out": (
        lambda head: head["files"].update({"../x": head["files"].pop("plan.json")}), "damaged",
    ),
    "no manifest": (lambda head: head["files"].pop(MANIFEST), MANIFEST),
    "a huge piece": (lambda head: first(head, "patch").update(size=1 << 40), "damaged"),
    "a piece of another size": (lambda head: first(head, "patch").update(size=3), "damaged"),
    "rows that do not fill": (lambda head: first(head, "rows").update(row=12), "damaged"),
    "no such way": (lambda head: first(head, "rows").update(way="xor"), "damaged"),
    "an item of three bytes": (lambda head: first(head, "rows").update(item=3), "damaged"),
    "more than the disk has": (lambda head: first(head, "same").update(size=1 << 52), "no room"),
    "old bytes beyond": (lambda head: first(head, "same").update(at=1 << 40), "damaged"),
    "another result": (lambda head: head.update(result="0" * 64), "the run "),
    "a file too many": (
        lambda head: head["files"].update({"x.json": [first(head, "same")]}), "damaged"
    ),
    "a file too few": (lambda head: head["files"].pop("plan.json"), "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("case", HEADS)
def test_heads_that_lie_are_told(runs: dict[str, Path], day: Path, case: str) -> None:
    change, text = HEADS[case]
    out = day.with_name("run")
    with pytest.raises(BitfoldError, match=text):
        bitfold.apply(runs["first"], resealed(day, change), out)
    assert [path.name for path in day.parent.iterdir()] == [day.name]


def test_a_file_that_is_cut_anywhere_is_told(runs: dict[str, Path], day: Path) -> None:
    data = day.read_bytes()
    for length in [*range(0, len(data), 331), len(data) - 1]:
        day.write_bytes(data[:length])
        with pytest.raises(BitfoldError):
            bitfold.apply(runs["first"], day, day.with_name("run"))
    day.write_bytes(data + b"x")
    with pytest.raises(BitfoldError, match="damaged"):
        read_delta(day)
    assert [path.name for path in day.parent.iterdir()] == [day.name]


def test_a_bomb_is_not_unpacked(runs: dict[str, Path], day: Path) -> None:
    """A frame that says little and holds much, or does not say: told before it is unpacked."""
    import xxhash
    import zstandard

    for size in (1 << 30, None):
        if size is None:
            bomb = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 20))
        else:
            packer = zstandard.ZstdCompressor().compressobj(size=size)
            bomb = (
                b"".join(packer.compress(bytes(1 << 20)) for _ in range(1 << 10)) + packer.flush()
            )
        data = day.read_bytes()
        head = json.loads(data[16 : 16 + int.from_bytes(data[8:16], "little")])
        head["files"] = {
            MANIFEST: [{"way": "whole", "size": 1 << 20, "packed": len(bomb),
                        "digest": xxhash.xxh3_128_hexdigest(bomb)}],
        }  # fmt: skip
        text = json.dumps(sealed(head)).encode()
        path = day.with_name("bomb")
        path.write_bytes(MAGIC + len(text).to_bytes(8, "little") + text + bomb)
        with pytest.raises(BitfoldError, match="damaged") as told:
            bitfold.apply(runs["first"], path, day.with_name("run"))
        assert "a piece of" in str(told.value)


def test_no_room_is_told_before_anything_is_written(
    runs: dict[str, Path], day: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(deltas.shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(BitfoldError, match="no room"):
        bitfold.apply(runs["first"], day, day.with_name("run"))
    assert [path.name for path in day.parent.iterdir()] == [day.name]


def test_applied_is_made_once_and_again_where_it_was_spoilt(
    runs: dict[str, Path], day: Path
) -> None:
    old = shutil.copytree(runs["first"], day.with_name("old"))
    out = applied(old, day)
    assert out == day.parent / ".old.deltas" / run_digest(runs["its next day"])
    assert same_run(runs["its next day"], out)
    was = (out / MANIFEST).stat().st_ino
    assert applied(old, day) == out
    assert (out / MANIFEST).stat().st_ino == was
    (out / "plan.json").write_bytes(b"{}")
    assert applied(old, day) == out
    assert same_run(runs["its next day"], out)
    assert applied(old, day, day.with_name("else")).parent == day.with_name("else")


def test_the_commands(runs: dict[str, Path], tmp_path: Path) -> None:
    old, new, file, out = runs["first"], runs["its next day"], tmp_path / "d", tmp_path / "run"
    got = command("delta", old, new, "--out", file)
    assert got.code == 0, got.err
    assert "bitfold apply" in got.out
    assert f"{file.stat().st_size:,} bytes" in got.out
    refused(command("delta", old, new, "--out", file), "exists")
    assert command("delta", old, new, "--out", file, "--force").code == 0
    got = command("apply", old, file, "--out", out)
    assert got.code == 0, got.err
    assert same_run(new, out)
    refused(command("apply", old, file, "--out", out), "exists")
    refused(command("apply", old, file, "--out", old, "--force"), "its own input")
    refused(command("apply", new, file, "--out", tmp_path / "b"), "not of this run")
    refused(command("apply", old, new / MANIFEST, "--out", tmp_path / "b"), "no delta")
    refused(command("apply", old, tmp_path / "none", "--out", tmp_path / "b"), "missing")
    refused(command("delta", old.parent, new, "--out", tmp_path / "b"), "not a finished run")
    refused(command("delta", old, new, "--out", old / "weights.safetensors", "--force"), "input")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "run"]


def test_a_full_disk_leaves_nothing(runs: dict[str, Path], day: Path) -> None:
    old, new = runs["first"], runs["its next day"]
    refused(cramped("delta", old, new, "--out", day.with_name("b"), cwd=day.parent))
    refused(cramped("apply", old, day, "--out", day.with_name("run"), cwd=day.parent))
    assert [path.name for path in day.parent.iterdir()] == [day.name]
