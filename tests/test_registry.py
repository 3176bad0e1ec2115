"""The list of methods: built-in, by plugin file, by entry point; names that clash."""

from importlib.metadata import EntryPoint

import pytest
import torch

import bitfold
from bitfold import BitfoldError, Embedding, UnknownName
from bitfold.method import registry

ONE_ROW = '''
from dataclasses import dataclass
from typing import ClassVar

from bitfold import Method
from bitfold.address import Lookup, Mixed, Program
from bitfold.config import option


@dataclass(frozen=True)
class OneRow(Method):
    """All ids of a field share a row."""

    loud: bool = option(False, help="nothing")
    name: ClassVar[str] = "NAME"
    summary: ClassVar[str] = "all ids of a field share a row"
    when: ClassVar[str] = "never"

    def plan(self, ask):
        lookups = tuple((Lookup(Mixed(1), 1, row),) for row in range(len(ask.fields)))
        return self.finish(ask, Program(1, lookups, len(ask.fields)), "sum")
'''


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "_plugins", {})
    registry._registered.cache_clear()
    yield
    registry._registered.cache_clear()


def plugin(folder, name="one-row", text=ONE_ROW):
    file = folder / "mine.py"
    file.write_text(text.replace("NAME", name))
    return file


def test_the_built_in_methods_say_what_they_are_and_when_to_use_them():
    found = bitfold.methods()
    assert set(found) >= {"full", "hash", "multi-hash", "binary-code"}
    for name, info in found.items():
        assert info.summary
        assert info.when
        assert info.version >= 1
        assert registry.method_kind(name).name == name
    assert not found["full"].hashed_ids
    assert found["binary-code"].hashed_ids


def test_a_plugin_file_adds_a_method(tmp_path):
    assert bitfold.load_plugin(plugin(tmp_path)) == ["one-row"]
    assert bitfold.methods()["one-row"].when == "never"
    embedding = Embedding(100, 4, method="one-row", budget=100, loud="yes")
    vectors = embedding(torch.arange(100))
    assert (vectors == vectors[0]).all()
    assert embedding.plan.options["loud"] is True
    with pytest.raises(UnknownName, match="did you mean 'loud'"):
        Embedding(100, 4, method="one-row", lod=1)


def test_a_plugin_may_postpone_its_annotations(tmp_path):
    text = "from __future__ import annotations\n" + ONE_ROW
    bitfold.load_plugin(plugin(tmp_path, "postponed", text))
    plan = bitfold.plan([bitfold.Field("q")], 4, method="postponed", loud="true")
    assert plan.options["loud"] is True


@pytest.mark.parametrize("name", ["hash", "binary-code"])
def test_a_plugin_cannot_take_a_name_that_is_taken(tmp_path, name):
    with pytest.raises(BitfoldError, match="can't be registered"):
        bitfold.load_plugin(plugin(tmp_path, name))
    bitfold.load_plugin(plugin(tmp_path, "new-one"))
    with pytest.raises(BitfoldError, match="can't be registered"):
        bitfold.load_plugin(plugin(tmp_path, "new-one"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1\n", "defines no method"),
        ("def :\n", "cannot be read"),
        ("1 / 0\n", "cannot be read"),
    ],
)
def test_a_plugin_file_that_is_none(tmp_path, text, says):
    with pytest.raises(BitfoldError, match=says):
        bitfold.load_plugin(plugin(tmp_path, text=text))


@pytest.mark.parametrize("name", ["absent.py", "."])
def test_a_plugin_that_is_not_there(tmp_path, name):
    with pytest.raises(BitfoldError, match="no plugin there"):
        bitfold.load_plugin(tmp_path / name)


def entry(monkeypatch, name, value):
    def found(*, group):
        return [EntryPoint(name, value, group)]

    monkeypatch.setattr(registry, "entry_points", found)


def test_an_entry_point_adds_a_method(tmp_path, monkeypatch):
    plugin(tmp_path, "from-afar")
    monkeypatch.syspath_prepend(tmp_path)
    entry(monkeypatch, "from-afar", "mine:OneRow")
    assert "from-afar" in bitfold.methods()
    assert Embedding(None, 4, method="from-afar").plan.bytes == 4 * 4 + 8


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("hash", "bitfold.method.full:Full", "can't be registered"),
        ("other", "bitfold.method.full:Full", "can't be registered"),
        ("other", "bitfold.errors:BitfoldError", "not a Method"),
        ("other", "bitfold.errors:unknown_name", "not a Method"),
    ],
)
def test_an_entry_point_that_clashes_is_refused(monkeypatch, name, value, says):
    entry(monkeypatch, name, value)
    with pytest.raises(BitfoldError, match=says):
        bitfold.methods()


def test_unknown_methods_get_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'multi-hash'"):
        registry.method_kind("multihash")
