"""Equal bytes: who faces whom, and when the hash trick is run again."""

from pathlib import Path
from typing import Any

import pytest

from bitfold.comparison.opponents import opponents
from command import READING, TRAINING, bitfold, write_ratings
from test_compare import board_of


def hashed(room: int) -> Any:
    """A hash trick of rows of 16 bytes, of at most `room` bytes."""
    return lambda budget: min(int(budget.replace(",", "").split()[0]) // 16 * 16, room)


def test_a_method_that_fills_its_budget_faces_the_hash_trick_there() -> None:
    sizes = {("hash", "1KB"): 992, ("hash", "2KB"): 1984, ("a", "1KB"): 1000, ("a", "2KB"): 1990}
    facing, more = opponents(sizes, "hash", 0.01, hashed(10**6))
    assert facing == {("a", "1KB"): ("hash", "1KB"), ("a", "2KB"): ("hash", "2KB")}
    assert more == []


def test_a_method_that_falls_short_gets_one_of_its_own_size() -> None:
    sizes = {("hash", "1KB"): 992, ("a", "1KB"): 700, ("b", "1KB"): 702}
    facing, more = opponents(sizes, "hash", 0.01, hashed(10**6))
    assert more == ["700 B"]  # one does for both
    assert set(facing.values()) == {("hash", "700 B")}


def test_a_line_of_another_budget_serves_too() -> None:
    sizes = {("hash", "1KB"): 992, ("hash", "500 B"): 496, ("a", "1KB"): 500}
    facing, more = opponents(sizes, "hash", 0.01, hashed(10**6))
    assert (facing["a", "1KB"], more) == (("hash", "500 B"), [])


def test_no_line_is_run_twice_and_none_that_cannot_be() -> None:
    """A hash trick with a row for every id cannot grow: the line that is there is the nearest."""
    facing, more = opponents(
        {("hash", "9KB"): 4000, ("a", "9KB"): 9000}, "hash", 0.01, hashed(4000)
    )
    assert (facing["a", "9KB"], more) == (("hash", "9KB"), [])
    assert opponents({("a", "1KB"): 40}, "hash", 0.01, lambda budget: None) == ({}, [])


@pytest.mark.parametrize(("tolerance", "added"), [(0.01, True), (0.2, True), (1.0, False)])
def test_the_tolerance_is_a_word(tolerance: float, added: bool) -> None:
    sizes = {("hash", "1KB"): 992, ("a", "1KB"): 700}
    assert bool(opponents(sizes, "hash", tolerance, hashed(10**6))[1]) is added


def test_the_command_runs_the_hash_trick_again_at_the_bytes_of_a_method(tmp_path: Path) -> None:
    ratings = write_ratings(tmp_path / "ratings.csv", users=200, items=150)
    short = "binary-code:block_bits=3"
    words = ("--methods", f"hash,{short}", "--budgets", "3000B", "--seeds", 2, "--no-floors")
    got = bitfold("compare", ratings, *READING, *TRAINING, *words, "--out", tmp_path / "board")
    assert got.code == 0, got.err
    board: dict[str, Any] = board_of(tmp_path / "board")
    sizes = {(row["method"], row["budget"]): row["bytes"] for row in board["results"]}
    wanted = sizes[short, "3000B"]
    assert wanted < 0.99 * 3000
    assert abs(sizes["hash", f"{wanted:,} B"] - wanted) <= 16  # to the row
    assert sizes["hash", "3000B"] > 0.98 * 3000
    (auc,) = (
        row for row in board["differences"] if row["method"] == short and row["metric"] == "auc"
    )
    assert (auc["against"], auc["against_budget"]) == ("hash", f"{wanted:,} B")
    assert auc["seeds"] == 2
    seeds = {row["seed"] for row in board["results"] if row["budget"] == f"{wanted:,} B"}
    assert seeds == {0, 1}
