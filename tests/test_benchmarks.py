"""The benchmarks' own working: turns, processes, what is said of a rival that is not there."""

import gzip
import importlib
import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SMALL = {"sizes": [50, 7], "dim": 4, "hidden": [8], "batch": 16, "rounds": 2, "threads": 1}


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    """A module of the benchmarks, which stand outside the package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def loaded(name: str) -> ModuleType:
        return importlib.import_module(name)

    before = set(sys.modules)
    yield loaded
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


SUBJECTS = sorted(path.stem for path in BENCHMARKS.glob("*.py"))


@pytest.mark.parametrize("subject", SUBJECTS)
def test_what_it_measures_is_still_there(load, subject: str) -> None:
    assert load(subject).__doc__


def test_everyone_takes_a_turn_in_every_round(load) -> None:
    turns = load("turns")
    called: list[str] = []
    group = {name: lambda turn, name=name: called.append(name) for name in "ab"}

    times, peaks = turns.measure(group, rounds=9)

    assert called[:4] == list("aabb")  # warm-up
    rounds = ["".join(called[place : place + 4]) for place in range(4, len(called), 4)]
    assert set(rounds) == {"aabb", "bbaa"}  # two calls a turn, in an order of the round's own
    assert {name: len(taken) for name, taken in times.items()} == {"a": 9, "b": 9}
    assert set(peaks) == {"a", "b"}


def test_a_ratio_is_the_median_of_the_rounds(load) -> None:
    turns = load("turns")

    assert turns.ratio([2.0, 30.0, 8.0], [1.0, 3.0, 2.0]) == 4.0
    assert turns.quartiles([5.0]) == (5.0, 5.0, 5.0)


@pytest.mark.parametrize("kind", ["uniform", "zipf"])
def test_drawn_ids_are_in_range_and_repeat_with_their_seed(load, kind: str) -> None:
    ids = load("turns").drawn(kind, 1000, 3, 100)

    assert 0 <= int(ids.min()) <= int(ids.max()) < 100
    assert torch.equal(ids, load("turns").drawn(kind, 1000, 3, 100))


def test_sizes_of_fields_add_up(load) -> None:
    sizes = load("bags").field_sizes(26, 33_700_000)

    assert sum(sizes) == 33_700_000
    assert sizes == sorted(sizes)
    assert sizes[0] == 14


def test_a_contestant_answers_from_its_own_process(load) -> None:
    found = load("process").ask("training_plain.py", SMALL | {"form": "ceiling"})

    for contestant in ("milliseconds", "plain", "ceiling", "ceiling grad"):
        assert len(found[contestant]) == 2
    assert found["peak_resident"] > 0


@pytest.mark.parametrize("optimizer", ["adam", "lazy-adam-inside"])
def test_ours_trains_within_a_budget(load, optimizer: str) -> None:
    words = {"method": "binary-code", "budget": "2x", "optimizer": optimizer}

    assert "milliseconds" in load("process").ask("training_bitfold.py", SMALL | words)


def test_a_rival_that_is_not_there_is_named_with_the_reason(
    load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = load("process")
    monkeypatch.setattr(process, "ENVIRONMENTS", tmp_path)
    assert process.ask("any.py", {}, "fuxictr") == {"missing": "not installed: run `make rivals`"}

    (tmp_path / "fuxictr").mkdir()
    (tmp_path / "fuxictr" / process.FAILED).write_text("no such version\n")
    assert process.ask("any.py", {}, "fuxictr") == {"missing": "not installed: no such version"}


def test_a_script_that_fails_says_why(load) -> None:
    found = load("process").ask("training_plain.py", {})

    assert found == {"missing": "failed: KeyError: 'form'"}


def test_targets_compare_by_the_yardsticks(load) -> None:
    training = load("training")
    large, small = training.CASES
    rows = [
        {"case": large, "name": training.OURS[0].name, "times_plain": 3.0, "of_ceiling": 0.75},
        {"case": large, "name": training.RIVALS[0].name, "times_plain": 0.5},
        {"case": large, "name": training.RIVALS[1].name, "missing": "not installed"},
    ]

    reached = {(row["case"], row["target"]): row["reached"] for row in training.targets(rows)}

    assert reached == {
        (large, 6.0): 6.0, (large, 2.0): None, (large, 0.85): 0.75,
        (small, 1.2): None, (small, 0.85): None,
    }  # fmt: skip


def test_charts_follow_the_pages_theme(load, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    charts = load("charts")
    rows = [
        {"case": "c", "name": "bitfold", "times_plain": 2.0, "rows_per_second": 5},
        {"case": "c", "name": "FuxiCTR", "missing": "not installed: run `make rivals`"},
    ]
    with charts.plt.rc_context(charts.STYLE):
        charts.save(charts.training(json.loads(json.dumps({"results": rows}))), tmp_path / "c.svg")
    drawn = (tmp_path / "c.svg").read_text()

    assert "prefers-color-scheme:dark" in drawn
    assert "not installed" in drawn
    assert "2.00x" in drawn


def test_a_page_is_filled_from_the_figures(load, tmp_path: Path) -> None:
    tables = load("tables")
    serving = [{"rows": 1, "p50": [9.0, 6.0], "p99": [20.0, 14.04], "ratio": 1.5}]
    (tmp_path / "lookups.json").write_text(json.dumps({"results": [], "serving": serving}))
    page = (
        "before\n<!-- table: serving -->\nyesterday\n<!-- end -->\nbetween\n"
        "<!-- table: bags -->\nstays\n<!-- end -->\n"
    )

    filled, missing = tables.fill(page, tmp_path)

    assert "| 1 | 9.0 | 20.0 | 6.0 | 14.0 | 1.50 |" in filled
    assert "yesterday" not in filled
    assert "stays" in filled
    assert filled.startswith("before\n<!-- table: serving -->\n| rows |")
    assert missing == ["bags"]
    again, _ = tables.fill(filled, tmp_path)
    assert again == filled


def test_every_table_of_the_page_has_someone_who_fills_it(load) -> None:
    tables = load("tables")
    page = (BENCHMARKS.parent / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert {match[2] for match in tables.PLACE.finditer(page)} == set(tables.TABLES)


def test_the_board_of_cold_items_thins_training_alone(load, tmp_path: Path) -> None:
    """Every kept count is among the drawn items, and held-out pairs are those of the whole log."""
    cold = load("cold")
    log = cold.Log("t", "log.csv.gz", "user", "item", "label", 100)
    pairs = [(user, item) for user in range(100) for item in range(20) if (user + item) % 2]
    lines = [f"u{user},i{item},{int(item != 19)}" for user, item in pairs]
    with gzip.open(tmp_path / "log.csv.gz", "wt", encoding="utf-8") as stream:
        stream.write("\n".join(["user,item,label", *lines]))
    rows = cold.thinned(log, tmp_path, 0)
    assert rows == cold.thinned(log, tmp_path, 0) != cold.thinned(log, tmp_path, 1)
    counts = Counter(item for _, item, part in rows if part == "train")
    assert sorted(counts.values())[:7] == [1, 1, 2, 2, 4, 4, 8]  # of 19 items, two in five
    assert "i19" not in counts
    assert sorted(counts.values())[7] >= cold.ENOUGH
    held = {(user, item) for user, item, part in rows if part != "train"}
    everything = {(f"u{user}", f"i{item}") for user, item in pairs if item != 19}
    assert held < everything
    whole = cold.told([0.5, None, None]), cold.told([0.5, 0.25, 0.75])
    assert whole == ("+0.5000", "+0.5000 (+0.2500 to +0.7500)")


def test_swaps_under_load_tell_stale_and_mixed_answers(load) -> None:
    swaps = load("serving_swaps")
    play = object.__new__(swaps.Play)
    play.tally, play.order = swaps.Tally(), ["a", "b", "c"]
    play.digest = {name: name * 64 for name in "abc"}
    play.truth = {name * 64: 0.1 * place + torch.arange(4).numpy() / 100
                  for place, name in enumerate("abc")}  # fmt: skip
    client = swaps.Client(sock=None, asked=(1, 2), after=1)

    def judged(run: str, scores: list[float], status: int = 200) -> tuple[int, int, int]:
        play.tally = swaps.Tally()
        play.judge(client, status, json.dumps({"run": run * 64, "scores": scores}).encode())
        return play.tally.errors, play.tally.stale, play.tally.mixed

    assert judged("b", [0.11, 0.12]) == judged("c", [0.21, 0.22]) == (0, 0, 0)
    assert judged("a", [0.01, 0.02]) == (0, 1, 0)  # replaced before it was asked
    assert judged("b", [0.11, 0.22]) == judged("b", [0.11]) == (0, 0, 1)
    assert judged("d", [0.11, 0.12]) == (0, 1, 1)
    assert judged("b", [], status=503) == (1, 0, 0)
