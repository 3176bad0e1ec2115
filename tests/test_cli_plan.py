"""`bitfold plan` over methods and budgets: every figure against the modules that it foretells."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import bitfold as package
from bitfold import EmbeddingCollection, Field
from bitfold.cli.quotes import bar, plan_parts, quote_tables
from bitfold.comparison.config import CompareConfig
from bitfold.comparison.quotes import quotes, training_bytes
from bitfold.data.prepared import PreparedLog
from bitfold.data.vocabulary import Vocabulary
from bitfold.optim import OPTIMIZERS
from command import READING, bitfold, refused, write_ratings

FIELDS = [Field("user", 6040), Field("movie", 3706), Field("query", distinct=50_000)]
SAID = ("plan", "--fields", "user=6040,movie=3706,query=hashed:50000")
METHODS = (
    "full",
    "hash",
    "multi-hash",
    "binary-code:fusion=weighted",
    "binary-code:sharing=fields",
)


def quoted(*args: object) -> dict[str, Any]:
    got = bitfold(*SAID, *args, "--json")
    assert got.code == 0, got.err
    made = json.loads(got.out)
    assert isinstance(made, dict)
    return made


def test_every_method_at_every_budget() -> None:
    made = quoted("--methods", ",".join(METHODS), "--budgets", "10x,64KiB", "--width", 8)
    assert [(q["method"], q["budget"]) for q in made["quotes"]] == [
        ("full", "1x"),
        *((method, budget) for budget in ("10x", "64KiB") for method in METHODS[1:]),
    ]
    assert made["embedding_dim"] == 8
    for quote in made["quotes"]:
        assert sum(quote["by_kind"].values()) == quote["bytes"]
        if quote["method"] == "full":
            continue
        method, _, option = quote["method"].partition(":")
        words = dict(pair.split("=") for pair in [option] if pair)
        plan = package.plan(FIELDS, 8, method=method, budget=quote["budget"], **words)
        assert quote["bytes"] == plan.bytes <= quote["budget_bytes"]
        assert quote["used"] == plan.bytes / quote["budget_bytes"]
        assert quote["ratio"] == plan.ratio
        assert quote["rows"] == plan.program.rows
        assert quote["fields"] == plan.rows()


@pytest.mark.parametrize("method", sorted(package.methods().keys() - {"full"}))
def test_every_method_is_shown_with_its_bytes(method: str) -> None:
    made = package.plan(FIELDS[:2], 16, method=method, budget="10x")
    one = bitfold("plan", "--fields", "user=6040,movie=3706", "--method", method, "--budget", "10x")
    some = bitfold(*SAID[:2], "user=6040,movie=3706", "--methods", f"{method},hash:allocation=1")
    for got in (one, some):
        assert got.code == 0, got.err
        assert f"{method}" in got.out
    assert f"{made.bytes:,} bytes" in one.out


@pytest.mark.parametrize("method", METHODS)
def test_training_bytes_are_those_of_a_step(method: str) -> None:
    words = CompareConfig(methods=(method,), budgets=("20x",))
    (quote,) = quotes(FIELDS, 8, words, {})
    assert quote.plan is not None
    for name, kind in OPTIMIZERS.items():
        module = EmbeddingCollection.from_plan(quote.plan)
        optimizer = kind(module.parameters())
        module(torch.zeros(4, 3, dtype=torch.int64)).sum().backward()
        optimizer.step()
        state = [each for kept in optimizer.state.values() for each in kept.values()]
        tensors = [*module.parameters(), *(p.grad for p in module.parameters())]
        # The count of steps is a number a weight, whatever the table's size.
        tensors += [each for each in state if each.dim()]
        assert sum(each.nbytes for each in tensors) == training_bytes(quote.plan)[name]


def test_ids_a_row_are_counted_over_all_fields_that_share_it() -> None:
    def loads(**words: Any) -> list[float]:
        plan = package.plan(FIELDS[:2], 4, **words)
        return [row["ids_per_row"] for row in plan.rows()]

    assert loads(method="full") == [1, 1]
    plan = package.plan(FIELDS[:2], 4, method="hash", budget="10x")
    rows = [row["rows"] for row in plan.rows()]
    assert loads(method="hash", budget="10x") == [6040 / rows[0], 3706 / rows[1]]
    twice = loads(method="multi-hash", budget="10x")
    assert twice == pytest.approx([2 * load for load in loads(method="hash", budget="10x")])
    shared = package.plan(FIELDS[:2], 4, method="binary-code", budget="10x", sharing="fields")
    reads = sum(row["ids"] * row["lookups"] for row in shared.rows())
    for row in shared.rows():
        assert row["rows"] == shared.program.rows
        assert row["ids_per_row"] == pytest.approx(reads / shared.program.rows)
    unknown = package.plan([Field("query")], 4, method="hash", budget=4096)
    assert unknown.rows()[0]["ids_per_row"] is None


def test_vectors_are_as_many_as_the_digits_can_tell_apart() -> None:
    for words in ({"method": "hash"}, {"method": "multi-hash"}, {"blocks": 3}):
        plan = package.plan([Field("few", 60)], 4, budget="4x", **words)
        met = {tuple(plan.program.cells_int(0, value)) for value in range(60)}
        assert len(met) <= plan.rows()[0]["vectors"]
    whole = package.plan([Field("few", 60)], 6, fusion="concat", blocks=3, budget="2KiB")
    assert whole.rows()[0]["vectors"] == 60  # each chunk repeats the same digit


def test_a_budget_too_small_is_a_line_with_the_least_bytes() -> None:
    (quote,) = quoted("--methods", "binary-code:sharing=slices", "--budgets", "1KiB")["quotes"]
    with pytest.raises(package.BudgetTooSmall) as refusal:
        package.plan(FIELDS, 16, budget="1KiB", sharing="slices")
    assert quote == {
        "method": "binary-code:sharing=slices",
        "budget": "1KiB",
        "budget_bytes": 1024,
        "minimum": refusal.value.minimum,
    }
    shown = bitfold(*SAID, "--methods", "hash,binary-code:sharing=slices", "--budgets", "1KiB").out
    assert f"needs {refusal.value.minimum:,} B" in shown
    assert "hash at 1KiB" in shown


@pytest.mark.parametrize(
    ("fields", "budget", "sharing"),
    [(FIELDS[:2], "10x", "slices"), (FIELDS[:2], "256B", "fields"), (FIELDS, "10x", "fields")],
)
def test_the_default_shares_one_pool_of_hashed_ids_and_where_slices_do_not_fit(
    fields: list[package.Field], budget: str, sharing: str
) -> None:
    made = package.plan(fields, 16, method="binary-code", budget=budget)
    assert made.options["sharing"] == sharing
    assert made.program == package.plan(fields, 16, budget=budget, sharing=sharing).program


def test_the_default_has_the_least_bytes_of_one_pool() -> None:
    (quote,) = quoted("--methods", "binary-code", "--budgets", "1KiB")["quotes"]
    assert quote["bytes"] == package.plan(FIELDS, 16, budget="1KiB", sharing="fields").bytes <= 1024
    with pytest.raises(package.BudgetTooSmall) as refusal:
        package.plan(FIELDS, 16, method="binary-code", budget="64B")
    least = refusal.value.minimum
    assert package.plan(FIELDS, 16, method="binary-code", budget=least).bytes <= least


@pytest.mark.parametrize("empty", [True, False])
def test_the_full_table_of_hashed_ids_is_that_of_the_map(tmp_path: Path, empty: bool) -> None:
    raw = write_ratings(tmp_path / "r.csv")
    if empty:
        head, *lines = raw.read_text().splitlines()
        lines = [line.replace("item 3,", ",") for line in lines]
        raw.write_text("\n".join([head, *lines]) + "\n")
    assert bitfold("prepare", raw, *READING, "--out", tmp_path / "log").code == 0
    got = bitfold("plan", tmp_path / "log", "--methods", "full", "--width", 4, "--json")
    assert got.code == 0, got.err
    (quote,) = json.loads(got.out)["quotes"]
    log = PreparedLog(tmp_path / "log")
    fitted = Vocabulary.fit(log)
    fields = fitted.fields(log.schema.embedding_fields())
    assert [field["ids"] for field in quote["fields"]] == [f.num_embeddings for f in fields]
    assert quote["map_bytes"] == fitted.bytes
    assert quote["bytes"] == package.plan(fields, 4, method="full").bytes


def test_options_seeds_and_a_comparisons_own_file(tmp_path: Path) -> None:
    saved = {
        "paths": [],
        "data": {"label": "clicked", "fields": ["user"]},
        "train": {"width": 4, "set": {"hash.allocation": "1.0"}, "embedding": "hash"},
        "compare": {"methods": ["hash", "multi-hash"], "budgets": ["10x"], "seeds": 2},
    }
    file = tmp_path / "compare.json"
    file.write_text(json.dumps(saved))
    made = quoted("--config", file)
    assert [quote["method"] for quote in made["quotes"]] == ["hash", "multi-hash"]
    assert [quote["options"]["allocation"] for quote in made["quotes"]] == [1.0, 0.0]
    assert made["embedding_dim"] == 4
    again = quoted("--config", file, "--budgets", "20x", "--set", "allocation=0.0")
    assert [quote["budget"] for quote in again["quotes"]] == ["20x", "20x"]
    one = quoted("--method", "hash", "--budgets", "10x,20x")
    assert [quote["method"] for quote in one["quotes"]] == ["hash", "hash"]
    one = quoted("--methods", "hash,multi-hash", "--budget", "10x")
    assert [quote["budget"] for quote in one["quotes"]] == ["10x", "10x"]


def test_mistakes() -> None:
    def bad(*args: object) -> Any:
        return bitfold(*SAID, *args)

    refused(bad("--methods", "full,hsah"), "did you mean 'hash'")
    refused(bad("--methods", "hash", "--budgets", "ten"), "malformed budget")
    refused(bad("--budgets", "0"), "above zero")
    refused(bad("--budgets", "0.5x"), "1x or more")
    refused(bad("--methods", "binary-code:blokcs=3"), "did you mean 'blocks'")
    refused(bad("--methods", "hash", "--set", "strategy=skip"), "unknown option of hash")
    refused(bad("--methods", "hash", "--method", "full"), "say the same thing twice")
    refused(bad("--budgets", "10x", "--budget", "20x"), "say the same thing twice")
    refused(bitfold("plan", "no-log", "--budgets", "10x"), "no-log")
    unsized = bitfold("plan", "--fields", "query=hashed", "--budgets", "10x")
    refused(unsized, "query", "no known size")
    unsized = bitfold("plan", "--fields", "query=hashed", "--methods", "full", "--budgets", "1KiB")
    refused(unsized, "cannot take hashed ids")


def test_sizes_that_nobody_knows_are_left_out() -> None:
    got = bitfold("plan", "--fields", "query=hashed", "--methods", "hash", "--budgets", "1KiB")
    assert got.code == 0, got.err
    assert "any" in got.out


def test_the_tables_fit_a_terminal() -> None:
    fields = [*FIELDS[:2], Field("query", distinct=30_000_000)]
    words = CompareConfig(methods=METHODS, budgets=("10x", "1000x"))
    made = quotes(fields, 16, words, {})
    screen = Console(width=80, markup=False, highlight=False)
    with screen.capture() as captured:
        for quote in made:
            assert quote.plan is not None
            for part in plan_parts(quote.plan, narrow=True):
                screen.print(part)
        for table in quote_tables(made, narrow=True):
            screen.print(table)
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    assert captured.get().count("█") > 10


def test_a_bar_is_as_long_as_its_share() -> None:
    for cells in (6, 20):
        lengths = [len(bar(eighth / 80, cells)) for eighth in range(81)]
        assert lengths == sorted(lengths)
        assert lengths[0] == 0
        assert bar(1.0, cells) == "█" * cells


def test_fields_of_several_widths_have_a_column_of_widths() -> None:
    asked = ("plan", "--fields", "user=6040,movie=3706,age=7", "--budget", "10x", "--width", 16)
    shown = bitfold(*asked, "--method", "mixed-dimensions")
    assert shown.code == 0, shown.err
    head, *lines = [line.split() for line in shown.out.splitlines() if line.strip()][1:]
    place = head.index("width")
    found = {line[0]: int(line[place]) for line in lines if line[0] in ("user", "movie", "age")}
    assert found["user"] < found["age"] == 16
    assert "width " not in bitfold(*asked, "--method", "hash").out.replace("width 16", "")
