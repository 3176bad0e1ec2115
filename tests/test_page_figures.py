"""The page at figures that nobody thought of: left out and named, and never an abort."""

import copy
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import boards
from bitfold.errors import BitfoldError
from bitfold.report import write_page
from bitfold.report.figures import drawable
from bitfold.report.reading import read_board
from bitfold.report.renderer import ChartFailed, Renderer


def values(**more: Any) -> dict[str, Any]:
    return boards.results() | boards.more() | more


@pytest.mark.parametrize("wrong", [None, True, "0.7", [], {}, -0.1, 1.5, 10**30, {"auc": 1}])
def test_a_run_of_odd_figures_is_left_out_and_named(wrong: Any) -> None:
    board = copy.deepcopy(values())
    board["results"][0]["bytes"] = wrong if wrong is not None else "none"
    found = drawable(board)
    assert len(found.rows) == len(board["results"]) - 1
    assert found.left_out[0].startswith("run 1: ")


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("curve", [{"epoch": "1"}]),
        ("curve", 3),
        ("by_field", [{"field": "user", "ids": -1, "bytes": 3}]),
        ("by_field", [{"field": 7}]),
        ("by_frequency", [{"field": "user", "groups": [None]}]),
        ("rows_per_second", "fast"),
        ("versions", ["2.0"]),
        ("environment", {"cpu": []}),
        ("by_kind", {"weights": 1.5}),
    ],
)
def test_a_part_of_odd_figures_is_left_out_and_named(name: str, wrong: Any) -> None:
    board = copy.deepcopy(values())
    board["results"][0][name] = wrong
    found = drawable(board)
    assert name not in found.rows[0]
    assert name in found.rows[1]
    assert found.left_out[0].startswith(f"{name} of full 1x")


@pytest.mark.parametrize(
    ("name", "wrong", "told"),
    [
        ("differences", [{"method": "hash"}], "differences"),
        ("grid", {"searched": True, "cells": [{}], "choices": []}, "the grid"),
        ("references", {"popularity": {"auc": "x"}}, "the reference popularity"),
        ("unseen", [{"field": None}], "unseen ids"),
        ("refused", [{"method": 1}], "what was refused"),
    ],
)
def test_other_odd_figures_are_left_out_and_named(name: str, wrong: Any, told: str) -> None:
    found = drawable(values(**{name: wrong}))
    assert found.left_out[0].startswith(told)
    assert not drawable(values()).left_out


def test_nothing_to_draw_is_one_message() -> None:
    with pytest.raises(BitfoldError, match="nothing of this comparison can be drawn"):
        drawable({"results": [{"method": "hash", "auc": 0.5}]})


@pytest.mark.parametrize("name", ["user\x01", "a\x00b", "\x1b[31m", "x" * 5000, "\u202e\ufffe"])
def test_names_that_nobody_can_see_do_not_stop_the_page(tmp_path: Path, name: str) -> None:
    board = boards.renamed(values(), "user", name)
    out = boards.write_board(tmp_path, board, boards.WORDS)
    page = write_page(out).read_text(encoding="utf-8")
    assert page.count("<svg") > 5
    assert name not in page or len(name) > 100
    assert not any(ord(letter) < 32 and letter != "\n" for letter in page)


def test_what_is_left_out_stands_on_the_page(tmp_path: Path) -> None:
    board = values()
    board["results"][0]["by_field"] = [{"field": "user", "ids": "many", "bytes": 1}]
    board["results"][1]["auc"] = 7
    page = write_page(boards.write_board(tmp_path, board, boards.WORDS)).read_text()
    assert "Left out," in page
    assert "by_field of full 1x" in page
    assert "run 2" in page


def test_a_section_that_fails_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("no rows")

    monkeypatch.setattr("bitfold.report.sections.speed", fails)
    page = write_page(boards.write_board(tmp_path, values(), boards.WORDS)).read_text()
    assert "the section speed: no rows" in page
    assert 'id="quality"' in page


def test_the_chart_library_may_die_and_the_next_chart_is_drawn() -> None:
    renderer = Renderer()
    spec = {"mark": "point", "data": {"values": [{"a": 1}]}, "encoding": {"x": {"field": "a"}}}
    try:
        assert renderer.draw("svg", spec).startswith(b"<svg")
        assert renderer._process is not None
        os.kill(renderer._process.pid, signal.SIGABRT)
        with pytest.raises(ChartFailed, match="SIGABRT"):
            renderer.draw("svg", spec)
        assert renderer.draw("png", spec).startswith(b"\x89PNG")
        with pytest.raises(ChartFailed):
            renderer.draw("svg", {"mark": ["nonsense"]})
        odd = {"mark": "text", "data": {"values": [{"a": float("nan"), "b": "\x00"}]}}
        assert renderer.draw("svg", odd).startswith(b"<svg")
        renderer.seconds = 0.0
        with pytest.raises(ChartFailed, match="nothing after 0 seconds"):
            renderer.draw("svg", spec)
    finally:
        renderer.close()


def test_options_that_were_changed_are_not_shown(tmp_path: Path) -> None:
    out = boards.write_board(tmp_path, values(), boards.WORDS)
    assert read_board(out).said["train"]
    words = json.loads((out / "compare.json").read_text()) | {"digest": "0" * 32}
    (out / "compare.json").write_text(json.dumps(words))
    board = read_board(out)
    assert board.said == {}
    assert "options" in board.left_out[0]
