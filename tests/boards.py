"""Boards for the tests of the page, with every key that results.json may have."""

import json
from pathlib import Path
from typing import Any

HOSTILE = "</title></svg><script>document.title='taken'</script><img src=x onerror=alert(1)>&'\""
METHODS = {"full": ("1x",), "hash": ("10x", "100x"), "binary-code": ("10x", "100x")}
AUC = {"1x": 0.80, "10x": 0.79, "100x": 0.77}
SIZE = {"1x": 1_000_000, "10x": 100_000, "100x": 10_000}


def cell(method: str, budget: str, seed: int, epochs: int = 2) -> dict[str, Any]:
    """The figures of one run, made up."""
    auc = AUC[budget] + 0.001 * seed - 0.01 * (method == "hash")
    fields = [("user", 5000), ("item", 800), ("day", 7)]
    groups = [
        {
            "group": group, "least": group, "most": 2 * group, "rows": 100, "clicks": 20,
            "auc": auc + 0.002 * group, "logloss": 0.5,
        }
        for group in range(5)
    ]  # fmt: skip
    return {
        "method": method, "budget": budget, "seed": seed, "auc": auc, "logloss": 0.45,
        "gauc": None, "calibration": 1.0, "ece": 0.01, "bytes": SIZE[budget] - 100,
        "ratio": 1_000_000 / SIZE[budget], "training_bytes": 4 * SIZE[budget],
        "map_bytes": 60_000 if method == "full" else 0, "network_bytes": 130_000,
        "rows_per_second": 50_000.0 + 1000 * seed, "epochs": epochs, "best_epoch": epochs,
        "seconds": 12.5, "part": "test", "rows": {"train": 8000, "valid": 1000, "test": 1000},
        "versions": {"bitfold": "0.1.0", "torch": "2.13.0"}, "finished": "2026-01-01T00:00:00Z",
        "embedding": method, "options": {}, "width": 16, "network": "deepfm",
        "data": {"label": "clicked", "fields": ["user", "item", "day"]},
        "curve": [
            {
                "epoch": epoch, "loss": 0.5, "valid_auc": auc - 0.01 / epoch,
                "valid_logloss": 0.5, "seconds": epoch, "rows_per_second": 5e4,
            }
            for epoch in range(1, epochs + 1)
        ],
        "by_kind": {"weights": SIZE[budget] - 108, "fingerprint": 8},
        "by_field": [
            {"field": name, "ids": ids, "bytes": SIZE[budget] // (2 + place),
             "abundance": 3.5 - place, "sampled": min(ids, 4096)}
            for place, (name, ids) in enumerate(fields)
        ],
        "by_frequency": [{"field": name, "groups": groups} for name in ("user", "item")],
        "environment": {"cpu": "a processor", "cores": 2, "threads": 2, "gpu": None},
    }  # fmt: skip


def results(epochs: int = 2) -> dict[str, Any]:
    """A board without the keys that other parts of a comparison add."""
    return {
        "results": [
            cell(method, budget, seed, epochs)
            for seed in (0, 1)
            for method, budgets in METHODS.items()
            for budget in budgets
        ],
        "refused": [
            {"method": name, "budget": "1000x", "minimum": 2000, "reason": "needs more"}
            for name in ("hash", "binary-code")
        ],
    }


def more() -> dict[str, Any]:
    """The keys that it may have besides."""
    pair = {"method": "binary-code", "against": "hash", "seeds": 2, "mean": 0.01}
    tried = [
        {"method": m, "budget": b, "lr": lr, "embedding_decay": 0.0, "valid_auc": 0.7 + lr}
        for m, budgets in METHODS.items()
        for b in budgets
        for lr in (0.001, 0.01)
    ]
    return {
        "differences": [
            pair | {"budget": "10x", "metric": "auc", "low": 0.005, "high": 0.015},
            pair | {"budget": "100x", "metric": "auc", "low": -0.001, "high": 0.021},
            pair | {"budget": "100x", "metric": "logloss", "low": None, "high": None},
        ],
        "references": {"logistic regression": {"auc": 0.765}, "popularity": {"auc": 0.55}},
        "grid": {"searched": True, "cells": tried, "choices": [tried[1] | {"edge": ["lr"]}]},
        "unseen": [{"field": "user", "share": 0.12}, {"field": "day", "valid": 0, "test": 0.0}],
    }


WORDS = {
    "format": 1,
    "paths": [{"path": "my data/clicks.csv"}],
    "data": {"label": "rating>=4", "fields": ["user", "item", "day"], "multi": {"tags": "|"}},
    "train": {"epochs": 2, "lr": 2e-3, "hidden": [64], "embedding": "hash", "budget": None},
    "compare": {
        "methods": ["full", "hash", "binary-code"], "budgets": ["10x", "100x", "1000x"],
        "seeds": 2, "keep_runs": True,
    },
}  # fmt: skip


def write_board(out: Path, board: dict[str, Any], words: dict[str, Any] | None = None) -> Path:
    """Write a board as `compare` writes it."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(board), encoding="utf-8")
    if words is not None:
        (out / "compare.json").write_text(json.dumps(words), encoding="utf-8")
    return out


def renamed(value: Any, old: str, new: str) -> Any:
    """A board in which a name is another."""
    if isinstance(value, dict):
        return {key: renamed(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [renamed(item, old, new) for item in value]
    return new if value == old else value
