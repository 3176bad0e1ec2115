"""A sample of `make fuzz`: mutated files of every kind are told, or give what is right."""

import random
from collections import Counter
from pathlib import Path

import pytest
from fuzz.__main__ import BEGIN, END, table, write
from fuzz.kinds import KINDS, RIGHT, TOLD, attempt
from fuzz.mutate import change_bytes, change_json, text_of

from bitfold.cli.options import build, read_config
from bitfold.comparison.config import CompareConfig
from bitfold.config import to_json
from bitfold.data.config import DataConfig
from bitfold.data.synth.log import SynthConfig
from bitfold.errors import BitfoldError
from bitfold.runs.options import TrainConfig
from bitfold.settings import options_of

SAMPLE = {
    "raw": 80,
    "logs": 120,
    "runs": 70,
    "deltas": 100,
    "results": 5,
    "checkpoints": 15,
    "cells": 30,
}
FIRST = 100_000  # seeds that `make fuzz` does not come to


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_are_told_or_give_what_is_right(kind: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    KINDS[kind].make(made)
    found = [
        (seed, attempt(kind, seed, made, tmp_path / "work"))
        for seed in range(FIRST, FIRST + SAMPLE[kind])
    ]
    assert [pair for pair in found if pair[1] not in (TOLD, RIGHT)] == []
    assert {outcome for _, outcome in found} == {TOLD, RIGHT} or len(found) < 20


def test_the_same_seed_makes_the_same_change() -> None:
    data, value = bytes(range(200)), {"a": [1, 2.5, {"b": "x"}], "c": None}
    for seed in range(50):
        first, again = random.Random(seed), random.Random(seed)
        assert change_bytes(first, data) == change_bytes(again, data)
        assert repr(change_json(first, value)) == repr(change_json(again, value))
    assert len({change_bytes(random.Random(seed), data) for seed in range(50)}) > 40
    assert value == {"a": [1, 2.5, {"b": "x"}], "c": None}


def test_a_reader_that_lies_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample can fail: without digests some of its tries give other data in silence."""
    made = tmp_path / "made"
    made.mkdir()
    KINDS["logs"].make(made)
    monkeypatch.setattr("bitfold.data.manifest.check_digest", lambda *_: None)
    monkeypatch.setattr("bitfold.data.prepared.check_digest", lambda *_: None)
    found = [attempt("logs", seed, made, tmp_path / "work") for seed in range(300)]
    assert "wrong" in found


def test_the_table_stands_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")

    write(page, table({"raw": Counter(told=3, right=1, unprintable=1)}))
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "\nold\n" not in text
    assert "| raw CSV, TSV, gzip, zstd and Parquet through `prepare` | 5 | 3 | 1 | 1 | 0 |" in text


@pytest.mark.parametrize("kind", [CompareConfig, TrainConfig, DataConfig, SynthConfig])
def test_files_of_options_are_told_or_read(kind: type, tmp_path: Path) -> None:
    options = to_json(kind()) | {"set": {"blocks": "3"}} if kind is TrainConfig else to_json(kind())
    known, file, found = list(options_of(kind)), tmp_path / "options.json", set()
    for seed in range(400):
        changed = change_json(random.Random(seed), options)
        file.write_bytes(text_of(changed).encode("utf-8", "surrogatepass"))
        try:
            build(kind, {}, read_config(str(file), known))
            found.add(RIGHT)
        except BitfoldError:
            found.add(TOLD)
    assert found == {TOLD, RIGHT}
