"""Progress: plain sparse lines where there is no terminal, bars on one."""

import io

import pytest
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from bitfold import bars as drawn
from bitfold.bars import Bars, drawing
from bitfold.cli.tables import show


def test_no_terminal_means_plain_sparse_lines() -> None:
    stream = io.StringIO()
    with drawing(stream=stream) as draw:
        for done in range(0, 1001, 10):
            draw("epoch 1/2", done, 1000, loss=0.5, rows_per_second=12345.6)
        draw("epoch 1/2", 1000, 1000, loss=0.5)
    assert stream.getvalue() == "epoch 1/2  1,000/1,000  loss 0.5000  rows/s 12,346\n"


def test_a_long_stage_gives_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(drawn.time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    with drawing(stream=stream) as draw:
        for done in range(1, 100):
            clock[0] += 1
            draw("reading", done)
    assert [line.split()[1] for line in stream.getvalue().splitlines()] == [
        "15",
        "30",
        "45",
        "60",
        "75",
        "90",
    ]


def test_kept_stages_tell_every_step_and_the_others_nothing() -> None:
    stream = io.StringIO()
    with drawing(keep=("cells",), stream=stream) as draw:
        for cell in range(2):
            draw("cells", cell, 2, now=f"hash seed {cell}")
            draw("epoch 1/1", 10, 10)
        draw("cells", 2, 2)
    assert stream.getvalue().splitlines() == [
        "cells  0/2  now hash seed 0",
        "cells  1/2  now hash seed 1",
        "cells  2/2",
    ]


def test_a_terminal_has_one_bar_a_stage() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"))
    with Progress(*columns, console=console, auto_refresh=False) as bars:
        draw = Bars(("cells",), bars)
        draw("cells", 0, 2)
        draw("epoch [1/2]", 0, 100)
        draw("epoch [1/2]", 100, 100)
        draw("epoch [2/2]", 50, 100)
        bars.refresh()
        names = [task.description for task in bars.tasks]
    assert names == ["cells", r"epoch \[2/2]"] or names == ["cells", "epoch [2/2]"]
    assert "epoch [2/2]" in screen.getvalue()
    assert "50/100" in screen.getvalue()


def test_of_several_processes_the_first_alone_speaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank, said in (("1", ""), ("0", "epoch 1/1  5/5\ndone\n")):
        monkeypatch.setenv("LOCAL_RANK", rank)
        stream = io.StringIO()
        with drawing(stream=stream) as draw:
            draw("epoch 1/1", 5, 5)
        show("done")
        assert stream.getvalue() + capsys.readouterr().out == said
