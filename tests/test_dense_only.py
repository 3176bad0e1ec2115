"""A method that needs dense ids gets a map over a log of hashed ones, as the full table does."""

from pathlib import Path
from typing import Any

import pytest

import bitfold
from bitfold.comparison.config import CompareConfig
from bitfold.comparison.quotes import quotes
from bitfold.method import registry

MODULO = """
from dataclasses import dataclass
from typing import ClassVar

from bitfold import Method
from bitfold.address import Lookup, Program, Raw
from bitfold.address.program import place
from bitfold.method.allocation import check_minimum
from bitfold.method.base import Traits, dense_only


@dataclass(frozen=True)
class Modulo(Method):
    '''Frequent ids have a row of their own; the others share with them.'''

    name: ClassVar[str] = "modulo"
    summary: ClassVar[str] = "the id modulo the rows"
    when: ClassVar[str] = "never"
    traits: ClassVar[Traits] = Traits(hashed_ids=False)

    def plan(self, ask):
        dense_only(self.name, ask.fields)
        each = max(field.num_embeddings for field in ask.fields)
        if ask.budget is not None:
            room = (ask.budget - ask.fixed_bytes(len(ask.fields))) // ask.row_bytes()
            check_minimum(self.name, len(ask.fields), room)
            each = min(each, room // len(ask.fields))
        bases, rows = place([each] * len(ask.fields))
        lookups = tuple((Lookup(Raw(), each, base),) for base in bases)
        return self.finish(ask, Program(1, lookups, rows), "sum")
"""
ROWS = {
    "user": [f"u{i % 60}" for i in range(400)],
    "item": [f"i{i * i % 37}" for i in range(400)],
    "clicked": [0, 1, 1, 0] * 100,
}
OPTIONS: dict[str, Any] = {
    **{"label": "clicked", "fields": "user,item", "split": "random:0.6,0.2,0.2", "width": 4},
    **{"hidden": [4], "epochs": 1, "progress": False},
}


@pytest.fixture(autouse=True)
def modulo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_plugins", {})
    (tmp_path / "modulo.py").write_text(MODULO)
    assert bitfold.load_plugin(tmp_path / "modulo.py") == ["modulo"]


def test_it_is_compared_within_its_budget_and_its_map_is_counted() -> None:
    found = bitfold.compare(
        ROWS, methods="full,hash,modulo", budgets="4x,10B", seeds=1, floors=False, **OPTIONS
    )
    cells = {(row["method"], row["budget"]): row for row in found.results}
    whole, mine = cells["full", "1x"], cells["modulo", "4x"]
    assert mine["map_bytes"] == whole["map_bytes"] > 0
    assert cells["hash", "4x"]["map_bytes"] == 0
    assert mine["bytes"] <= whole["bytes"] / 4
    assert {(row["method"], row["budget"]) for row in found.refused} == {
        ("hash", "10B"),
        ("modulo", "10B"),
    }


def test_it_trains_what_is_quoted_and_scores_raw_rows() -> None:
    run = bitfold.train(ROWS, method="modulo", budget="4x", **OPTIONS)
    assert run.dense is not None
    assert run.metrics["map_bytes"] == run.dense.bytes
    assert run.predict({"user": ["u1", "new"], "item": ["i1", "i0"]}).shape == (2,)
    fields = run.schema.embedding_fields()
    assert all(field.hashed for field in fields)
    (quote,) = quotes(fields, 4, CompareConfig(methods=("modulo",), budgets=("4x",)), {})
    assert quote.plan is not None
    assert (quote.plan.bytes, quote.plan.budget) == (run.plan.bytes, run.plan.budget)
    assert quote.map_bytes == run.metrics["map_bytes"]
