"""What a run's files may say, and what becomes of a run that says something else."""

import json
import os
import resource
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitfold
from bitfold.data.prepare import prepare
from bitfold.errors import BitfoldError
from bitfold.files import sha256
from bitfold.records import sealed
from bitfold.runs.config import RunConfig
from bitfold.training import train
from click_log import DATA, TINY, columns, write

ROWS = columns(20, seed=5)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose method has a map of its own to dense ids, and one with hashed ids."""
    folder = tmp_path_factory.mktemp("runs")
    raw = write(folder / "clicks.csv", columns(400))
    log = prepare([raw], folder / "log", DATA).path
    train([log], None, replace(TINY, method="full", budget=None, epochs=1), folder / "dense")
    train([log], None, replace(TINY, epochs=1), folder / "run")
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made / "run", tmp_path / "copy")


def resealed(run: Path, change: Any = None) -> None:
    """Put the manifest right, as somebody might who wants a changed file to be read."""
    manifest = json.loads((run / "manifest.json").read_text())
    for name, seal in manifest["files"].items():
        if (run / name).is_file():
            seal.update(bytes=(run / name).stat().st_size, sha256=sha256(run / name))
    if change is not None:
        change(manifest["files"])
    (run / "manifest.json").write_text(json.dumps(sealed(manifest)))


def edit(file: Path, change: Any) -> None:
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(sealed(value) if "digest" in value else value))


def test_a_file_that_the_manifest_does_not_name_is_not_read(made: Path, copy: Path) -> None:
    expected = bitfold.load(copy).predict(ROWS)
    shutil.copy(made / "dense" / "dense.safetensors", copy / "dense.safetensors")
    (copy / "vocabulary.safetensors").write_bytes(b"x")
    assert np.array_equal(bitfold.load(copy).predict(ROWS), expected)


@pytest.mark.parametrize("name", ["schema.json", "config.json", "plan.json", "metrics.json"])
def test_a_manifest_names_every_file_that_is_read(copy: Path, name: str) -> None:
    resealed(copy, lambda files: files.pop(name))
    with pytest.raises(BitfoldError, match=rf"damaged\n  got: no {name}"):
        bitfold.load(copy)


def test_a_run_without_its_map_is_refused(made: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(made / "dense", tmp_path / "copy")
    resealed(copy, lambda files: files.pop("dense.safetensors"))
    with pytest.raises(BitfoldError, match="a plan of other fields"):
        bitfold.load(copy)


@pytest.mark.parametrize(
    "name", ["../run/config.json", "/etc/hostname", "a/b", "..", ".hidden", "", "a\nb"]
)
def test_names_of_a_manifest_lie_in_the_folder(copy: Path, name: str) -> None:
    resealed(copy, lambda files: files.update({name: files["plan.json"]}))
    with pytest.raises(BitfoldError, match=r"manifest\.json is damaged"):
        bitfold.load(copy)


def group(plan: Any) -> Any:
    """The only group of a plan."""
    (found,) = plan["groups"]
    return found


def larger(plan: Any, rows: int) -> None:
    group(plan)["program"]["rows"] = group(plan)["pools"][0]["rows"] = rows


def wider(plan: Any, width: int) -> None:
    plan["embedding_dim"] = width


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("plan.json", lambda plan: larger(plan, 10**9)),
        ("plan.json", lambda plan: larger(plan, 2**50)),
        ("plan.json", lambda plan: wider(plan, 2**30)),
        ("config.json", lambda config: config["train"].update(hidden=[10**6, 10**6])),
        ("config.json", lambda config: config["train"].update(width=10**9)),
    ],
)
def test_sizes_are_checked_before_anything_is_allocated(copy: Path, name: str, change: Any) -> None:
    edit(copy / name, change)
    resealed(copy)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BitfoldError, match=r"weights"):
        bitfold.load(copy)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda p: group(p)["program"]["fields"][0][0].update(radix=0), "makes no sense"),
        (lambda p: group(p)["program"]["fields"][0][0].update(base=-1), "base"),
        (lambda p: group(p)["program"]["fields"][0][0].update(base=10**9), "makes no sense"),
        (lambda p: group(p)["program"]["fields"][0][0].update(divisor=0), "makes no sense"),
        (lambda p: group(p)["program"]["fields"][0][0].update(offset=-5), "offset"),
        (lambda p: group(p)["program"]["fields"][0][0]["source"].update(mix_bits=65), "mix_bits"),
        (lambda p: group(p)["program"]["fields"][0][0]["source"].update(salt=2**70), "64 bits"),
        (lambda p: group(p)["program"]["fields"][0][0]["source"].update(salt="x"), "salt"),
        (lambda p: group(p)["program"]["fields"][0][0].update(more=1), "unknown field `more`"),
        (lambda p: group(p)["program"]["fields"].pop(), "other fields"),
        (lambda p: p["fields"][0].update(name="nobody"), "other fields"),
        (lambda p: p["fields"][0].update(num_embeddings=-1), "num_embeddings"),
        (lambda p: p.update(embedding_dim=0), "embedding_dim"),
        (lambda p: p.update(embedding_dim="4"), "embedding_dim"),
        (lambda p: group(p).update(dtype="float31"), "dtype"),
        (lambda p: group(p).update(fusion="juice"), "juice"),
        (lambda p: group(p).update(method="nothing"), "nothing"),
        (lambda p: p.update(plan_version=99), "not known here"),
        (lambda p: group(p).update(own={"weights": -1}), "own"),
        (lambda p: p.update(options=[]), "options"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(copy: Path, change: Any, told: str) -> None:
    edit(copy / "plan.json", change)
    resealed(copy)
    with pytest.raises(BitfoldError) as caught:
        bitfold.load(copy)
    assert told in str(caught.value)


def test_figures_are_numbers(copy: Path) -> None:
    for change in ({"auc": "high"}, {"epochs": -1}, {"rows": [1]}, {"bytes": 1.5}):
        metrics = json.loads((copy / "metrics.json").read_text()) | change
        (copy / "metrics.json").write_text(json.dumps(metrics))
        resealed(copy)
        with pytest.raises(BitfoldError, match=r"metrics\.json is damaged"):
            bitfold.load(copy)
        (copy / "metrics.json").write_text(json.dumps(metrics | {"auc": 0.5}))


def test_a_run_of_format_1_is_still_read(copy: Path) -> None:
    expected = bitfold.load(copy).predict(ROWS)
    for name in ("config.json", "manifest.json"):
        value = json.loads((copy / name).read_text())
        del value["digest"]
        value["format"] = 1
        (copy / name).write_text(json.dumps(value))
        if name == "config.json":
            resealed(copy)
    assert np.array_equal(bitfold.load(copy).predict(ROWS), expected)


def test_the_options_of_a_training_that_has_not_ended_are_checked(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["train"]["lr"] = 0.5
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(BitfoldError, match="not what was saved"):
        RunConfig.load(copy / "config.json")
    del config["digest"]
    (copy / "config.json").write_text(json.dumps(config | {"format": 1}))
    assert RunConfig.load(copy / "config.json").train.lr == 0.5
    for wrong in (3, [], "x", {"lr": "fast"}, {"epochs": 2.5}, {"hidden": [[1]]}, {"set": [1]}):
        text = json.dumps(config | {"format": 1, "train": wrong})
        (copy / "config.json").write_text(text)
        with pytest.raises(BitfoldError):
            RunConfig.load(copy / "config.json")


@pytest.mark.parametrize("name", ["manifest.json", "weights.safetensors", "schema.json"])
def test_a_file_without_permission_is_told_as_such(made: Path, name: str) -> None:
    copy = Path(tempfile.mkdtemp(prefix="bitfold-test-")) / "run"
    user = os.geteuid()
    try:
        shutil.copytree(made / "run", copy)
        copy.parent.chmod(0o755)
        (copy / name).chmod(0o200)
        if user == 0:
            os.seteuid(65534)  # nobody: root may read everything
        with pytest.raises(BitfoldError, match=f"{copy / name} may not be read"):
            bitfold.load(copy)
    finally:
        os.seteuid(user)
        shutil.rmtree(copy.parent)
