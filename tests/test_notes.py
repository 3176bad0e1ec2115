"""Notes: what is said though nothing is wrong."""

import pytest

import bitfold
from bitfold.notes import note, once


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "bitfold"]


def test_a_note_is_said_each_time_but_within_once(caplog: pytest.LogCaptureFixture) -> None:
    with once():
        for text in ("a", "b", "a", "a"):
            note(text)
    note("a")
    note("a")
    assert said(caplog) == ["bitfold: a", "bitfold: b", "bitfold: a", "bitfold: a"]


@pytest.mark.parametrize(("rank", "count"), [("0", 1), ("1", 0)])
def test_of_several_processes_the_first_says_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, rank: str, count: int
) -> None:
    monkeypatch.setenv("RANK", rank)
    note("a")
    assert len(said(caplog)) == count


def test_every_cell_meets_it_and_a_comparison_says_it_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = {"user": list(range(40)) * 10, "clicked": [0, 1, 1, 0] * 100}
    options = {"label": "clicked", "fields": "user", "split": "random:0.7,0.3,0", "width": 4}
    options |= {"hidden": [4], "epochs": 1, "floors": False, "diagnosis": False, "seeds": 1}
    found = bitfold.compare(rows, methods="full,hash", budgets="2x", progress=False, **options)
    assert len(found.results) == 2
    assert [line for line in said(caplog) if "test part is empty" in line] == said(caplog)
    assert len(said(caplog)) == 1
