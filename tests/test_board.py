"""The cells of a comparison and what their figures add up to."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from bitfold.comparison.board import lines, write_results
from bitfold.comparison.config import (
    Cell,
    CompareConfig,
    Variant,
    cell_options,
    cells,
    parse_variant,
)
from bitfold.comparison.records import read_results
from bitfold.errors import BitfoldError, UnknownName

KNOWN = {"full": (), "hash": ("allocation",), "binary-code": ("allocation", "blocks", "strategy")}


def row(method: str, budget: str, seed: int, auc: float) -> dict[str, Any]:
    figures = {"logloss": 0.5, "gauc": None, "bytes": 1000, "ratio": 10.0}
    return {
        "method": method,
        "budget": budget,
        "seed": seed,
        "auc": auc,
        **figures,
        "training_bytes": 4000,
        "rows_per_second": 1e5,
    }


def test_full_appears_once_and_seeds_go_on_from_the_first() -> None:
    words = CompareConfig(methods=("full", "hash"), budgets=("10x", "100x"), seeds=2)
    assert [(c.variant.name, c.budget, c.seed) for c in cells(words, 5)] == [
        ("full", "1x", 5),
        ("hash", "10x", 5),
        ("hash", "100x", 5),
        ("full", "1x", 6),
        ("hash", "10x", 6),
        ("hash", "100x", 6),
    ]


def test_slugs_differ_and_name_no_folder() -> None:
    variants = ["hash", "binary-code:blocks=2,fusion=sum", "binary-code:blocks=2"]
    made = [
        Cell(parse_variant(text), budget, 0).slug
        for text in variants
        for budget in ("10x", "1.5 MiB", "64MiB")
    ]
    assert len(set(made)) == 9
    assert not any("/" in slug or ":" in slug or " " in slug for slug in made)


def test_methods_with_options_of_their_own() -> None:
    words = CompareConfig(methods=("full", "binary-code:strategy=skip", "fusion=sum", "hash"))
    assert [v.name for v in words.variants] == [
        "full",
        "binary-code:strategy=skip,fusion=sum",
        "hash",
    ]
    assert words.variants[1].options == {"strategy": "skip", "fusion": "sum"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"methods": ()}, "nothing to compare"),
        ({"methods": ("hash", "hash")}, "compared twice"),
        ({"methods": ("hash:blocks",)}, "cannot be read"),
        ({"seeds": 0}, "needs a seed"),
        ({"budgets": ()}, "needs a budget"),
    ],
)
def test_words_that_make_no_comparison(words: dict[str, Any], message: str) -> None:
    with pytest.raises(BitfoldError, match=message):
        CompareConfig(**words)


def test_full_alone_needs_no_budget() -> None:
    assert len(cells(CompareConfig(methods=("full",), budgets=(), seeds=1), 0)) == 1


def test_options_go_to_the_methods_that_have_them() -> None:
    said = {"allocation": "0.5", "binary-code.blocks": "3"}
    assert cell_options(Variant("full", "full"), said, KNOWN) == {}
    assert cell_options(Variant("hash", "hash"), said, KNOWN) == {"allocation": "0.5"}
    own = Variant("binary-code:blocks=2", "binary-code", {"blocks": "2"})
    assert cell_options(own, said, KNOWN) == {"allocation": "0.5", "blocks": "2"}


def test_an_option_of_one_method_wins_over_that_of_all() -> None:
    said = {"hash.allocation": "0.1", "allocation": "0.5"}
    assert cell_options(Variant("hash", "hash"), said, KNOWN) == {"allocation": "0.1"}


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("blokcs", "did you mean 'blocks'"),
        ("hash.blocks", "option of hash"),
        ("hsah.allocation", "did you mean 'hash'"),
    ],
)
def test_unknown_options(key: str, message: str) -> None:
    with pytest.raises(UnknownName) as caught:
        cell_options(Variant("hash", "hash"), {key: "1"}, KNOWN)
    assert message in str(caught.value)


def test_lines_have_means_spreads_and_the_share_of_full() -> None:
    results = [
        row("full", "1x", 0, 0.80),
        row("full", "1x", 1, 0.82),
        row("hash", "10x", 0, 0.70),
        row("hash", "10x", 1, 0.74),
    ]
    full, hashed, refused = lines(
        results, [{"method": "hash", "budget": "9x", "minimum": 5, "reason": "needs 5 bytes"}]
    )
    assert full.means["auc"] == pytest.approx(0.81)
    assert full.kept == pytest.approx(1.0)
    assert hashed.means["auc"] == pytest.approx(0.72)
    assert hashed.spreads["auc"] == pytest.approx(0.0282843, rel=1e-5)  # sqrt(2 * 0.02**2)
    assert hashed.kept == pytest.approx(0.72 / 0.81)
    assert "gauc" not in hashed.means
    assert refused.minimum == 5


def test_one_seed_has_no_spread() -> None:
    (line,) = lines([row("hash", "10x", 0, 0.7)])
    assert line.spreads["auc"] is None
    assert line.kept is None


def test_results_as_json_and_csv(tmp_path: Path) -> None:
    rows = [row("hash", "10x", 0, 0.7) | {"options": {"a": 1}, "width": 16}]
    refused = [{"method": "hash", "budget": "1 B", "minimum": 64, "reason": "needs 64 bytes"}]
    write_results(tmp_path, rows, refused)
    board = json.loads((tmp_path / "results.json").read_text())
    assert board["results"] == rows
    assert board["refused"] == refused
    assert read_results(tmp_path / "results.json") == {"results": rows, "refused": refused}
    (tmp_path / "results.json").write_text(json.dumps(board | {"refused": []}))
    with pytest.raises(BitfoldError, match="not what was saved"):
        read_results(tmp_path / "results.json")
    (line,) = csv.DictReader((tmp_path / "results.csv").read_text().splitlines())
    assert line["auc"] == "0.7"
    assert line["gauc"] == ""
    assert line["width"] == "16"
    assert "options" not in line
