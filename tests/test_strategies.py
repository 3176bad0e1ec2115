"""Strategies of a stream: what they keep, what it weighs, and that a kill changes none of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bitfold import BitfoldError, load, stream
from bitfold.data.batch import Batch
from bitfold.errors import BudgetTooSmall
from bitfold.nets.building import build_network
from bitfold.nets.expanding import ExpandingNetwork
from bitfold.streaming import StreamConfig
from bitfold.streaming.record import read
from bitfold.streaming.replay import Replay
from bitfold.streaming.training import StreamTrainer
from command import bitfold as command
from interrupting import stopped_after
from stream_logs import READ, SMALL, figures, outcome, rows_of, write_csv

HOW: dict[str, Any] = SMALL | {"method": "hash", "set": {}}
ALIGNED: dict[str, Any] = HOW | {"memory": "aligned", "budget": "1100"}
WAYS: dict[str, dict[str, Any]] = {
    "finetune": {"strategy": "finetune"},
    "replay": {"strategy": "replay", "replay_rows": 20, "replay_share": 0.25},
    "expand": {"strategy": "expand", "expand_heads": 3},
}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("log") / "log.csv", rows_of())


def batch_of(first: int, rows: int) -> Batch:
    """Rows that know their numbers."""
    numbers = torch.arange(first, first + rows)
    return Batch(
        numbers[:, None].expand(-1, 2).clone(), None, numbers[:, None].float(),
        (numbers % 2).float(),
    )  # fmt: skip


def reservoir(rows: int, seed: int = 0, share: float = 0.5) -> Replay:
    return Replay(rows, fields=2, numeric=1, weighted=False, share=share, seed=seed)


def test_rows_are_counted_to_the_byte() -> None:
    """Two ids of 8 bytes, a number of 4 and a label of 1; 8 for the count of rows."""
    assert reservoir(10).row_bytes == 10 * (2 * 8 + 4 + 1) + 8
    weighted = Replay(3, fields=1, numeric=0, weighted=True, share=0.5, seed=0)
    assert weighted.row_bytes == 3 * (8 + 1 + 4) + 8


def test_a_share_below_a_row_is_kept_over_steps() -> None:
    kept = reservoir(100, share=0.2)
    kept.seen.fill_(100)
    assert sum(kept.drawn(2, step) for step in range(1000)) == 500
    assert [kept.drawn(40, step) for step in range(5)] == [10] * 5


def test_a_refusal_leaves_no_folder_of_strategies(log: Path, tmp_path: Path) -> None:
    words = ["stream", str(log), "--label", "clicked", "--fields", "user,item", "--time", "time"]
    words += ["--method", "hash", "--strategies", "finetune,replay", "--out", str(tmp_path / "all")]
    done = command(*words, "--budget", "1B")
    assert done.code == 2
    assert not (tmp_path / "all").exists(), done.err
    (tmp_path / "all").write_text("mine")
    assert "is no folder" in command(*words, "--budget", "1KiB").err
    assert (tmp_path / "all").read_text() == "mine"


def test_strategies_go_on_from_whichever_began(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "all"
    with stopped_after(7):
        stream(log, out / "replay", **READ, **HOW, strategy="replay")
    alone = command("stream", "--resume", "--out", str(out))
    assert "say --strategies replay" in alone.err
    command("stream", "--resume", "--strategies", "finetune,replay", "--out", str(out))
    for name in ("finetune", "replay"):
        assert len(read(out / name).courses[0].lines) == 4


def test_kept_rows_stay_whole() -> None:
    kept = reservoir(16)
    for first in (0, 40, 80):
        kept.keep(batch_of(first, 40))
    assert int(kept.seen) == 120
    assert torch.equal(kept.ids[:, 0], kept.ids[:, 1])
    assert torch.equal(kept.numbers[:, 0], kept.ids[:, 0].float())
    assert torch.equal(kept.labels, (kept.ids[:, 0] % 2).to(torch.uint8))
    assert len(set(kept.ids[:, 0].tolist())) == 16


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(1, 40), st.integers(0, 9))
@hypothesis_settings(deadline=None, max_examples=40)
def test_a_reservoir_holds_distinct_rows_that_were_seen(
    sizes: list[int], rows: int, seed: int
) -> None:
    kept, first = reservoir(rows, seed), 0
    for size in sizes:
        kept.keep(batch_of(first, size))
        first += size
    held = kept.ids[: kept.filled, 0].tolist()
    assert kept.filled == min(rows, first)
    assert len(set(held)) == len(held)
    assert all(0 <= number < first for number in held)
    assert first > rows or held == list(range(first))


def test_the_reservoir_is_uniform() -> None:
    """Each of 60 rows is kept as often as any other: 3,000 draws of 12, chi-squared at 59 degrees.

    A value above 110 has a chance below one in ten thousand; the seeds are fixed.
    """
    counts, draws = np.zeros(60), 3000
    for seed in range(draws):
        kept = reservoir(12, seed)
        for first, size in ((0, 7), (7, 23), (30, 30)):
            kept.keep(batch_of(first, size))
        counts[kept.ids[:, 0].numpy()] += 1
    expected = draws * 12 / 60
    # Rows are drawn without replacement: counts vary (1 - 12/60) times as much.
    assert ((counts - expected) ** 2 / expected).sum() / (1 - 12 / 60) < 110


def test_replayed_rows_have_their_share() -> None:
    kept = reservoir(200, share=0.25)
    assert kept.mixed(batch_of(0, 30), 0).rows == 30
    kept.keep(batch_of(0, 100))
    mixed = kept.mixed(batch_of(1000, 30), 5)
    assert mixed.rows == 40
    assert mixed.ids[:30, 0].tolist() == list(range(1000, 1030))
    past = mixed.ids[30:, 0].tolist()
    assert len(set(past)) == 10
    assert max(past) < 100
    assert torch.equal(mixed.labels, (mixed.ids[:, 0] % 2).float())  # type: ignore[arg-type]
    assert torch.equal(mixed.ids, kept.mixed(batch_of(1000, 30), 5).ids)
    assert not torch.equal(mixed.ids, kept.mixed(batch_of(1000, 30), 6).ids)


NETWORKS = [("deepfm", {}), ("dcnv2", {}), ("dlrm", {}), ("deepfm", {"fm": "false"})]


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_expanding_changes_no_score(name: str, options: dict[str, Any]) -> None:
    vectors, numeric = torch.randn(6, 3, 4), torch.randn(6, 2)
    plain = build_network(name, 3, 4, 2, hidden=(8, 4), dropout=0.5, **options).eval()
    network = build_network(name, 3, 4, 2, hidden=(8, 4), dropout=0.5, heads=3, **options).eval()
    assert isinstance(network, ExpandingNetwork)
    assert torch.equal(network(vectors, numeric), plain(vectors, numeric))
    for used in (2, 3, 3):
        before = network(vectors, numeric)
        network.expand()
        assert network.used == used
        if int(network.grown) <= 2:
            torch.testing.assert_close(network(vectors, numeric), before)
    assert float(network.mix.detach().sum()) == pytest.approx(1.0)


def test_a_copy_stays_as_it_was() -> None:
    """Known by hand: a head moved by 1 moves the score by its own share alone."""
    network = build_network("deepfm", 2, 3, hidden=(4,), heads=2)
    assert isinstance(network, ExpandingNetwork)
    vectors, none = torch.randn(5, 2, 3), torch.zeros(5, 0)
    network.expand()
    before = network(vectors, none).detach()
    with torch.no_grad():
        network.network.bias += 1  # type: ignore[operator]
    torch.testing.assert_close(network(vectors, none).detach(), before + 0.5)
    network(vectors, none).sum().backward()
    assert network.mix.grad is not None
    names = {name for name, _ in network.named_parameters()}
    assert not any("copies" in name for name in names)


def test_copies_are_counted() -> None:
    """A head of DeepFM with hidden 4,3: a bias, 3x4 + 3 and 1x3 + 1 numbers; two places; three
    shares; a count."""
    network = build_network("deepfm", 2, 5, hidden=(4, 3), heads=3)
    assert isinstance(network, ExpandingNetwork)
    assert network.copy_bytes == 4 * (2 * (1 + 12 + 3 + 3 + 1) + 3) + 8
    plain = build_network("deepfm", 2, 5, hidden=(4, 3))
    weigh = [sum(each.nbytes for each in it.state_dict().values()) for it in (network, plain)]
    assert weigh[0] - weigh[1] == network.copy_bytes


@pytest.mark.parametrize(
    ("name", "options"), [("lr", {}), ("deepfm", {"hidden": ()}), ("deepfm", {"deep": "false"})]
)
def test_networks_without_last_layers_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(BitfoldError, match="no last layers"):
        build_network(name, 2, 3, heads=2, **options)


@pytest.fixture(scope="module")
def wholes(log: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("wholes")
    for name, way in WAYS.items():
        stream(log, place / name, **READ, **ALIGNED, **way)
    return {name: place / name for name in WAYS}


@pytest.mark.parametrize("name", WAYS)
def test_bytes_never_leave_the_budget(wholes: dict[str, Path], name: str) -> None:
    (course,) = read(wholes[name]).courses
    assert course.budget_bytes == 1100
    assert (course.strategy, course.memory) == (name, "aligned")
    for line in course.lines:
        kinds = [line.bytes, line.network_bytes, line.copy_bytes, line.row_bytes]
        assert line.counted_bytes == sum(each or 0 for each in kinds)
        assert line.counted_bytes is not None
        assert 0 < line.counted_bytes <= 1100
        assert line.row_bytes == (20 * (2 * 8 + 1) + 8 if name == "replay" else 0)
        assert bool(line.copy_bytes) == (name == "expand")
    network = load(wholes[name]).model.network
    held = sum(tensor.nbytes for tensor in network.state_dict().values())
    last = course.lines[-1]
    assert held == (last.network_bytes or 0) + (last.copy_bytes or 0)


def test_tables_get_what_is_left(wholes: dict[str, Path]) -> None:
    left = {name: read(out).courses[0].lines[-1].bytes or 0 for name, out in wholes.items()}
    assert left["replay"] < left["finetune"]
    assert left["expand"] < left["finetune"]
    assert all(read(out).courses[0].auc is not None for out in wholes.values())


def test_an_expanded_run_scores_with_all_heads(wholes: dict[str, Path], log: Path) -> None:
    run = load(wholes["expand"])
    network = run.model.network
    assert isinstance(network, ExpandingNetwork)
    assert int(network.grown) == 3
    assert network.used == 3
    assert run.evaluate(log)["auc"] > 0.5


@pytest.mark.parametrize(("name", "steps"), [("replay", 7), ("replay", 13), ("expand", 13)])
def test_a_stream_goes_on_as_if_it_had_not_stopped(
    log: Path, wholes: dict[str, Path], tmp_path: Path, name: str, steps: int
) -> None:
    out, way = tmp_path / "run", WAYS[name] | {"checkpoint_steps": 3}
    with stopped_after(steps):
        stream(log, out, **READ, **ALIGNED, **way)
    found = stream(log, out, resume=True, **READ, **ALIGNED, **way)
    assert outcome(out) == outcome(wholes[name])
    assert figures(found.course) == figures(read(wholes[name]).courses[0])


def test_the_reservoir_of_a_resumed_stream_is_the_same(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Replay] = []
    window = StreamTrainer.window

    def noted(self: StreamTrainer, each: Any) -> Any:
        assert isinstance(self.strategy, Replay)
        kept.append(self.strategy)
        return window(self, each)

    monkeypatch.setattr(StreamTrainer, "window", noted)
    stream(log, tmp_path / "whole", **READ, **HOW, **WAYS["replay"])
    whole = kept[-1]
    with stopped_after(12):
        stream(log, tmp_path / "run", checkpoint_steps=3, **READ, **HOW, **WAYS["replay"])
    stream(log, tmp_path / "run", resume=True, **READ, **HOW, **WAYS["replay"])
    assert kept[-1] is not whole
    assert int(whole.seen) == 640
    for one, other in zip(whole.buffers(), kept[-1].buffers(), strict=True):
        assert torch.equal(one, other)


def test_strategies_change_what_is_learned(log: Path, tmp_path: Path) -> None:
    """Where the budget bounds tables alone, all have the same; replay begins on the second day."""
    courses = {
        name: stream(log, tmp_path / name, **READ, **HOW, **WAYS[name]).course for name in WAYS
    }
    plain = courses["finetune"].lines
    assert courses["replay"].lines[1].logloss == plain[1].logloss
    for name in ("replay", "expand"):
        lines = courses[name].lines
        assert lines[3].logloss != plain[3].logloss
        assert lines[3].counted == lines[3].bytes == plain[3].bytes


def test_too_small_a_budget_names_the_least(log: Path, tmp_path: Path) -> None:
    words = READ | HOW | {"memory": "aligned", "strategy": "replay", "replay_rows": 300}
    with pytest.raises(BudgetTooSmall, match=r"replay.*too little") as found:
        stream(log, tmp_path / "run", **words)
    least = found.value.minimum
    assert least > 300 * 17 + 8
    stream(log, tmp_path / "run", **words | {"budget": str(least)})
    assert read(tmp_path / "run").courses[0].most_bytes <= least  # type: ignore[operator]
    with pytest.raises(BudgetTooSmall):
        stream(log, tmp_path / "other", **words | {"budget": str(least - 1)})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"strategy": "forget"}, "unknown strategy"),
        ({"memory": "all"}, "unknown memory"),
        ({"replay_rows": 0}, "replay_rows is out of range"),
        ({"replay_share": 1.0}, "replay_share is out of range"),
        ({"replay_share": float("nan")}, "replay_share is out of range"),
        ({"expand_every": 0}, "expand_every is out of range"),
        ({"expand_heads": 1}, "expand_heads is out of range"),
    ],
)
def test_options_that_cannot_be(words: dict[str, Any], message: str) -> None:
    with pytest.raises(BitfoldError, match=message):
        StreamConfig(**words)


def test_streams_that_cannot_be(log: Path, tmp_path: Path) -> None:
    def refused(message: str, **words: Any) -> None:
        with pytest.raises(BitfoldError, match=message):
            stream(log, tmp_path / "run", **READ | HOW | words)

    refused("aligned memory needs a budget", memory="aligned", budget=None)
    refused("embedding sets cannot be expanded", strategy="expand", embedding_sets=2)
    refused("no last layers", strategy="expand", network="lr")
    refused("the strategy's to say", network_set={"heads": "2"})


def test_bags_are_not_kept(tmp_path: Path) -> None:
    rows = {"tags": ["a|b", "c"] * 40, "clicked": [0, 1] * 40}
    with pytest.raises(BitfoldError, match="not kept for replay"):
        stream(
            rows, tmp_path / "run", label="clicked", fields="tags", multi={"tags": "|"},
            window="40r", strategy="replay", **HOW,
        )  # fmt: skip


def test_another_strategy_does_not_go_on(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with stopped_after(8):
        stream(log, out, checkpoint_steps=3, **READ, **HOW, **WAYS["replay"])
    with pytest.raises(BitfoldError, match="another replay_rows"):
        stream(log, out, resume=True, **READ, **HOW, **WAYS["replay"] | {"replay_rows": 60})
    with pytest.raises(BitfoldError, match="another strategy"):
        stream(log, out, resume=True, **READ, **HOW, **WAYS["replay"] | {"strategy": "finetune"})


COMMAND = [
    *("--label", "clicked", "--fields", "user,item", "--time", "time", "--width", "4"),
    *("--hidden", "8", "--batch-size", "32", "--method", "hash", "--budget", "8KiB"),
    *("--replay-rows", "40", "--expand-heads", "2"),
]


def test_several_strategies_on_one_page(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    names = ["--strategies", "finetune,replay,expand", "--memory", "aligned"]
    found = command("stream", log, *COMMAND, *names, "--out", out)
    assert found.code == 0, found.err
    for name in WAYS:
        assert read(out / name).finished
        assert name in found.out
    page = (out / "stream.html").read_text(encoding="utf-8")
    assert "hash 8KiB, replay" in page
    assert "copies" in page
    (out / "stream.html").unlink()
    assert command("report", out).code == 0
    assert (out / "stream.html").is_file()
    again = command("stream", *names, "--resume", "--out", out)
    assert again.code == 0, again.err


def test_strategies_that_cannot_be(log: Path, tmp_path: Path) -> None:
    def said(*words: str) -> str:
        found = command("stream", log, *COMMAND, *words, "--out", tmp_path / "out")
        assert found.code != 0
        return found.err

    assert "both said" in said("--strategies", "finetune", "--strategy", "replay")
    assert "unknown strategy" in said("--strategies", "finetune,forget")
    assert "there are no strategies" in said("--strategies", ",")
