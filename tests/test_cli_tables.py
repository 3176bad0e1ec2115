"""Tables: what a board shows, wide and narrow."""

import io

import pytest
from rich.console import Console

from bitfold.cli.tables import BOARD_WIDTH, board_table, figure, metrics_table
from bitfold.comparison.board import Line

MEANS = {"auc": 0.8, "logloss": 0.5, "bytes": 1000, "ratio": 10.0, "rows_per_second": 123.4}
ROWS = [
    Line("full", "1x", 2, MEANS | {"map_bytes": 2048}, {"auc": 0.01}, 1.0, 1.0),
    Line("hash[red]", "10x", 2, MEANS | {"auc": 0.7}, {"auc": 0.02}, 0.875, 2 / 3),
    Line("binary-code", "10x", minimum=4936),
]


def printed(narrow: bool) -> list[str]:
    screen = Console(file=io.StringIO(), width=80 if narrow else BOARD_WIDTH, markup=False)
    screen.print(board_table("Board", ROWS, narrow=narrow))
    text = screen.file.getvalue()  # type: ignore[attr-defined]
    return [" ".join(line.split()) for line in text.splitlines()]


def test_a_board_has_every_figure() -> None:
    lines = printed(narrow=False)
    assert "full 1x 1000 B 2.0 KiB 10.0x 0.8000 ± 0.0100 100.0% 100.0% 0.5000 - 123" in lines
    assert "hash[red] 10x 1000 B - 10.0x 0.7000 ± 0.0200 87.5% 66.7% 0.5000 - 123" in lines
    assert "binary-code 10x needs 4,936 B" in lines


def test_a_narrow_board_keeps_what_matters_and_cuts_nothing() -> None:
    lines = printed(narrow=True)
    assert "full 1x 1000 B 2.0 KiB 10.0x 0.8000 ± 0.0100 100.0%" in lines
    assert not any("…" in line or "log loss" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("auc", 0.5, "0.5000"),
        ("bytes", 12345, "12,345"),
        ("rows_per_second", 99.6, "100"),
        ("ratio", 1234.5, "1,234.5x"),
        ("seconds", 2.25, "2.2"),
        ("part", "test", "test"),
    ],
)
def test_figures_in_words(name: str, value: object, text: str) -> None:
    assert figure(name, value) == text


def test_metrics_leave_out_what_could_not_be_computed() -> None:
    nan = float("nan")
    made = metrics_table(
        "t", {"auc": 0.5, "gauc": None, "ece": nan, "valid": {"auc": 0.6, "gauc": nan}}
    )
    assert made.row_count == 2
