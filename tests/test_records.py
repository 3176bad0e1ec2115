"""JSON of ours: limits, versions, digests, and what a log's manifest protects."""

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitfold import records
from bitfold.data.config import DataConfig
from bitfold.data.prepare import prepare
from bitfold.data.prepared import PreparedLog
from bitfold.errors import BitfoldError
from bitfold.records import Form, build, checked, read_object, sealed
from click_log import DATA, columns, write

THING = Form("a thing", 2, sealed_from=2)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "Expecting value"),
        (b"[1]", "a list"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1e999}', "beyond what 64 bits hold"),
        (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
        (b'{"a": ' + b"9" * 25 + b"}", "64 bits"),
        (b'{"a":' * 60_000 + b"1" + b"}" * 60_000, "nested too deep"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "nested too deep"),
        (b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}", "nested too deep"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": "\xff"}', "utf-8"),
        (b'{"a": "\\ud800"}', "surrogates"),
        (b'\xef\xbb\xbf{"a": 1}', "BOM"),
    ],
)
def test_what_is_no_json_of_ours_is_told(tmp_path: Path, text: bytes, told: str) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(text)
    with pytest.raises(BitfoldError, match=r"x\.json is damaged") as caught:
        read_object(file)
    assert told in str(caught.value.got)
    assert len(str(caught.value)) < 1000


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    with file.open("wb") as sparse:
        sparse.truncate(records.MOST_BYTES + 1)
    with pytest.raises(BitfoldError, match="256 MiB"):
        read_object(file)


def test_the_version_is_told_before_anything_else(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    head = {"kind": "a thing", "format": 3, "bitfold": "9.0", "digest": "x"}
    file.write_text(json.dumps(head))
    with pytest.raises(BitfoldError, match=r"newer format\n.*bitfold 9\.0") as caught:
        checked(file, THING)
    assert caught.value.fix == "install a newer bitfold"
    for wrong in ({"format": 1}, {"kind": "another", "format": 1}, {"kind": ["a thing"]}):
        file.write_text(json.dumps(wrong))
        with pytest.raises(BitfoldError, match="is no a thing file"):
            checked(file, THING)
    for version in (None, True, "1", 0, -1, 1.0):
        file.write_text(json.dumps({"kind": "a thing", "format": version}))
        with pytest.raises(BitfoldError, match="damaged"):
            checked(file, THING)


def test_a_digest_is_of_the_content_and_not_of_the_spaces(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    value = sealed({**THING.head(), "rows": 3, "share": 0.1, "name": "ä"})
    file.write_text(json.dumps(value, indent=7, sort_keys=True), encoding="utf-8")
    assert checked(file, THING)["rows"] == 3
    for name, other in (("rows", 4), ("share", 0.2), ("name", "a"), ("digest", "0" * 32)):
        file.write_text(json.dumps(value | {name: other}))
        with pytest.raises(BitfoldError, match="not what was saved"):
            checked(file, THING)
    del value["digest"]
    file.write_text(json.dumps(value))
    with pytest.raises(BitfoldError, match="no digest"):
        checked(file, THING)
    file.write_text(json.dumps(value | {"format": 1}))  # version 1 had none
    assert checked(file, THING)["rows"] == 3


@dataclass(frozen=True)
class Point:
    x: int
    y: tuple[float, ...] = ()


def test_unknown_keys_and_other_types_are_named() -> None:
    assert build({"x": 1, "y": [1, 2.5]}, Point, "it") == Point(1, (1.0, 2.5))
    with pytest.raises(BitfoldError, match="unknown field `z`"):
        build({"x": 1, "z": 2}, Point, "it")
    with pytest.raises(BitfoldError, match=r"Expected `float`, got `str` - at `\$\.y"):
        build({"x": 1, "y": ["1"]}, Point, "it")
    for value in (None, [], "x", {"x": True}, {"x": 1.5}, {}):
        with pytest.raises(BitfoldError, match="it is damaged"):
            build(value, Point, "it")


VOCABULARY = DataConfig(**{**vars(DATA), "ids": "vocabulary"})


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    raw = write(folder / "clicks.csv", columns(400))
    return prepare([raw], folder / "log", VOCABULARY).path


@pytest.fixture
def copy(log: Path, tmp_path: Path) -> Path:
    return shutil.copytree(log, tmp_path / "copy")


def content(log: PreparedLog) -> Any:
    return [batch.ids.numpy().tolist() for batch in log.batches("train", 100)], log.stats


def edited(path: Path, change: Any) -> None:
    """Change a JSON file and put its digest right, as somebody might who knows it."""
    value = json.loads(path.read_text())
    change(value)
    digest = "digest" in value
    path.write_text(json.dumps(sealed(value) if digest else value))


def test_every_file_of_a_log_is_named_with_its_digest(log: Path) -> None:
    manifest = json.loads((log / "log.json").read_text())
    named = {*manifest["files"], *(s[0] for part in manifest["shards"].values() for s in part)}
    found = {str(f.relative_to(log)) for f in log.rglob("*") if f.is_file()}
    assert found - named == {"log.json"}
    assert content(PreparedLog(log))


@pytest.mark.parametrize(
    "name",
    ["log.json", "schema.json", "stats.json", "vocabulary.safetensors", "train/00000.parquet"],
)
def test_a_changed_byte_is_told(copy: Path, name: str) -> None:
    whole = (copy / name).read_bytes()
    rng = np.random.default_rng(0)
    for place in [*rng.integers(0, len(whole), 30), 0, len(whole) - 1]:
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << int(rng.integers(0, 8))
        (copy / name).write_bytes(spoilt)
        try:
            log = PreparedLog(copy)
            list(log.batches("train", 100))
            _ = log.stats
        except BitfoldError:
            continue
        # Only spaces of log.json are not of its content.
        assert name == "log.json"
        assert json.loads(spoilt) == json.loads(whole)


def test_what_the_manifest_does_not_name_is_not_read(copy: Path) -> None:
    def without(name: str) -> Any:
        return lambda value: value["files"].pop(name)

    for name in ("schema.json", "vocabulary.safetensors", "stats.json"):
        manifest = (copy / "log.json").read_text()
        edited(copy / "log.json", without(name))
        with pytest.raises(BitfoldError, match=f"does not name {name}"):
            _ = PreparedLog(copy).stats
        (copy / "log.json").write_text(manifest)
    (copy / "synth.json").write_text("{")  # a stray file is nobody's
    assert not PreparedLog(copy).manifest.names(copy, "synth.json")


@pytest.mark.parametrize(
    "name", ["../log/train/00000.parquet", "/etc/passwd", "train/../../x.parquet", "train/x", ""]
)
def test_a_shard_lies_in_the_folder(copy: Path, name: str) -> None:
    def renamed(value: Any) -> None:
        value["shards"]["train"][0][0] = name

    edited(copy / "log.json", renamed)
    with pytest.raises(BitfoldError, match=r"log\.json is damaged"):
        PreparedLog(copy)


def test_a_link_out_of_the_folder_is_not_followed(log: Path, copy: Path, tmp_path: Path) -> None:
    shard = copy / "train" / "00000.parquet"
    shard.unlink()
    shard.symlink_to(log / "train" / "00000.parquet")
    with pytest.raises(BitfoldError, match="lies outside"):
        PreparedLog(copy)
    (tmp_path / "linked").symlink_to(log)  # the whole log may be a link
    assert PreparedLog(tmp_path / "linked").rows == PreparedLog(log).rows


def test_a_log_of_version_1_is_still_read(log: Path, copy: Path) -> None:
    def older(value: Any) -> None:
        value["version"] = 1
        del value["files"], value["digest"]
        value["shards"] = {p: [s[:3] for s in shards] for p, shards in value["shards"].items()}

    file = copy / "log.json"
    value = json.loads(file.read_text())
    older(value)
    file.write_text(json.dumps(value))
    assert content(PreparedLog(copy)) == content(PreparedLog(log))
    value["shards"]["train"][0][1] += 1  # rows that the shard does not hold
    value["rows"]["train"] += 1
    file.write_text(json.dumps(value))
    with pytest.raises(BitfoldError, match="rows for"):
        list(PreparedLog(copy).batches("train", 100))


def test_a_schema_that_contradicts_itself_is_refused(copy: Path) -> None:
    value = json.loads((copy / "log.json").read_text())
    older = {k: v for k, v in value.items() if k not in ("files", "digest")} | {"version": 1}
    (copy / "log.json").write_text(json.dumps(older))
    schema = json.loads((copy / "schema.json").read_text())

    def refused(change: Any, told: str) -> None:
        spoilt = json.loads(json.dumps(schema))
        change(spoilt)
        (copy / "schema.json").write_text(json.dumps(spoilt))
        with pytest.raises(BitfoldError, match=told):
            PreparedLog(copy)

    refused(lambda s: s["fields"].pop(), "fields that are not those")
    refused(lambda s: s["numeric"].pop(), "numeric columns that are not those")
    refused(lambda s: s["fields"][0].update(name="item"), "fields that are not those")
    refused(lambda s: s["fields"][0].update(kind="bag"), "fields that are not those")
    refused(lambda s: s["fields"][0].update(num_embeddings=7), "61|ids of 'user'")
    refused(lambda s: s["fields"][0].update(distinct=-1), "distinct")
    refused(lambda s: s["fields"][0].update(distinct="60"), "Expected `int`, got `str`")
    refused(lambda s: s["fields"][0].update(colour=1), "unknown field `colour`")
    refused(lambda s: s["numeric"][0].update(deviation=0), "deviation")
    refused(lambda s: s["data"].update(hash_seed=5), "missing values")
    refused(lambda s: s["data"].update(hash_seed="x"), "hash_seed")
    refused(lambda s: s["data"].update(fields=[["user"]]), "fields")
    refused(lambda s: s.update(vocabulary=False), "vocabulary")
    refused(lambda s: s.update(version=2**70), "64 bits")
    refused(lambda s: s.update(version=9), "newer format")


@pytest.mark.parametrize("name", ["log.json", "schema.json", "train/00000.parquet"])
def test_a_file_without_permission_is_told_as_such(log: Path, name: str) -> None:
    copy = Path(tempfile.mkdtemp(prefix="bitfold-test-")) / "log"
    user = os.geteuid()
    try:
        shutil.copytree(log, copy)
        assert list(PreparedLog(copy).columns("train", ["label"]))
        copy.parent.chmod(0o755)
        (copy / name).chmod(0o200)
        if user == 0:
            os.seteuid(65534)  # nobody: root may read everything
        with pytest.raises(BitfoldError, match=f"{copy / name} may not be read") as caught:
            list(PreparedLog(copy).columns("train", ["label"]))
        assert "chmod" in str(caught.value.fix)
    finally:
        os.seteuid(user)
        shutil.rmtree(copy.parent)


@pytest.mark.parametrize(
    ("kind", "more"),
    [("Adam", {}), ("AdamW", {}), ("Adagrad", {}), ("SGD", {}), ("SGD", {"momentum": 0.9})],
)
def test_a_state_without_one_of_its_parts_is_refused(kind: str, more: dict[str, float]) -> None:
    torch = pytest.importorskip("torch")
    from bitfold.training.checkpoint import _check_state

    weight = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = getattr(torch.optim, kind)([weight], lr=0.1, **more)
    weight.grad = torch.ones(3, 2)
    optimizer.step()
    state = {0: dict(optimizer.state[weight])}
    _check_state(optimizer, state)
    for name in state[0]:
        with pytest.raises(ValueError, match="of parameter 0"):
            _check_state(optimizer, {0: {k: v for k, v in state[0].items() if k != name}})
    with pytest.raises(ValueError, match="of parameter 1"):
        _check_state(optimizer, {1: state[0] or {"step": 1}})
    with pytest.raises(ValueError, match="shape"):
        _check_state(optimizer, {0: state[0] | {"sum": torch.ones(7)}})
