"""A run names the plugin file of its method: what is missing or has changed is said by name."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError
from safetensors import torch as safetensors

import bitfold
from bitfold import BitfoldError
from bitfold.files import sha256
from bitfold.method import registry
from command import bitfold as command
from command import process

PLUGIN = """
from dataclasses import dataclass
from bitfold.method.hash import Hash


@dataclass(frozen=True)
class Mine(Hash):
    '''The hash trick under a name of its own.'''

    name = "mine"
    summary = "one of my own"
    when = "never"
"""
ROWS = {"user": [f"u{i % 30}" for i in range(200)], "clicked": [0, 1, 1, 0] * 50}
OPTIONS: dict[str, Any] = {
    **{"label": "clicked", "fields": "user", "split": "random:0.6,0.2,0.2", "width": 4},
    **{"hidden": [4], "epochs": 2, "method": "mine", "budget": "400B", "progress": False},
}


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN)
    return file


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Forget every plugin, as a new process has."""

    def forgotten() -> None:
        monkeypatch.setattr(registry, "_plugins", {})

    forgotten()
    return forgotten


@pytest.fixture
def run(plugin: Path, tmp_path: Path, forget: Callable[[], None]) -> Path:
    bitfold.load_plugin(plugin)
    made = bitfold.train(ROWS, tmp_path / "run", **OPTIONS)
    assert made.config.plugins == (registry.PluginFile(str(plugin), sha256(plugin), ("mine",)),)
    forget()
    return tmp_path / "run"


def test_a_run_without_plugins_does_not_speak_of_them(tmp_path: Path) -> None:
    bitfold.train(ROWS, tmp_path / "run", **OPTIONS | {"method": "hash"})
    assert "plugins" not in json.loads((tmp_path / "run" / "config.json").read_text())


def test_what_is_not_loaded_is_named(run: Path, plugin: Path) -> None:
    changes: list[tuple[Callable[[], object], str]] = [
        (lambda: None, "which is as it was"),
        (lambda: plugin.write_text(PLUGIN + "# edited\n"), "which has changed since"),
        (lambda: plugin.unlink(), "which is not there any more"),
    ]
    for change, state in changes:
        change()
        with pytest.raises(BitfoldError, match=state) as error:
            bitfold.load(run)
        assert str(plugin) in str(error.value)
        assert "'mine'" in str(error.value)
        assert "--plugin" in str(error.value.fix)


def test_once_loaded_the_run_scores_and_goes_on(run: Path, plugin: Path, tmp_path: Path) -> None:
    bitfold.load_plugin(plugin)
    before = bitfold.load(run).predict(ROWS)
    assert len(before) == 200
    again = bitfold.train(ROWS, tmp_path / "next", from_run=run, progress=False)
    assert again.config.train.method == "mine"
    assert [Path(file.path) for file in again.config.plugins] == [plugin]


def test_another_content_is_noted(
    run: Path, plugin: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bitfold.load_plugin(plugin)
    with caplog.at_level(logging.WARNING):
        bitfold.load(run)
    assert not caplog.records
    registry._plugins.clear()
    plugin.write_text(PLUGIN + "# edited\n")
    bitfold.load_plugin(plugin)
    with caplog.at_level(logging.WARNING):
        bitfold.load(run)
    assert "another content of the plugin" in caplog.text
    assert str(plugin) in caplog.text


def test_a_stopped_training_goes_on_with_the_same_plugin_alone(
    plugin: Path, tmp_path: Path, forget: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    bitfold.load_plugin(plugin)
    save, left = safetensors.save_file, 4

    def until_full(*given: Any, **words: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise SafetensorError("No space left on device")
        save(*given, **words)

    log = bitfold.prepare(ROWS, tmp_path / "log", **{k: OPTIONS[k] for k in list(OPTIONS)[:3]})
    words = {k: OPTIONS[k] for k in list(OPTIONS)[3:]} | {"epochs": 4}
    with monkeypatch.context() as patch:
        patch.setattr(safetensors, "save_file", until_full)
        with pytest.raises(BitfoldError, match="cannot write"):
            bitfold.train(log, tmp_path / "run", **words)

    def resume() -> bitfold.Run:
        return bitfold.train(log, tmp_path / "run", resume=True, **words)

    forget()
    with pytest.raises(BitfoldError, match="which is as it was"):
        resume()
    plugin.write_text(PLUGIN + "# edited\n")
    bitfold.load_plugin(plugin)
    with pytest.raises(BitfoldError, match="has changed since its training began"):
        resume()
    forget()
    plugin.write_text(PLUGIN)
    bitfold.load_plugin(plugin)
    assert resume().metrics["epochs"] > 2


def test_the_command_takes_the_plugin(run: Path, plugin: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("user\nu1\nu2\n")
    got = command("predict", run, rows, "--out", tmp_path / "scores.csv")
    assert got.code == 2
    assert f"--plugin {plugin}" in got.err
    told = process("predict", run, rows, "--out", tmp_path / "scores.csv", "--plugin", plugin)
    assert told.code == 0, told.err
    assert (tmp_path / "scores.csv").read_text().count("\n") == 3
